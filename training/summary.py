"""From an experiment's record to the dicts of the original system: scores are per cent here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loracle.experiment.trial import Place
from loracle.run_folder.trial_record import TrainingOutcome, TrialSummary, training_record

_SHOWN = {"exact_match": "em", "em": "em", "f1": "f1"}
"""The keys of scores, and the metrics they show."""


def per_cent(means: Mapping[str, float]) -> dict[str, float]:
    """Scores as the SQuAD script prints them; `em` is `exact_match` under its short name."""
    return {key: 100.0 * means[metric] for key, metric in _SHOWN.items()}


def head_of(place: Place, status: str = "completed", **paths: object) -> dict[str, Any]:
    """What every result begins with."""
    return {
        "status": status,
        "dataset": place.trial,
        "dataset_index": place.index,
        "total_datasets": place.num_trials,
        **{name: str(path) for name, path in paths.items()},
    }


def training_figures(
    outcome: TrainingOutcome, steps: Sequence[Mapping[str, Any]], batch_size: int
) -> dict[str, Any]:
    """What one training took. steps: the rows of steps.jsonl."""
    # An epoch's last batch may be smaller, so examples are counted by epochs and not by batches.
    num_trained = steps[-1]["epoch"] * outcome.num_examples
    return {
        **training_record(outcome),
        "batch_size": batch_size,
        "losses": [step["loss"] for step in steps],
        "steps_per_second": outcome.num_steps / outcome.seconds,
        "examples_per_second": num_trained / outcome.seconds,
    }


def evaluation_figures(
    summary: TrialSummary, evaluation: str, estimates: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """What one evaluation set gave. estimates: those of results.json; none without intervals."""
    found = summary.evaluations[evaluation]
    num_answered = sum(sum(one.finish_reasons.values()) for one in summary.evaluations.values())
    return {
        **per_cent(found.means),
        "intervals": _intervals(estimates, evaluation, {"candidate": summary.candidate}),
        "num_examples": sum(found.finish_reasons.values()),
        "finish_reasons": dict(found.finish_reasons),
        "scripts": dict(found.scripts),
        "evaluation_seconds": summary.evaluation_seconds,
        "rows_per_second": num_answered / summary.evaluation_seconds,
    }


def lift_figures(
    own: TrialSummary,
    base: TrialSummary,
    evaluation: str,
    comparisons: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """What a training gained over the base. comparisons: those of results.json."""
    after, before = (per_cent(one.evaluations[evaluation].means) for one in (own, base))
    known = _intervals(comparisons, evaluation, {"a": own.candidate, "b": base.candidate})
    return {**{key: after[key] - before[key] for key in _SHOWN}, "intervals": known}


def ranking_of(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The completed datasets, by the lift of F1 over the untrained model."""
    completed = [entry for entry in entries if entry["status"] == "completed"]
    return [
        {
            "dataset": entry["dataset"],
            **{key: entry["scores"][key] for key in _SHOWN},
            "lift_f1": entry["lift"]["f1"],
        }
        for entry in sorted(completed, key=lambda entry: -entry["lift"]["f1"])
    ]


def _intervals(
    found: Iterable[Mapping[str, Any]], evaluation: str, of: Mapping[str, str]
) -> dict[str, list[float]]:
    return {
        key: [100.0 * one["low"], 100.0 * one["high"]]
        for one in found
        for key, metric in _SHOWN.items()
        if {**of, "metric": metric, "evaluation": evaluation}.items() <= one.items()
        and one["low"] is not None
    }
