"""Every two candidates against each other, as results.json compares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loracle.plan import BASE_NAME
from loracle.report.run_record import RunRecord
from loracle.report.sections.lookup import Findings, Scope, interval, p_value, score
from loracle.report.sections.words import OVERALL, Said, places_of, series_of
from loracle.text import count, metric_name


def pairs(record: RunRecord, findings: Findings) -> dict[str, Any]:
    """A matrix for each metric and scope, the decisive one first; and what was not shown."""
    places = places_of(record.plan)
    columns = [(name, series_of(name, places)) for name in findings.candidates]
    tables = [
        {
            "title": _matrix_title(metric, scope),
            "rows": [
                {
                    "name": name,
                    "series": series,
                    "cells": [_pair(findings, name, other, metric, scope) for other, _ in columns],
                }
                for name, series in columns
            ],
        }
        for metric in findings.metrics
        for scope in findings.scopes
        if findings.is_judged and findings.facts(metric, scope) is not None
    ]
    return {"columns": columns, "tables": tables, "open": list(_open_pairs(findings))}


def _matrix_title(metric: str, scope: Scope) -> Said:
    english, chinese = OVERALL if scope is None else (scope, scope)
    return f"{metric_name(metric)} · {english}", f"{metric_name(metric)} · {chinese}"


def _pair(findings: Findings, a: str, b: str, metric: str, scope: Scope) -> dict[str, str] | None:
    found = findings.comparison(a, b, metric, scope)
    if found is None:
        return None
    return {
        "difference": score(metric, found["difference"], signed=True),
        "interval": interval(metric, found, signed=True),
        "p": p_value(found),
        "tone": _pair_tone(found, a),
    }


def _pair_tone(found: Mapping[str, Any], a: str) -> str:
    if found["better"] is not None:
        return "better" if found["better"] == a else "worse"
    return "equal" if found.get("absent") and BASE_NAME not in (found["a"], found["b"]) else "open"


def _open_pairs(findings: Findings) -> Iterator[dict[str, str]]:
    """Pairs without a shown difference, and how many questions would show the observed one."""
    metric, scope = findings.metric, findings.scope
    for place, a in enumerate(findings.candidates):
        for b in findings.candidates[place + 1 :]:
            found = findings.comparison(a, b, metric, scope)
            if found is not None and found["better"] is None and not found.get("absent"):
                yield {
                    "a": a,
                    "b": b,
                    "difference": score(metric, abs(found["difference"])),
                    "better_on": f"{found['num_a_better']:,} : {found['num_b_better']:,}",
                    "needed": count(found["questions_needed"]),
                    "to_absence": count(found.get("questions_to_absence")),
                }
