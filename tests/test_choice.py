"""Which tests run: long ones with an option or if their file is named, slow ones with an option."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.choice import files_named, reason_to_skip


def reason(
    *markers: str,
    slow: bool = False,
    long: bool = False,
    is_named: bool = False,
    has_cuda: bool = False,
) -> str | None:
    return reason_to_skip(
        lambda name: name in markers,
        slow=slow,
        long=long,
        is_named=is_named,
        has_cuda=lambda: has_cuda,
    )


def test_a_test_without_a_marker_always_runs() -> None:
    assert reason() is None


def test_a_long_test_runs_with_the_option_or_if_its_file_is_named() -> None:
    assert reason("long") == "long: run with --long, or name its file"
    assert reason("long", long=True) is None
    assert reason("long", is_named=True) is None


def test_a_slow_test_runs_with_its_own_option_only() -> None:
    assert reason("slow", long=True, is_named=True) == "slow: run with --slow"
    assert reason("slow", slow=True) is None


def test_a_test_for_a_device_runs_if_there_is_one() -> None:
    assert reason("gpu", slow=True, long=True) == "needs a CUDA device"
    assert reason("gpu", has_cuda=True) is None


@pytest.mark.parametrize(
    ("argument", "is_named"),
    [
        ("tests/test_choice.py", True),
        ("tests/test_choice.py::test_a_test_without_a_marker_always_runs", True),
        ("tests/../tests/test_choice.py::TestClass::test_name[a::b]", True),
        ("tests", False),
        ("tests/test_no_such_file.py", False),
        (".", False),
    ],
)
def test_a_file_is_named_by_itself_or_by_one_of_its_tests(argument: str, is_named: bool) -> None:
    folder = Path(__file__).resolve().parents[1]
    assert (Path(__file__).resolve() in files_named([argument], folder)) is is_named
