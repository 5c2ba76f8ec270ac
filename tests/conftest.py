"""Which tests run: `slow` ones with --slow, `gpu` ones if there is a CUDA device.

`long` ones run with --long, which `make test` gives, or if the command line names their file.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests.choice import files_named, reason_to_skip
from tests.once import remember_counts, validate_parts_of_charts

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# Two processes with two threads each make each other five times slower (OpenMP's barriers), so
# each of pytest-xdist's workers, and whatever it starts, computes with one. Read by torch's import.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a card, Triton's kernels are interpreted on the CPU. Read by triton's import.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with long tests first; skip what cannot or should not run here, with the reason."""
    # A long test at the end is waited for by one worker alone. Whole files are moved, so that
    # their fixtures are made once. Stable: all others keep their order, the same in all workers.
    long_files = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long_files)
    named = files_named(config.args, config.invocation_params.dir)
    for item in items:
        reason = reason_to_skip(
            lambda name: item.get_closest_marker(name) is not None,  # noqa: B023, asked at once
            slow=config.getoption("--slow"),
            long=config.getoption("--long"),
            is_named=item.path.resolve() in named,
            has_cuda=_has_cuda,
        )
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays for good: no collection of garbage has to look at it again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    # At each test: most modules import neither what counts nor what draws, or within a test only.
    remember_counts()
    validate_parts_of_charts("report" in item.path.parts)


@cache
def _has_cuda() -> bool:
    # Here and not above: most test runs need no torch at all.
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def _one_renderer() -> Iterator[None]:
    """One process draws the charts of all reports: its start costs more than a report."""
    # Here and not above: most test modules draw nothing.
    from loracle.report.drawing import drawing
    from tests.drawn_once import charts_drawn_once

    with drawing(), charts_drawn_once():
        yield


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names of tests are the same in every process: packed bytes may hold the time."""
    return argname if isinstance(val, bytes) else None
