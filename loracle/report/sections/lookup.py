"""Looks up estimates and comparisons in results.json, for any metric and evaluation set.

A scope is an evaluation set's name, or None for the mean over all sets if there are several.
Results of version 1 have no judgement: everything is absent there, and the sections say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loracle import text
from loracle.metrics import METRICS
from loracle.text import NOTHING, shown_score

Scope = str | None
Found = Mapping[str, Any]


class Findings:
    """The judgement's part of results.json, looked up by metric, row and scope."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.metric: str = results["decision_metric"]
        self.is_judged = "decisions" in results
        self.rule: Found = results.get("rule", {})
        self.decisions: list[Found] = results.get("decisions", [])
        self.read_first: list[Found] = results.get("read_first", [])
        """What could overturn the decision; results before version 3 do not say."""
        self._facts: dict[tuple[str, Scope], Found] = {
            (entry["metric"], entry["evaluation"]): entry for entry in results.get("precision", [])
        }
        evaluations = results["evaluations"]
        names: list[Scope] = [entry["name"] for entry in evaluations]
        self.scopes: list[Scope] = [None, *names] if len(names) > 1 else names
        """The metric that decides comes first."""
        self.metrics = list(dict.fromkeys(m for entry in evaluations for m in entry["metrics"]))
        self.metrics.sort(key=lambda metric: metric != self.metric)
        """The one that decides first."""
        self.candidates = [
            entry["candidate"] for entry in results["ranking"] if entry["mean"] is not None
        ]
        """The base and the candidates with a finished trial, best first."""
        self._estimates: dict[tuple[str, str, Scope], Found] = {
            (entry["metric"], entry["candidate"], entry["evaluation"]): entry
            for entry in results.get("estimates", [])
        }
        self._comparisons: dict[tuple[str, str, str, Scope], Found] = {
            (entry["metric"], entry["a"], entry["b"], entry["evaluation"]): entry
            for entry in results.get("comparisons", [])
        }

    @property
    def scope(self) -> Scope:
        return self.scopes[0]

    def estimate(self, candidate: str, metric: str, scope: Scope) -> Found | None:
        """A candidate's mean with its interval."""
        return self._estimates.get((metric, candidate, scope))

    def comparison(self, a: str, b: str, metric: str, scope: Scope) -> Found | None:
        """The comparison of a minus b, reversed if it is stored the other way."""
        found = self._comparisons.get((metric, a, b, scope))
        if found is not None:
            return found
        stored = self._comparisons.get((metric, b, a, scope))
        return None if stored is None else _turned(stored)

    def facts(self, metric: str, scope: Scope) -> Found | None:
        """What an evaluation set can show: questions, independent groups, smallest difference."""
        return self._facts.get((metric, scope))

    def is_better(self, metric: str, difference: float) -> bool:
        """Whether a difference is an improvement."""
        higher = metric not in METRICS or METRICS[metric].higher_is_better
        return difference > 0 if higher else difference < 0


def _turned(found: Found) -> Found:
    low, high = found["low"], found["high"]
    return {
        **found,
        "a": found["b"],
        "b": found["a"],
        "difference": -found["difference"],
        "low": None if high is None else -high,
        "high": None if low is None else -low,
        "num_a_better": found["num_b_better"],
        "num_b_better": found["num_a_better"],
    }


def score(metric: str, value: float | None, *, signed: bool = False) -> str:
    """A mean or difference as people read it, with a true minus sign."""
    if value is None:
        return NOTHING
    return shown_score(metric, value, signed=signed).replace("-", "−")


def interval(metric: str, found: Found | None, *, signed: bool = False) -> str:
    """[low, high], or a dash if there is none."""
    if found is None or found["low"] is None or found["high"] is None:
        return NOTHING
    low, high = (score(metric, found[end], signed=signed) for end in ("low", "high"))
    return f"[{low}, {high}]"


def p_value(found: Found | None) -> str:
    """The corrected p."""
    return NOTHING if found is None else text.p_value(found["p_corrected"])
