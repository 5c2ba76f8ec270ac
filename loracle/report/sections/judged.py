"""Decision, ranking, estimates, pairs, evaluation sets: what results.json says of the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loracle.plan import BASE_NAME
from loracle.report.charts import PointRow, estimates_chart
from loracle.report.record import RunRecord
from loracle.report.results import shown_score
from loracle.report.sections.words import (
    NOTHING,
    clock,
    count,
    metric_name,
    places_of,
    series_of,
)


def decision(record: RunRecord) -> dict[str, Any]:
    results = record.results
    assert results is not None
    return {
        "sentence": ("No decision on record", "尚无决策记录"),
        "reasons": [],
        "facts": [],
    }


def ranking(record: RunRecord) -> dict[str, Any]:
    results = record.results
    assert results is not None
    places = places_of(record.plan)
    metric = results["decision_metric"]
    rows = []
    for entry in results["ranking"]:
        name = entry["candidate"]
        rows.append(
            {
                "rank": NOTHING if entry["rank"] is None else entry["rank"],
                "name": name,
                "series": series_of(name, places),
                "reason": entry["reason"] if entry["status"] == "failed" else None,
                "tag": None,
                "mean": _score(metric, entry["mean"]),
                "lift": NOTHING
                if name == BASE_NAME
                else _score(metric, entry["lift"], signed=True),
                "others": [],
                "num_rows": count(entry["num_examples"]) if name != BASE_NAME else NOTHING,
                "minutes": clock(entry["seconds"]),
            }
        )
    return {
        "lead": ("By mean score.", "按平均得分排列。"),
        "metric": metric_name(metric),
        "has_intervals": False,
        "confidence": "95 %",
        "other_metrics": [],
        "has_seeds": False,
        "rows": rows,
        "notes": [],
    }


def _score(metric: str, value: float | None, *, signed: bool = False) -> str:
    return NOTHING if value is None else shown_score(metric, value, signed=signed)


def estimates(record: RunRecord) -> dict[str, Any]:
    results = record.results
    assert results is not None
    places = places_of(record.plan)
    rows = [
        PointRow(
            e["candidate"],
            places.get(e["candidate"]),
            _score("f1", e["mean"]),
            e["mean"] * 100,
            None,
            None,
        )
        for e in results["ranking"]
        if e["mean"] is not None
    ]
    return {"has_intervals": False, "chart": estimates_chart(rows)}


def pairs(record: RunRecord) -> dict[str, Any]:
    return {"rows": []}


def sets(record: RunRecord) -> dict[str, Any]:
    results = record.results
    assert results is not None
    places = places_of(record.plan)
    columns = [(e["name"], m) for e in results["evaluations"] for m in e["metrics"]]
    return {
        "columns": [(evaluation, metric_name(metric)) for evaluation, metric in columns],
        "rows": [
            {
                "name": entry["candidate"],
                "series": series_of(entry["candidate"], places),
                "cells": [_cell(entry, *column) for column in columns],
            }
            for entry in results["ranking"]
            if entry["scores"]
        ],
    }


def _cell(entry: Mapping[str, Any], evaluation: str, metric: str) -> dict[str, str]:
    found = entry["scores"].get(evaluation, {}).get(metric)
    if found is None:
        return {"mean": NOTHING, "lift": "", "shade": ""}
    lift = found["lift"]
    if entry["candidate"] == BASE_NAME or lift is None:
        return {"mean": shown_score(metric, found["mean"]), "lift": "", "shade": ""}
    return {
        "mean": shown_score(metric, found["mean"]),
        "lift": shown_score(metric, lift, signed=True),
        "shade": _shade(lift),
    }


# Lifts at which a shade ends, in shares.
_SHADES = (0.01, 0.05, 0.15, 0.35)


def _shade(lift: float) -> str:
    strength = sum(abs(lift) >= bound for bound in _SHADES)
    return f"{'up' if lift > 0 else 'down'}-{strength}" if strength else ""
