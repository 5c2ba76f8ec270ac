"""From an experiment's record to the dicts of the original system: scores are per cent here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loracle.run_folder.trial_record import TrainingOutcome, TrialSummary

_SHOWN = {"exact_match": "em", "em": "em", "f1": "f1"}
"""The keys of scores, and the metrics they show."""


def per_cent(means: Mapping[str, float]) -> dict[str, float]:
    """Scores as the SQuAD script prints them; `em` is `exact_match` under its short name."""
    return {key: 100.0 * means[metric] for key, metric in _SHOWN.items()}


def training_figures(
    outcome: TrainingOutcome, steps: Sequence[Mapping[str, Any]], batch_size: int
) -> dict[str, Any]:
    """What one training took. steps: the rows of steps.jsonl."""
    seconds = outcome.seconds
    # An epoch's last batch may be smaller, so examples are counted by epochs and not by batches.
    num_trained = steps[-1]["epoch"] * outcome.num_examples
    return {
        "num_examples": outcome.num_examples,
        "num_steps": outcome.num_steps,
        "batch_size": batch_size,
        "supervised_tokens": outcome.num_supervised_tokens,
        "tokens_read": outcome.num_tokens_read,
        "tokens_computed": outcome.num_tokens_computed,
        "final_loss": outcome.final_loss,
        "losses": [step["loss"] for step in steps],
        "training_seconds": seconds,
        "steps_per_second": outcome.num_steps / seconds,
        "examples_per_second": num_trained / seconds,
    }


def evaluation_figures(
    summary: TrialSummary, evaluation: str, estimates: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """What one evaluation set gave. estimates: those of results.json; none without intervals."""
    found = summary.evaluations[evaluation]
    num_examples = sum(found.finish_reasons.values())
    num_answered = sum(sum(one.finish_reasons.values()) for one in summary.evaluations.values())
    return {
        **per_cent(found.means),
        "intervals": _intervals(estimates, evaluation, summary.candidate),
        "num_examples": num_examples,
        "finish_reasons": dict(found.finish_reasons),
        "scripts": dict(found.scripts),
        "evaluation_seconds": summary.evaluation_seconds,
        "rows_per_second": num_answered / summary.evaluation_seconds,
    }


def lift_figures(
    summary: TrialSummary,
    base: TrialSummary,
    evaluation: str,
    comparisons: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """What a training gained over the base. comparisons: those of results.json."""
    own, before = summary.evaluations[evaluation].means, base.evaluations[evaluation].means
    with_base = [one for one in comparisons if one["b"] == base.candidate]
    known = [{**one, "candidate": one["a"]} for one in with_base]
    lift = {key: per_cent(own)[key] - per_cent(before)[key] for key in _SHOWN}
    return {**lift, "intervals": _intervals(known, evaluation, summary.candidate)}


def ranking_of(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The completed datasets, by the lift of F1 over the untrained model."""
    completed = [entry for entry in entries if entry["status"] == "completed"]
    return [
        {
            "dataset": entry["dataset"],
            "exact_match": entry["scores"]["exact_match"],
            "em": entry["scores"]["em"],
            "f1": entry["scores"]["f1"],
            "lift_f1": entry["lift"]["f1"],
        }
        for entry in sorted(completed, key=lambda entry: -entry["lift"]["f1"])
    ]


def _intervals(
    found: Iterable[Mapping[str, Any]], evaluation: str, candidate: str
) -> dict[str, list[float]]:
    return {
        key: [100.0 * one["low"], 100.0 * one["high"]]
        for one in found
        for key, metric in _SHOWN.items()
        if one["metric"] == metric
        and one["evaluation"] == evaluation
        and one["candidate"] == candidate
        and one["low"] is not None
    }
