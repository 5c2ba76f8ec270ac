"""What goes into the statistics of a metric and what comes out, as plain records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loracle.statistics.bootstrap import NUM_RESAMPLES
from loracle.statistics.spread import FloatArray

GAIN_WORTH_HAVING = 0.02
"""The gain that a claim of absence rules out if the plan states no minimum gain, in the metric's
unit: two points of em or f1."""


@dataclass(frozen=True)
class ScoredSet:
    """One evaluation set: how well each row answered each of its Q questions.

    scores: by row, (S, Q), one line per seed. clusters: the label of every question's cluster.
    """

    name: str
    clusters: Sequence[str]
    scores: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Terms:
    """The settings of the analysis.

    confidence: of intervals; 1 - confidence bounds the chance of any false finding. min_gain: how
    much a candidate must be better than the base, in the metric's unit. bounded: whether scores
    lie from 0 to 1. num_resamples: of the bootstrap. worth: the gain worth having, which a claim of
    absence rules out.
    """

    confidence: float = 0.95
    min_gain: float = 0.0
    higher_is_better: bool = True
    bounded: bool = True
    num_resamples: int = NUM_RESAMPLES
    worth: float = GAIN_WORTH_HAVING


@dataclass(frozen=True)
class Estimate:
    """A row's mean score with its interval; low and high are None if there is no interval.

    evaluation: None for the plain mean over all evaluation sets. `lift`: the mean minus the base's.
    """

    row: str
    evaluation: str | None
    mean: float
    low: float | None
    high: float | None
    lift: float
    num_seeds: int


@dataclass(frozen=True)
class Comparison:
    """Two rows on the same questions. b is the base, or a candidate that the plan names later."""

    a: str
    b: str
    evaluation: str | None
    difference: float
    """mean of a minus mean of b, in the metric's unit."""
    low: float | None
    """Its interval at the rule's confidence, for this one comparison; None: too few clusters."""
    high: float | None
    margin: float
    """How much better a must be: min_gain against the base, else 0."""
    p: float
    """Of the hypothesis that a is neither worse than b nor better by more than margin."""
    p_corrected: float
    """The same after Holm's correction for all comparisons."""
    exact: bool
    """Whether every sign pattern was counted, instead of a random sample of them."""
    better: str | None
    """The row shown to be better; None: no difference shown."""
    smallest_visible: float | None
    """The true difference that would be found with a chance of 80 %; None: none would be."""
    questions_needed: int | None
    """Questions needed to find a true difference as large as the observed one with that chance;
    None: no number is enough."""
    absent: bool
    """Whether a difference worth having is ruled out: against the base, a gain of a; between
    candidates, in either direction."""
    p_absent: float
    """Of the hypothesis that there is one, after Holm's correction for all comparisons with the
    base, or for all between candidates."""
    largest: float | None
    """The largest gain of a (between candidates: the largest difference, whoever is ahead) that is
    not ruled out, at the level of that correction; None: nothing can be said."""
    questions_to_absence: int | None
    """Questions needed to rule out a difference worth having with a chance of 80 %, if the
    observed one is true; None: no number is enough."""
    num_a_better: int
    num_b_better: int
    num_equal: int
    """Questions on which a, b or neither had the better score (mean over seeds)."""


@dataclass(frozen=True)
class SetFacts:
    """What one evaluation set (None: all together) could show."""

    evaluation: str | None
    num_questions: int
    num_clusters: int
    smallest_visible: float | None
    """Median over the comparisons; None: no difference can be shown with so few clusters."""
    seed_variance: float | None
    """Variance of one training's mean by its seed alone; None: one seed, so it is unknown."""


@dataclass(frozen=True)
class Analysis:
    """All estimates and comparisons of one metric."""

    base: str
    candidates: tuple[str, ...]
    terms: Terms
    sets: tuple[SetFacts, ...]
    estimates: tuple[Estimate, ...]
    comparisons: tuple[Comparison, ...]

    def estimate(self, row: str, evaluation: str | None) -> Estimate:
        """Raises KeyError if there is none."""
        for estimate in self.estimates:
            if (estimate.row, estimate.evaluation) == (row, evaluation):
                return estimate
        raise KeyError((row, evaluation))

    def facts(self, evaluation: str | None) -> SetFacts:
        """Raises KeyError if there are none."""
        for one in self.sets:
            if one.evaluation == evaluation:
                return one
        raise KeyError(evaluation)

    def comparison(self, a: str, b: str, evaluation: str | None) -> Comparison:
        """In either order of the rows, as it is stored. Raises KeyError if there is none."""
        for comparison in self.comparisons:
            rows = {comparison.a, comparison.b}
            if rows == {a, b} and comparison.evaluation == evaluation:
                return comparison
        raise KeyError((a, b, evaluation))
