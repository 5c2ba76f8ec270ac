"""What was predicted before the run, next to what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loracle.forecast.record import Forecast, read_forecast
from loracle.report.run_record import RunRecord, TrialRecord
from loracle.text import NOTHING, duration, size


def foreseen(record: RunRecord) -> dict[str, Any]:
    """Predicted and measured time of every trial, and peak memory; no rows if none is known."""
    found = read_forecast(record.root)
    if found is None:
        return {"rows": []}
    peak = found.measured.peak_memory_bytes if found.measured else None
    rows = [
        *_trial_rows(record, found.forecast),
        {
            "what": ("Peak memory", "峰值内存"),
            "predicted": size(found.forecast.peak_bytes),
            "measured": size(peak),
            "ratio": _ratio(found.forecast.peak_bytes, peak),
        },
    ]
    return {"rows": rows}


def _trial_rows(record: RunRecord, forecast: Forecast) -> Iterator[dict[str, Any]]:
    """Of every trial and the base; what has not finished has no measured time."""
    by_name = {one.name: one for one in forecast.candidates}
    for trial in record.trials:
        one = by_name.get(trial.candidate)
        summary = trial.summary if trial.is_done else None
        answered = summary.evaluation_seconds if summary else None
        if trial.is_base:
            yield _row(trial, ("answering", "回答"), forecast.base_answering_seconds, answered)
        elif one is not None:
            trained = summary.training.seconds if summary and summary.training else None
            yield _row(trial, ("training", "训练"), one.training_seconds, trained)
            yield _row(trial, ("answering", "回答"), one.answering_seconds, answered)


def _row(
    trial: TrialRecord, part: tuple[str, str], predicted: float, measured: float | None
) -> dict[str, Any]:
    english, chinese = part
    return {
        "what": (f"{trial.label}: {english}", f"{trial.label}：{chinese}"),
        "predicted": duration(predicted),
        "measured": NOTHING if measured is None else duration(measured),
        "ratio": _ratio(predicted, measured),
    }


def _ratio(predicted: float, measured: float | None) -> str:
    return f"{predicted / measured:.2f}" if measured else NOTHING
