"""Plain means, with exact sums: equal scores have equal means, in any order.

A ranking needs that, because equal means share a rank. The means of the estimates are the same
numbers except for rounding (a test holds them together).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

Means = Mapping[str, Mapping[str, float]]
"""By evaluation and metric: {"test": {"em": 0.62, "f1": 0.78}}."""


def plain_mean(values: Iterable[float]) -> float:
    """The mean of at least one value."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def means_over_seeds(trials: Sequence[Means]) -> dict[str, dict[str, float]]:
    """Each mean over a candidate's trials; empty if there are none."""
    if not trials:
        return {}
    return {
        evaluation: {
            metric: plain_mean(trial[evaluation][metric] for trial in trials)
            for metric in by_metric
        }
        for evaluation, by_metric in trials[0].items()
    }


def mean_over_sets(means: Means, evaluations: Iterable[str], metric: str) -> float:
    """One metric over evaluation sets, each with the same weight."""
    return plain_mean(means[evaluation][metric] for evaluation in evaluations)
