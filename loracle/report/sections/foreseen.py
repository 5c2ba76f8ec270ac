"""What was predicted before the run, next to what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loracle.forecast.record import read_forecast
from loracle.report.run_record import RunRecord
from loracle.text import NOTHING, duration, size


def foreseen(record: RunRecord) -> dict[str, Any]:
    """Predicted and measured time of every trial, and peak memory; no rows if none is known."""
    found = read_forecast(record.root)
    if found is None:
        return {"rows": []}
    peak = found.measured.peak_memory_bytes if found.measured else None
    rows = [
        *_trial_rows(record, {one.name: one for one in found.forecast.candidates}),
        {
            "what": ("Peak memory", "峰值内存"),
            "predicted": size(found.forecast.peak_bytes),
            "measured": size(peak),
            "ratio": _ratio(found.forecast.peak_bytes, peak),
        },
    ]
    return {"rows": rows}


def _trial_rows(record: RunRecord, by_name: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for trial in record.finished_trials():
        one = by_name.get(trial.candidate)
        if one is None or trial.training is None:
            continue
        for (english, chinese), predicted, measured in (
            (("training", "训练"), one.training_seconds, trial.training.seconds),
            (("answering", "回答"), one.answering_seconds, trial.summary.evaluation_seconds),
        ):
            yield {
                "what": (f"{trial.label}: {english}", f"{trial.label}：{chinese}"),
                "predicted": duration(predicted),
                "measured": duration(measured),
                "ratio": _ratio(predicted, measured),
            }


def _ratio(predicted: float, measured: float | None) -> str:
    return f"{predicted / measured:.2f}" if measured else NOTHING
