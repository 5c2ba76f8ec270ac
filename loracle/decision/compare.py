"""Two runs against each other, on the evaluation sets they share: what did the change do?

Differences are the second run (B) minus the first (A), paired by question: the base with the base,
candidates with the same name with each other, and the best of one run with the best of the other
if their names differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loracle.decision.evidence import Evidence, FloatArray, SetEvidence
from loracle.decision.judge import frozen_rule, worth_having
from loracle.errors import PlanError, RunFolderError
from loracle.metrics import get_metric
from loracle.plan import BASE_NAME, difference
from loracle.statistics import (
    GAIN_WORTH_HAVING,
    Comparison,
    ScoredSet,
    Terms,
    compare,
    plain_mean,
)
from loracle.text import counted


@dataclass(frozen=True)
class RunComparison:
    """What differs between two runs.

    plan_changes: as lines. unshared: evaluation sets that only one of the runs used. means: by
    evaluation, by row as `comparisons` call it. worth: the difference worth having, which
    `comparisons` rule out when they call it absent.
    """

    metric: str
    confidence: float
    worth: float
    plan_changes: Sequence[str]
    shared: Sequence[str]
    unshared: Sequence[str]
    means: Mapping[str, Mapping[str, float]]
    comparisons: Sequence[Comparison]

    @property
    def mean_over_sets(self) -> Mapping[str, float]:
        """By row: the plain mean over the shared evaluation sets."""
        by_set = list(self.means.values())
        return {row: plain_mean(means[row] for means in by_set) for row in by_set[0]}


def row_of_a(name: str) -> str:
    """What a row of the first run is called."""
    return f"A: {name}"


def row_of_b(name: str) -> str:
    """What a row of the second run is called."""
    return f"B: {name}"


def compare_runs(
    a: Evidence, b: Evidence, metric: str | None = None, confidence: float | None = None
) -> RunComparison:
    """Compare two runs by one metric; None means the metric of the first run's rule.

    Raises RunFolderError if they share no evaluation set, PlanError if the metric was not computed
    on every shared set.
    """
    rule = frozen_rule(a)
    worth = worth_having(rule) if metric in (None, rule.metric) else GAIN_WORTH_HAVING
    metric = metric or rule.metric
    confidence = confidence or rule.confidence
    shared = _shared(a, b)
    _require_metric(metric, shared)
    definition = get_metric(metric)
    terms = Terms(
        confidence=confidence,
        worth=worth,
        higher_is_better=definition.higher_is_better,
        bounded=definition.unit == "share",
    )
    sets = [_scored(one, other, metric) for one, other in shared]
    names = {one.name for one, _ in shared} | {other.name for _, other in shared}
    return RunComparison(
        metric=metric,
        confidence=confidence,
        worth=worth,
        plan_changes=difference(a.plan, b.plan),
        shared=[one.name for one, _ in shared],
        unshared=[one.name for one in (*a.sets, *b.sets) if one.name not in names],
        means={
            one.name: {row: float(scores.mean()) for row, scores in one.scores.items()}
            for one in sets
        },
        comparisons=compare(
            sets,
            _pairs(a, b, sets, definition.higher_is_better),
            frozenset({row_of_a(BASE_NAME), row_of_b(BASE_NAME)}),
            terms,
        ),
    )


def _shared(a: Evidence, b: Evidence) -> list[tuple[SetEvidence, SetEvidence]]:
    """Sets with the same content and the same questions, whatever their names."""
    others = {_identity(b, one): one for one in b.sets}
    shared = [(one, others[key]) for one in a.sets if (key := _identity(a, one)) in others]
    if not shared:
        raise RunFolderError(
            "the two runs share no evaluation set: the first asked "
            f"{_listed(a)}, the second {_listed(b)}, and no two of them have the same questions"
        )
    return shared


def _identity(evidence: Evidence, one: SetEvidence) -> tuple[str, tuple[str, ...]]:
    entry = next(entry for entry in evidence.plan["evaluation"] if entry["name"] == one.name)
    return str(entry["sha256"]), tuple(one.ids)


def _listed(evidence: Evidence) -> str:
    return ", ".join(f"{one.name} ({counted(len(one.ids), 'question')})" for one in evidence.sets)


def _require_metric(metric: str, shared: Sequence[tuple[SetEvidence, SetEvidence]]) -> None:
    computed = [set(one.metrics) & set(other.metrics) for one, other in shared]
    common = set.intersection(*computed)
    if metric not in common:
        raise PlanError(
            f"{metric} was not computed by both runs on every shared evaluation set; "
            f"computed by both: {', '.join(sorted(common)) or 'none'}"
        )


def _scored(one: SetEvidence, other: SetEvidence, metric: str) -> ScoredSet:
    scores: dict[str, FloatArray] = {}
    scores |= {row_of_a(row): by_metric[metric] for row, by_metric in one.scores.items()}
    scores |= {row_of_b(row): by_metric[metric] for row, by_metric in other.scores.items()}
    return ScoredSet(one.name, one.clusters, scores)


def _pairs(
    a: Evidence, b: Evidence, sets: Sequence[ScoredSet], higher_is_better: bool
) -> list[tuple[str, str]]:
    """(row of B, row of A)."""
    pairs = [
        (row_of_b(name), row_of_a(name))
        for name in (BASE_NAME, *a.candidates)
        if name == BASE_NAME or name in b.candidates
    ]
    direction = 1 if higher_is_better else -1

    def best(rows: Sequence[str]) -> str:
        return max(rows, key=lambda row: direction * sum(one.scores[row].mean() for one in sets))

    if a.candidates and b.candidates:
        winners = (
            best([row_of_b(name) for name in b.candidates]),
            best([row_of_a(name) for name in a.candidates]),
        )
        if winners not in pairs:
            pairs.append(winners)
    return pairs


def comparison_record(found: RunComparison) -> dict[str, Any]:
    """As JSON values."""
    return {
        "metric": found.metric,
        "confidence": found.confidence,
        "worth_having": found.worth,
        "plan_changes": list(found.plan_changes),
        "shared": list(found.shared),
        "unshared": list(found.unshared),
        "means": {name: dict(means) for name, means in found.means.items()},
        "comparisons": [vars(comparison) for comparison in found.comparisons],
    }
