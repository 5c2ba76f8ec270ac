"""The pipeline's results: an entry for each dataset, and which of them was worth training on.

{"version": 1, "status": "completed",
 "datasets": [{"dataset": "a", "base": {"f1": 21.4, ...}, "scores": {"f1": 64.0, ...}, ...}],
 "summary": {"best_dataset": "a", "ranking": [...], ...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracle.experiment.trial import Place
from training.datasets import DatasetPaths

RESULTS_VERSION = 1

_SHOWN = ("exact_match", "f1")
_RULE = "lift of F1 over the untrained model on the same rows"


def completed_entry(
    dataset: DatasetPaths,
    place: Place,
    base_scores: Mapping[str, Any],
    training: Mapping[str, Any],
    scores: Mapping[str, Any],
    adapter_path: Path,
    predictions_path: Path,
) -> dict[str, Any]:
    """The entry of a dataset that was trained on and measured."""
    own = {key: value for key, value in scores.items() if key != "predictions"}
    return {
        **_head(dataset, place, "completed"),
        "evaluation": {
            "name": dataset.evaluation_name,
            "num_examples": scores["num_examples"],
            **dataset.evaluation_facts(),
        },
        "base": {name: base_scores[name] for name in _SHOWN},
        "scores": own,
        "lift": {name: scores[name] - base_scores[name] for name in _SHOWN},
        "training": dict(training),
        "adapter_path": str(adapter_path),
        "predictions_path": str(predictions_path),
    }


def failed_entry(dataset: DatasetPaths, place: Place, reason: str) -> dict[str, Any]:
    """The entry of a dataset that failed."""
    return {**_head(dataset, place, "failed"), "reason": reason}


def summarize(entries: list[dict[str, Any]], num_datasets: int, seconds: float) -> dict[str, Any]:
    """The summary over the datasets so far; `status` is that of the whole pipeline."""
    completed = [entry for entry in entries if entry["status"] == "completed"]
    ranking = sorted(completed, key=lambda entry: -entry["lift"]["f1"])
    best, reason = _best(ranking)
    return {
        "status": _status(len(entries), len(completed), num_datasets),
        "num_datasets": num_datasets,
        "num_completed": len(completed),
        "num_failed": len(entries) - len(completed),
        "ranking": [
            {
                "dataset": entry["dataset"],
                "exact_match": entry["scores"]["exact_match"],
                "f1": entry["scores"]["f1"],
                "lift_f1": entry["lift"]["f1"],
            }
            for entry in ranking
        ],
        "rule": _RULE,
        "best_dataset": best,
        "reason": reason,
        "seconds": seconds,
    }


def _head(dataset: DatasetPaths, place: Place, status: str) -> dict[str, Any]:
    return {
        "dataset": dataset.name,
        "dataset_index": place.index,
        "total_datasets": place.num_trials,
        "status": status,
        "train_path": str(dataset.train_path),
    }


def _status(num_done: int, num_completed: int, num_datasets: int) -> str:
    if num_done < num_datasets:
        return "running"
    if num_completed == num_datasets:
        return "completed"
    return "completed_with_failures" if num_completed else "failed"


def _best(ranking: list[dict[str, Any]]) -> tuple[str | None, str]:
    """The dataset at the top where it stands alone and above the base, and the reason."""
    if not ranking:
        return None, "no dataset was trained on and measured"
    lifts = [entry["lift"]["f1"] for entry in ranking]
    if lifts[0] <= 0:
        return None, f"none helps: the highest {_RULE} is {lifts[0]:.2f} points"
    if len(lifts) > 1 and lifts[1] == lifts[0]:
        return None, f"no difference between the first two: {_RULE} is {lifts[0]:.2f} points"
    reason = f"highest {_RULE}: {lifts[0]:.2f} points"
    if len({entry["evaluation"]["name"] for entry in ranking}) > 1:
        reason += "; the datasets were measured on different rows, so weigh it with care"
    return ranking[0]["dataset"], reason
