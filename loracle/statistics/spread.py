"""Means over clustered questions, and their uncertainty from questions and from seeds.

Scores of questions about one passage are correlated, so the cluster is the unit that was sampled
and that standard errors count (Miller 2024, arXiv 2411.00640). A mean over several evaluation sets
is
stratified: each set's clusters vary around that set's own mean.

Shape suffixes: E evaluation sets (strata), G clusters, K columns (one mean each),
Q questions, S seeds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clustering:
    """Which question belongs to which cluster, and its weight in the mean.

    index_Q: cluster of every question, 0 to G - 1. weights_Q: sum to 1. strata_G: the evaluation
    set of every cluster, ascending.
    """

    index_Q: IntArray
    weights_Q: FloatArray
    strata_G: IntArray

    @classmethod
    def of(cls, sets: Sequence[Sequence[Hashable]]) -> Clustering:
        """From the cluster label of every question of every set: every set has the same weight."""
        index: list[int] = []
        weights: list[FloatArray] = []
        strata: list[int] = []
        for number, labels in enumerate(sets):
            assert labels, "an evaluation set has at least one question"
            known: dict[Hashable, int] = {}
            first = len(strata)
            index += [first + known.setdefault(label, len(known)) for label in labels]
            strata += [number] * len(known)
            weights.append(np.full(len(labels), 1 / (len(sets) * len(labels))))
        return cls(np.array(index), np.concatenate(weights), np.array(strata))

    @property
    def num_clusters(self) -> int:
        return len(self.strata_G)

    def totals(self, values_QK: FloatArray) -> ClusterTotals:
        """Sum questions into clusters. values_QK: (Q, K)."""
        totals = np.zeros((self.num_clusters, values_QK.shape[1]))
        np.add.at(totals, self.index_Q, values_QK * self.weights_Q[:, None])
        weights = np.zeros(self.num_clusters)
        np.add.at(weights, self.index_Q, self.weights_Q)
        return ClusterTotals(totals, weights, self.strata_G)


class Stratum(NamedTuple):
    """The clusters of one evaluation set."""

    totals_GK: FloatArray
    weights_G: FloatArray

    @property
    def share(self) -> float:
        """The weight of the whole set in the mean."""
        return float(self.weights_G.sum())


@dataclass(frozen=True)
class ClusterTotals:
    """totals_GK: each cluster's sum of weight x value. weights_G, strata_G as in Clustering."""

    totals_GK: FloatArray
    weights_G: FloatArray
    strata_G: IntArray

    @property
    def means_K(self) -> FloatArray:
        means: FloatArray = self.totals_GK.sum(axis=0)
        return means

    def strata(self) -> Iterator[Stratum]:
        for number in range(int(self.strata_G[-1]) + 1):
            inside = self.strata_G == number
            yield Stratum(self.totals_GK[inside], self.weights_G[inside])

    def variances_EK(self) -> FloatArray:
        """Each set's part of the variance of the mean, (E, K); NaN if it has one cluster.

        CR2 of Bell and McCaffrey (2002), whose closed form for a mean weighs a cluster's squared
        residual by 1 / (1 - its share of the set). With equal clusters this is the variance of
        the cluster means over G, with G - 1 in the denominator.
        """
        return np.stack([_variance(stratum) for stratum in self.strata()])

    @property
    def standard_errors_K(self) -> FloatArray:
        errors: FloatArray = np.sqrt(self.variances_EK().sum(axis=0))
        return errors

    def degrees_of_freedom_K(self) -> FloatArray:
        """Satterthwaite's, (K,), over the sets. A set counts its effective number of equally large
        clusters (Kish: 1 / sum of squared shares), less one."""
        variances = self.variances_EK()
        effective = [
            1 / np.square(stratum.weights_G / stratum.share).sum() for stratum in self.strata()
        ]
        per_set = np.maximum(1.0, np.array(effective) - 1)
        with np.errstate(invalid="ignore"):
            degrees: FloatArray = np.square(variances.sum(axis=0)) / (
                np.square(variances) / per_set[:, None]
            ).sum(axis=0)
        degrees[~np.isfinite(degrees)] = per_set.sum()
        return degrees


def _variance(stratum: Stratum) -> FloatArray:
    if len(stratum.weights_G) < 2:
        return np.full(stratum.totals_GK.shape[1], np.nan)
    shares = stratum.weights_G / stratum.share
    residuals = stratum.totals_GK - np.outer(shares, stratum.totals_GK.sum(axis=0))
    variance: FloatArray = (np.square(residuals) / (1 - shares)[:, None]).sum(axis=0)
    return variance


@dataclass(frozen=True)
class SeedSpread:
    """How much the mean of one trained adapter varies with the seed alone.

    variance: of one seed's mean, pooled over the candidates; 0 if the spread between seeds is no
    larger than the variation on single questions explains. degrees_of_freedom: 0 if no candidate
    has two seeds, so the variance is unknown.
    """

    variance: float
    degrees_of_freedom: int

    @classmethod
    def pooled(cls, clustering: Clustering, scores: Sequence[FloatArray]) -> SeedSpread:
        """From the scores of every candidate, each of shape (S, Q).

        Two-way random effects (seed, cluster): the variance between the seeds' means, less what
        the interaction of seed and cluster adds to it. Two or three seeds say little about one
        candidate's spread, so all candidates are assumed to have the same.
        """
        several = [scores_SQ for scores_SQ in scores if len(scores_SQ) > 1]
        degrees = sum(len(scores_SQ) - 1 for scores_SQ in several)
        if not degrees:
            return cls(0.0, 0)
        total = sum(
            (len(scores_SQ) - 1) * _between_seeds(clustering, scores_SQ) for scores_SQ in several
        )
        return cls(max(0.0, total / degrees), degrees)


def _between_seeds(clustering: Clustering, scores_SQ: FloatArray) -> float:
    totals = clustering.totals(scores_SQ.T)
    num_seeds = len(scores_SQ)
    interaction = clustering.totals((scores_SQ - scores_SQ.mean(axis=0)).T)
    # Residuals around each seed's own mean, so only the interaction is left.
    noise: Any = np.nansum(interaction.variances_EK()) / (num_seeds - 1)
    return float(np.var(totals.means_K, ddof=1) - noise)
