"""The scores of one evaluation set, or of all of them as one mean: estimates and comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from loracle.statistics import bootstrap, sign_flips
from loracle.statistics.power import Precision
from loracle.statistics.records import Comparison, Estimate, ScoredSet, Terms
from loracle.statistics.spread import Clustering, FloatArray, SeedSpread

RANDOM_SEED = 20_260_101
"""Seed of all resampling. Fixed, to prevent cherry-picking."""

# Means over seeds of equal scores may differ by rounding.
_EQUAL = 1e-12
_FEWEST_FLIPS = 9_999
# When sign patterns are random, this many are expected beyond the level that Holm's first step
# requires.
_FLIPS_AT_LEVEL = 20


class Scope:
    """One evaluation set, or all of them as one mean with equal weights.

    Columns K: the rows, then the pairs. Scores are turned so that more is better.
    """

    def __init__(
        self,
        evaluation: str | None,
        sets: Sequence[ScoredSet],
        pairs: Sequence[tuple[str, str]],
        untrained: frozenset[str],
        terms: Terms,
        num_comparisons: int,
    ) -> None:
        self.evaluation, self.pairs, self.terms = evaluation, pairs, terms
        self.num_flips = max(
            _FEWEST_FLIPS,
            math.ceil(_FLIPS_AT_LEVEL * num_comparisons / (1 - terms.confidence)),
        )
        self.rows = rows = list(sets[0].scores)
        self.sign = 1.0 if terms.higher_is_better else -1.0
        clustering = Clustering.of([one.clusters for one in sets])
        scores = {
            row: self.sign * np.concatenate([one.scores[row] for one in sets], axis=1)
            for row in rows
        }
        self.num_seeds = {row: len(scores[row]) for row in rows}
        means_QR = np.stack([scores[row].mean(axis=0) for row in rows], axis=1)
        first, second = ([rows.index(pair[i]) for pair in pairs] for i in (0, 1))
        self.differences_QP = means_QR[:, first] - means_QR[:, second]
        trained = [row for row in rows if row not in untrained]
        self.seeds = SeedSpread.pooled(clustering, [scores[row] for row in trained])
        self.totals = clustering.totals(np.concatenate((means_QR, self.differences_QP), axis=1))
        variances = {
            row: self.seeds.variance / self.num_seeds[row] if row in trained else 0.0
            for row in rows
        }
        self.seed_errors_K = np.sqrt(
            [*variances.values(), *(variances[a] + variances[b] for a, b in pairs)]
        )

    @property
    def num_questions(self) -> int:
        return len(self.differences_QP)

    @property
    def num_clusters(self) -> int:
        return len(self.totals.strata_G)

    def estimates(self, base: str) -> list[Estimate]:
        low, high = self.intervals
        means = self.totals.means_K
        base_mean = means[self.rows.index(base)]
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

    def comparisons(self, base: str | None) -> list[Comparison]:
        """The comparison of every pair, not yet corrected; those with the base have min_gain as
        their margin."""
        margins = [self.terms.min_gain if b == base else 0.0 for _, b in self.pairs]
        return [
            self._comparison(number, margin, p)
            for number, (margin, p) in enumerate(zip(margins, self._p_values(margins), strict=True))
        ]

    def _comparison(self, number: int, margin: float, p: sign_flips.PValue) -> Comparison:
        a, b = self.pairs[number]
        column = len(self.rows) + number
        difference = float(self.totals.means_K[column])
        low, high = self._turned(self.intervals[0][column], self.intervals[1][column])
        by_question = self.differences_QP[:, number]
        return Comparison(
            a=a,
            b=b,
            evaluation=self.evaluation,
            difference=self.sign * difference,
            low=low,
            high=high,
            margin=margin,
            p=p.value,
            p_corrected=p.value,
            exact=p.exact,
            better=None,
            smallest_visible=None,
            questions_needed=None,
            absent=False,
            p_absent=1.0,
            largest=None,
            questions_to_absence=None,
            num_a_better=int((by_question > _EQUAL).sum()),
            num_b_better=int((by_question < -_EQUAL).sum()),
            num_equal=int((np.abs(by_question) <= _EQUAL).sum()),
        )

    def _p_values(self, margins: Sequence[float]) -> list[sign_flips.PValue]:
        """p-values of the hypotheses that the differences lie between 0 and their margins."""
        differences_GP = self.totals.totals_GK[:, len(self.rows) :].copy()
        means = differences_GP.sum(axis=0)
        for column, margin in enumerate(margins):
            if means[column] > margin:
                differences_GP[:, column] -= margin * self.totals.weights_G
        found = sign_flips.p_values(
            differences_GP,
            RANDOM_SEED,
            self.num_flips,
            self.seed_errors_K[len(self.rows) :],
            self.seeds.degrees_of_freedom,
        )
        return [
            p._replace(value=1.0) if 0 <= mean <= margin else p
            for p, mean, margin in zip(found, means, margins, strict=True)
        ]

    @cached_property
    def intervals(self) -> bootstrap.Intervals:
        """Of the rows, then of the pairs."""
        return bootstrap.intervals(
            self.totals,
            self.terms.confidence,
            RANDOM_SEED,
            self._bounds() if self.terms.bounded else None,
            bootstrap.SeedErrors(self.seed_errors_K, self.seeds.degrees_of_freedom),
            self.terms.num_resamples,
        )

    def _bounds(self) -> tuple[FloatArray, FloatArray]:
        """Rows lie from 0 to 1 (turned: from -1 to 0), differences from -1 to 1."""
        ends = (0.0, 1.0) if self.sign > 0 else (-1.0, 0.0)
        low, high = (
            np.array([end] * len(self.rows) + [of_pairs] * len(self.pairs))
            for end, of_pairs in zip(ends, (-1.0, 1.0), strict=True)
        )
        return low, high

    def _turned(self, low: float, high: float) -> tuple[float | None, float | None]:
        """An interval in the metric's own direction; None if it is unknown."""
        if math.isnan(low) or math.isnan(high):
            return None, None
        return (float(low), float(high)) if self.sign > 0 else (-float(high), -float(low))

    @cached_property
    def precisions(self) -> list[Precision]:
        """How precisely each pair's difference is known."""
        errors = self.totals.standard_errors_K
        degrees = self.totals.degrees_of_freedom_K()
        return [
            Precision(
                float(errors[column]),
                float(degrees[column]),
                len(self.totals.strata_G),
                float(self.seed_errors_K[column]),
                self.seeds.degrees_of_freedom,
                self._least_variance,
            )
            for column in range(len(self.rows), len(errors))
        ]

    @property
    def _least_variance(self) -> float:
        """The variance of a mean difference that is just worth having: a share of whole clusters
        gains 1."""
        if not self.terms.bounded:
            return 0.0
        share = min(self.terms.worth, 0.5)
        return float(np.square(self.totals.weights_G).sum() * share * (1 - share))
