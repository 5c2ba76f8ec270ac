"""Which dataset the summary names, and when it names none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loracle.experiment.trial import Place
from training.datasets import DatasetPaths
from training.summary import completed_entry, failed_entry, summarize


def entry(name: str, f1: float, base_f1: float = 20.0, evaluation: str = "t") -> dict[str, Any]:
    dataset = DatasetPaths(name, Path(f"{name}.jsonl"), Path(f"{evaluation}.jsonl"), evaluation)
    scores = {"exact_match": 0.0, "f1": f1, "num_examples": 2, "predictions": [{}, {}]}
    base = {"exact_match": 0.0, "f1": base_f1}
    return completed_entry(
        dataset, Place(name, 1, 2), base, {"num_steps": 1}, scores, Path("adapter"), Path("rows")
    )


def failed(name: str) -> dict[str, Any]:
    dataset = DatasetPaths(name, Path(f"{name}.jsonl"), None, f"{name}-held-out")
    return failed_entry(dataset, Place(name, 1, 2), "it broke")


def test_the_highest_lift_is_named() -> None:
    summary = summarize([entry("a", 40.0), entry("b", 50.0)], 2, 1.5)
    assert summary["best_dataset"] == "b"
    assert [row["dataset"] for row in summary["ranking"]] == ["b", "a"]
    assert "30.00 points" in summary["reason"]
    assert "different rows" not in summary["reason"]


def test_lifts_are_compared_and_not_scores_of_different_rows() -> None:
    entries = [entry("easy", 90.0, base_f1=85.0), entry("hard", 50.0, evaluation="u")]
    summary = summarize(entries, 2, 1.0)
    assert summary["best_dataset"] == "hard"
    assert "measured on different rows" in summary["reason"]


def test_none_is_named_where_none_is_above_the_base() -> None:
    summary = summarize([entry("a", 20.0), entry("b", 10.0)], 2, 1.0)
    assert summary["best_dataset"] is None
    assert summary["reason"].startswith("none helps")


def test_none_is_named_where_the_first_two_are_even() -> None:
    summary = summarize([entry("a", 40.0), entry("b", 40.0)], 2, 1.0)
    assert summary["best_dataset"] is None
    assert summary["reason"].startswith("no difference between the first two")


def test_the_status_tells_how_the_pipeline_stands() -> None:
    def status(*entries: dict[str, Any]) -> str:
        return str(summarize(list(entries), 2, 1.0)["status"])

    assert status(entry("a", 1.0)) == "running"
    assert status(entry("a", 1.0), entry("b", 1.0)) == "completed"
    assert status(entry("a", 1.0), failed("b")) == "completed_with_failures"
    assert status(failed("a"), failed("b")) == "failed"


def test_an_entry_holds_no_predictions() -> None:
    found = entry("a", 40.0)
    assert "predictions" not in found["scores"]
    assert found["predictions_path"] == "rows"
