"""Training curves, learning cost, data accounting, length of the answers: what was counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loracle.report.charts import MAX_LINE_POINTS, NARROW, LineRow, loss_chart
from loracle.report.run_record import RunRecord, TrialRecord
from loracle.report.sections.words import places_of, quantile, series_of
from loracle.run_folder.trial_record import TrainingOutcome
from loracle.text import NOTHING, clock, count, percent, size

# At or above this share, cut or empty answers are highlighted.
_OFTEN = 0.05


def training(record: RunRecord) -> dict[str, Any]:
    """The loss of every trial that took a step, including failed ones."""
    places = places_of(record.plan)
    trained = [trial for trial in record.trials if trial.steps]
    lines = [
        LineRow(
            trial.label,
            places[trial.candidate],
            [row["step"] for row in trial.steps],
            [row["loss"] for row in trial.steps],
        )
        for trial in trained
    ]
    return {
        "chart": loss_chart(lines) if lines else None,
        "narrow": loss_chart(lines, NARROW) if lines else None,
        "num_thinned": sum(len(line.steps) > MAX_LINE_POINTS for line in lines),
        "legend": [
            {"name": name, "series": series_of(name, places)}
            for name in dict.fromkeys(trial.candidate for trial in trained)
        ],
    }


def cost(record: RunRecord) -> dict[str, Any]:
    """Steps, tokens and time of every candidate over its seeds, and of every finished trial."""
    trials = list(record.finished_trials())
    places = places_of(record.plan)
    by_candidate: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        by_candidate.setdefault(trial.candidate, []).append(trial)

    def row(name: str, candidate: str, several: list[TrialRecord]) -> dict[str, Any]:
        return {"name": name, "series": series_of(candidate, places), **_cost(several)}

    return {
        "num_seeds": len(record.plan["seeds"]),
        "rows": [row(name, name, several) for name, several in by_candidate.items()],
        "trials": [row(trial.label, trial.candidate, [trial]) for trial in trials],
    }


def _cost(trials: list[TrialRecord]) -> dict[str, str]:
    """Sums over the trials; for the final loss the mean, for memory the highest."""
    evaluation = clock(sum(trial.summary.evaluation_seconds for trial in trials))
    peaks = [trial.summary.peak_memory_bytes for trial in trials]
    peak = size(max((peak for peak in peaks if peak is not None), default=None))
    trained = [found for trial in trials if (found := trial.training) is not None]
    if not trained:
        names = ("steps", "tokens_read", "tokens_computed", "saving", "training", "final_loss")
        return dict.fromkeys(names, NOTHING) | {
            "evaluation": evaluation,
            "peak_memory": peak,
        }
    read = sum(one.num_tokens_read for one in trained)
    computed = sum(one.num_tokens_computed for one in trained)
    return {
        "steps": count(sum(one.num_steps for one in trained)),
        "tokens_read": count(read),
        "tokens_computed": count(computed),
        "saving": percent(read - computed, read),
        "training": clock(sum(one.seconds for one in trained)),
        "evaluation": evaluation,
        "peak_memory": peak,
        "final_loss": f"{sum(one.final_loss for one in trained) / len(trained):.3f}",
    }


def data(record: RunRecord) -> dict[str, Any]:
    """The files, and the rows of them that were learned."""
    places = places_of(record.plan)
    trained = {trial.candidate: trial.training for trial in record.finished_trials()}
    return {
        "rows": [
            {
                "name": entry["name"],
                "series": series_of(entry["name"], places),
                "limit": count(entry["limit"]),
                "file": Path(entry["path"]).name,
                "size": size(entry.get("size_bytes")),
                **_accounting(trained.get(entry["name"])),
            }
            for entry in record.plan["candidates"]
        ]
    }


def _accounting(trained: TrainingOutcome | None) -> dict[str, str]:
    """trained: None if no trial of the candidate is finished."""
    if trained is None:
        return {"num_rows": count(None), "supervised": count(None), "per_row": NOTHING}
    num_rows, supervised = trained.num_examples, trained.num_supervised_tokens
    return {
        "num_rows": count(num_rows),
        "supervised": count(supervised),
        "per_row": f"{supervised / num_rows:.1f}" if num_rows and supervised else NOTHING,
    }


def length(record: RunRecord) -> dict[str, Any]:
    """The length of answers and why they ended, by evaluation."""
    return {
        "max_new_tokens": record.plan["generation"]["max_new_tokens"],
        "tables": list(_length_tables(record)),
    }


def _length_tables(record: RunRecord) -> Iterator[dict[str, Any]]:
    places = places_of(record.plan)
    for evaluation in record.evaluations:
        rows: list[dict[str, Any]] = []
        references: list[int] = []
        for trial in record.finished_trials():
            answers = trial.predictions(evaluation)
            if not answers:
                continue
            series = series_of(trial.candidate, places)
            rows.append({"name": trial.label, "series": series, **_length(answers)})
            references = references or [len(text) for row in answers for text in row["answers"]]
        if rows:
            yield {
                "name": evaluation,
                "rows": rows,
                "num_references": count(len(references)),
                "reference_characters": count(quantile(references, 0.5)),
            }


def _length(answers: list[dict[str, Any]]) -> dict[str, Any]:
    num = len(answers)
    tokens = [len(row["token_ids"]) for row in answers]
    num_cut = sum(row["finish_reason"] == "length" for row in answers)
    num_empty = sum(not row["prediction"] for row in answers)
    return {
        "num_answers": count(num),
        "stop": _of(num - num_cut, num),
        "cut": _of(num_cut, num),
        "is_often_cut": num_cut > math.ceil(_OFTEN * num),
        "empty": _of(num_empty, num),
        "is_often_empty": num_empty > math.ceil(_OFTEN * num),
        "median_tokens": count(quantile(tokens, 0.5)),
        "most_tokens": count(quantile(tokens, 0.9)),
        "median_characters": count(quantile([len(row["prediction"]) for row in answers], 0.5)),
    }


def _of(part: int, whole: int) -> str:
    return f"{part:,} ({percent(part, whole)})" if part else "0"
