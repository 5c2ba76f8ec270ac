"""What is left of a plan if some of its files cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loracle.data_check.usable import UsablePart, usable_part
from loracle.errors import DataError
from loracle.plan import load_unmeasured_plan
from tests.original.conftest import question_rows, write_rows

SHARES = (0.1, 0.3, 0.5)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "Who?"}\n')
    return {
        "good": write_rows(tmp_path / "good.jsonl", question_rows()),
        "broken": broken,
        "test": write_rows(tmp_path / "test.jsonl", question_rows(2, 2)),
    }


def part(files: dict[str, Path], candidates: dict[str, str | None]) -> UsablePart:
    """By candidate file, the evaluation file that came with it."""
    asked = dict.fromkeys(name for name in candidates.values() if name)
    settings: dict[str, Any] = {"training": {"epochs": 1.5}}
    plan = load_unmeasured_plan(
        candidates=[files[name] for name in candidates],
        evaluations=[files[name] for name in asked],
        settings=settings,
    )
    return usable_part(plan, candidates, SHARES)


def test_a_candidate_that_cannot_be_read_is_left_out_with_its_reason(
    files: dict[str, Path],
) -> None:
    found = part(files, {"broken": "test", "good": "test"})
    assert found.plan is not None
    assert [one.name for one in found.plan.candidates] == ["good"]
    assert found.plan.training.epochs == 1.5
    assert list(found.failures) == ["broken"]
    assert "broken.jsonl:1: no answer" in found.failures["broken"]


def test_a_candidate_fails_with_the_evaluation_set_that_came_with_it(
    files: dict[str, Path],
) -> None:
    found = part(files, {"test": "broken", "good": "test"})
    assert found.plan is not None
    assert [one.name for one in found.plan.evaluation] == ["test"]
    assert "broken.jsonl:1" in found.failures["test"]


def test_without_an_evaluation_set_the_least_share_that_can_be_is_held_out(
    files: dict[str, Path],
) -> None:
    # Four passages of three rows: a tenth is less than one passage.
    found = part(files, {"broken": "test", "good": None})
    assert found.plan is not None
    assert found.plan.held_out is not None
    assert found.plan.held_out.share == 0.3


def test_nothing_is_left_if_no_candidate_can_be_read(files: dict[str, Path]) -> None:
    assert part(files, {"broken": None}).plan is None


def test_rows_that_cannot_be_split_are_an_error(files: dict[str, Path], tmp_path: Path) -> None:
    files["one"] = write_rows(tmp_path / "one.jsonl", question_rows(1, 1))
    with pytest.raises(DataError, match="holdout"):
        part(files, {"one": None})
