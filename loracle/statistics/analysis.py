"""From the scores of single questions to estimates and corrected comparisons.

    scores of each row (base, candidates), seed and question, the cluster of each question
      -> for each evaluation set, and for the plain mean over the sets where there are several:
         Estimate of each row, Comparison of each candidate with the base and of each two candidates

Every random number comes from a fixed seed and the clusters' order in the evaluation set: the same
scores give the same figures, in whatever order trials ran and candidates are listed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loracle.statistics import bootstrap, sign_flips
from loracle.statistics.correction import holm
from loracle.statistics.power import (
    Precision,
    questions_needed,
    smallest_visible_difference,
)
from loracle.statistics.spread import Clustering, ClusterTotals, FloatArray, SeedSpread

RANDOM_SEED = 20_260_101
"""Of all resampling. Fixed, so that nobody can draw until the result pleases."""

_FEWEST_FLIPS = 9_999


@dataclass(frozen=True)
class ScoredSet:
    """One evaluation set: how well each row answered each of its Q questions.

    scores: by row, (S, Q): one line a seed. clusters: the label of each question's cluster.
    """

    name: str
    clusters: Sequence[str]
    scores: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Terms:
    """What is asked of the scores.

    confidence: of intervals; 1 - confidence bounds the chance of any false finding. min_gain: how
    much a candidate must be better than the base, in the metric's unit. bounded: whether scores
    lie from 0 to 1.
    """

    confidence: float = 0.95
    min_gain: float = 0.0
    higher_is_better: bool = True
    bounded: bool = True


@dataclass(frozen=True)
class Estimate:
    """A row's mean score with its interval; low and high are None where none can be given.

    evaluation: None for the plain mean over all evaluation sets. `lift`: the mean less the base's.
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
    """mean of a less mean of b, in the metric's unit."""
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
    """Whether every sign pattern was counted, in place of a random choice of them."""
    better: str | None
    """The row shown to be better; None: no difference shown."""
    smallest_visible: float | None
    """The true difference that would be found with a chance of 80 %; None: none would be."""
    questions_needed: int | None
    """To find a true difference as large as the observed one with that chance; None: no number
    of questions does."""
    num_a_better: int
    num_b_better: int
    num_equal: int
    """Questions on which a, b or neither had the better score (mean over seeds)."""


@dataclass(frozen=True)
class SetFacts:
    """What one evaluation set (None: all together) had to offer."""

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
        """Raises KeyError where there is none."""
        for estimate in self.estimates:
            if (estimate.row, estimate.evaluation) == (row, evaluation):
                return estimate
        raise KeyError((row, evaluation))

    def comparison(self, a: str, b: str, evaluation: str | None) -> Comparison:
        """In either order of the rows, as it is stored. Raises KeyError where there is none."""
        for comparison in self.comparisons:
            rows = {comparison.a, comparison.b}
            if rows == {a, b} and comparison.evaluation == evaluation:
                return comparison
        raise KeyError((a, b, evaluation))


def analyse(sets: Sequence[ScoredSet], base: str, terms: Terms) -> Analysis:
    """Estimates of every row, and every comparison, corrected for all of them together.

    sets: each has the same rows, the base among them, in the plan's order.
    """
    assert sets, "there is at least one evaluation set"
    rows = list(sets[0].scores)
    assert base in rows, "the base model is always a row"
    candidates = tuple(row for row in rows if row != base)
    pairs = [*((row, base) for row in candidates), *itertools.combinations(candidates, 2)]
    scopes: list[tuple[str | None, Sequence[ScoredSet]]] = [(one.name, [one]) for one in sets]
    if len(sets) > 1:
        scopes.append((None, sets))
    num_comparisons = len(pairs) * len(scopes)
    facts = []
    estimates: list[Estimate] = []
    comparisons: list[Comparison] = []
    for evaluation, members in scopes:
        scope = _Scope(evaluation, members, rows, pairs, base, terms, num_comparisons)
        facts.append(scope.facts())
        estimates += scope.estimates()
        comparisons += scope.comparisons()
    return Analysis(
        base, candidates, terms, tuple(facts), tuple(estimates), _corrected(comparisons, terms)
    )


def _corrected(comparisons: Sequence[Comparison], terms: Terms) -> tuple[Comparison, ...]:
    adjusted = holm([comparison.p for comparison in comparisons])
    return tuple(
        replace(comparison, p_corrected=p, better=_better(comparison, p, terms))
        for comparison, p in zip(comparisons, adjusted, strict=True)
    )


def _better(comparison: Comparison, p_corrected: float, terms: Terms) -> str | None:
    # 1 - 0.95 is a little more than 0.05; a p-value of just 0.05 is to count as shown.
    if p_corrected > (1 - terms.confidence) * (1 + 1e-9):
        return None
    a_is_better = (comparison.difference > 0) == terms.higher_is_better
    return comparison.a if a_is_better else comparison.b


class _Scope:
    """One evaluation set, or all of them as one mean with equal weights.

    Columns K: the rows, then the pairs. Scores are turned so that more is better.
    """

    def __init__(
        self,
        evaluation: str | None,
        sets: Sequence[ScoredSet],
        rows: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        base: str,
        terms: Terms,
        num_comparisons: int,
    ) -> None:
        self.evaluation = evaluation
        self.rows, self.pairs, self.base, self.terms = rows, pairs, base, terms
        self.alpha = (1 - terms.confidence) / max(1, num_comparisons)
        self.num_flips = max(_FEWEST_FLIPS, math.ceil(20 / self.alpha) - 1)
        self.sign = 1.0 if terms.higher_is_better else -1.0
        clustering = Clustering.of([one.clusters for one in sets])
        scores = {
            row: self.sign * np.concatenate([one.scores[row] for one in sets], axis=1)
            for row in rows
        }
        self.num_seeds = {row: len(scores[row]) for row in rows}
        self.means_QR = np.stack([scores[row].mean(axis=0) for row in rows], axis=1)
        first, second = ([rows.index(pair[i]) for pair in pairs] for i in (0, 1))
        self.differences_QP = self.means_QR[:, first] - self.means_QR[:, second]
        self.seeds = SeedSpread.pooled(clustering, [scores[row] for row in rows if row != base])
        self.totals = clustering.totals(
            np.concatenate((self.means_QR, self.differences_QP), axis=1)
        )
        self.seed_errors_K = self._seed_errors()

    @property
    def num_questions(self) -> int:
        return len(self.means_QR)

    def _seed_errors(self) -> FloatArray:
        """Standard error by seeds of each column; the base was not trained and has none."""
        variances = {
            row: 0.0 if row == self.base else self.seeds.variance / self.num_seeds[row]
            for row in self.rows
        }
        columns = [variances[row] for row in self.rows]
        columns += [variances[a] + variances[b] for a, b in self.pairs]
        errors: FloatArray = np.sqrt(np.array(columns))
        return errors

    def facts(self) -> SetFacts:
        visible = [self._visible(precision) for precision in self._precisions()]
        known = [value for value in visible if value is not None]
        return SetFacts(
            self.evaluation,
            self.num_questions,
            len(self.totals.strata_G),
            float(np.median(known)) if known else None,
            self.seeds.variance if self.seeds.degrees_of_freedom else None,
        )

    def estimates(self) -> list[Estimate]:
        low, high = self._intervals()
        means = self.totals.means_K
        base_mean = means[self.rows.index(self.base)]
        return [
            Estimate(
                row,
                self.evaluation,
                self.sign * float(means[column]),
                *self._turned(low[column], high[column]),
                self.sign * float(means[column] - base_mean),
                self.num_seeds[row],
            )
            for column, row in enumerate(self.rows)
        ]

    def comparisons(self) -> list[Comparison]:
        low, high = self._intervals()
        p_values = self._p_values()
        precisions = self._precisions()
        found = []
        for number, (a, b) in enumerate(self.pairs):
            column = len(self.rows) + number
            difference = float(self.totals.means_K[column])
            margin = self.terms.min_gain if b == self.base else 0.0
            better = self.differences_QP[:, number]
            found.append(
                Comparison(
                    a=a,
                    b=b,
                    evaluation=self.evaluation,
                    difference=self.sign * difference,
                    low=(interval := self._turned(low[column], high[column]))[0],
                    high=interval[1],
                    margin=margin,
                    p=p_values[number].value,
                    p_corrected=p_values[number].value,
                    exact=p_values[number].exact,
                    better=None,
                    smallest_visible=self._visible(precisions[number]),
                    questions_needed=questions_needed(
                        _beyond(difference, margin),
                        precisions[number],
                        self.alpha,
                        self.num_questions,
                    ),
                    num_a_better=int((better > _EQUAL).sum()),
                    num_b_better=int((better < -_EQUAL).sum()),
                    num_equal=int((np.abs(better) <= _EQUAL).sum()),
                )
            )
        return found

    def _p_values(self) -> list[sign_flips.PValue]:
        """Of the hypotheses that the differences lie from 0 to their margins."""
        totals = self.totals.totals_GK[:, len(self.rows) :].copy()
        inside = []
        for number, (_, b) in enumerate(self.pairs):
            margin = self.terms.min_gain if b == self.base else 0.0
            difference = totals[:, number].sum()
            if difference > margin:
                totals[:, number] -= margin * self.totals.weights_G
            inside.append(0 <= difference <= margin)
        found = sign_flips.p_values(
            totals,
            RANDOM_SEED,
            self.num_flips,
            self.seed_errors_K[len(self.rows) :],
            self.seeds.degrees_of_freedom,
        )
        return [
            sign_flips.PValue(1.0, found_p.exact) if is_inside else found_p
            for found_p, is_inside in zip(found, inside, strict=True)
        ]

    def _intervals(self) -> tuple[FloatArray, FloatArray]:
        widths = bootstrap.half_widths(
            self.totals,
            self.terms.confidence,
            RANDOM_SEED,
            self.seed_errors_K,
            self.seeds.degrees_of_freedom,
        )
        if self.terms.bounded:
            without = bootstrap.half_width_without_spread(self.totals, self.terms.confidence)
            widths = np.where(widths > 0, widths, np.where(np.isnan(widths), np.nan, without))
        else:
            widths = np.where(widths > 0, widths, np.nan)
        means = self.totals.means_K
        low, high = means - widths, means + widths
        if self.terms.bounded:
            # Rows from 0 to 1 (turned: -1 to 0), differences from -1 to 1.
            num_rows = len(self.rows)
            lowest, highest = (0.0, 1.0) if self.sign > 0 else (-1.0, 0.0)
            least = np.where(np.arange(len(means)) < num_rows, lowest, -1.0)
            most = np.where(np.arange(len(means)) < num_rows, highest, 1.0)
            low, high = np.maximum(low, least), np.minimum(high, most)
        return low, high

    def _turned(self, low: float, high: float) -> tuple[float | None, float | None]:
        """An interval in the metric's own direction; None where it is unknown."""
        if math.isnan(low) or math.isnan(high):
            return None, None
        return (float(low), float(high)) if self.sign > 0 else (-float(high), -float(low))

    def _precisions(self) -> list[Precision]:
        errors = self.totals.standard_errors_K
        degrees = self.totals.degrees_of_freedom_K()
        return [
            Precision(
                float(errors[column]),
                float(degrees[column]),
                len(self.totals.strata_G),
                float(self.seed_errors_K[column]),
                self.seeds.degrees_of_freedom,
            )
            for column in range(len(self.rows), len(errors))
        ]

    def _visible(self, precision: Precision) -> float | None:
        return smallest_visible_difference(precision, self.alpha)


# Means over seeds of equal scores may differ by rounding.
_EQUAL = 1e-12


def _beyond(difference: float, margin: float) -> float:
    """How far the difference lies outside of 0 to margin."""
    return max(difference - margin, 0.0) if difference >= 0 else difference


__all__ = [
    "RANDOM_SEED",
    "Analysis",
    "ClusterTotals",
    "Comparison",
    "Estimate",
    "ScoredSet",
    "SetFacts",
    "Terms",
    "analyse",
]
