"""p-values by flipping the signs of whole clusters.

If neither of two candidates is better, a cluster's difference could equally have had the other
sign. The p-value is the share of sign patterns whose mean difference is at least as far from
0 as the one observed, both sides counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from loracle.statistics.spread import FloatArray

MAX_EXACT_CLUSTERS = 32
"""Up to this many clusters that differ, all sign patterns are counted (2^32, as two halves)."""

# Sums that should be equal may differ by rounding.
_TIE = 1e-9
_NUM_SIGNS_AT_ONCE = 4_000_000


class PValue(NamedTuple):
    """value: above 0, at most 1. exact: whether every sign pattern was counted."""

    value: float
    exact: bool


def p_values(
    differences_GK: FloatArray,
    seed: int,
    num_flips: int,
    seed_errors_K: FloatArray | None = None,
    seed_degrees_of_freedom: int = 0,
) -> list[PValue]:
    """The p-value of every column.

    differences_GK: (G, K), each cluster's part of the mean difference, as it is if the null
    hypothesis puts the difference at 0. num_flips: random patterns, if there are too many to
    count; their p-value is (1 + as far) / (1 + patterns), never 0.
    seed_errors_K: the seeds' standard error. If it is not 0, the null distribution of a difference
    is widened by noise of that size, from Student's t.
    """
    noise_K = np.zeros(differences_GK.shape[1]) if seed_errors_K is None else seed_errors_K
    found: dict[int, PValue] = {}
    for column in range(differences_GK.shape[1]):
        parts = differences_GK[:, column]
        parts = parts[parts != 0]
        noisy = seed_degrees_of_freedom > 0 and noise_K[column] > 0
        if not noisy and len(parts) <= MAX_EXACT_CLUSTERS:
            found[column] = PValue(exact_p_value(parts), exact=True)
    rest = [column for column in range(differences_GK.shape[1]) if column not in found]
    if rest:
        values = _random_p_values(
            differences_GK[:, rest], seed, num_flips, noise_K[rest], seed_degrees_of_freedom
        )
        found |= {
            column: PValue(float(value), exact=False)
            for column, value in zip(rest, values, strict=True)
        }
    return [found[column] for column in range(differences_GK.shape[1])]


def exact_p_value(parts_G: FloatArray) -> float:
    """The share of all 2^G sign patterns whose sum is at least as far from 0 as the one given.

    Meet in the middle: the sums of one half's patterns, sorted, are searched for each sum of
    the other half's, so the work is 2^(G/2), not 2^G.
    """
    parts = np.abs(parts_G)
    observed = abs(float(parts_G.sum()))
    tie = _TIE * float(parts.sum())
    if observed <= tie:
        return 1.0
    middle = len(parts) // 2
    first, second = _pattern_sums(parts[:middle]), np.sort(_pattern_sums(parts[middle:]))
    below = np.searchsorted(second, observed - tie - first, side="left")
    num_as_far = int((len(second) - below).sum())
    # Patterns come in pairs of opposite sign.
    return 2 * num_as_far / (len(first) * len(second))


def _pattern_sums(parts: FloatArray) -> FloatArray:
    sums = np.zeros(1)
    for part in parts:
        sums = np.concatenate((sums + part, sums - part))
    return sums


def _random_p_values(
    differences_GK: FloatArray,
    seed: int,
    num_flips: int,
    noise_K: FloatArray,
    degrees_of_freedom: int,
) -> FloatArray:
    num_clusters = len(differences_GK)
    observed = np.abs(differences_GK.sum(axis=0))
    least = observed - _TIE * np.abs(differences_GK).sum(axis=0)
    signs_generator = np.random.default_rng([seed, 2])
    noise_generator = np.random.default_rng([seed, 3])
    num_as_far = np.zeros(differences_GK.shape[1], np.int64)
    chunk = max(1, _NUM_SIGNS_AT_ONCE // num_clusters)
    for first in range(0, num_flips, chunk):
        num = min(chunk, num_flips - first)
        sums = _random_signs(signs_generator, num, num_clusters) @ differences_GK
        if degrees_of_freedom:
            sums += np.outer(noise_generator.standard_t(degrees_of_freedom, num), noise_K)
        num_as_far += (np.abs(sums) >= least).sum(axis=0)
    values: FloatArray = (1 + num_as_far) / (1 + num_flips)
    return values


def _random_signs(
    generator: np.random.Generator, num_patterns: int, num_clusters: int
) -> FloatArray:
    """+1 or -1, (patterns, G). A pattern is drawn as whole words, so the chunk size does not
    matter."""
    num_bytes = (num_clusters + 31) // 32 * 4
    drawn = np.frombuffer(generator.bytes(num_patterns * num_bytes), np.uint8)
    bits = np.unpackbits(drawn.reshape(num_patterns, num_bytes), axis=1, count=num_clusters)
    return 2 * bits.astype(np.float64) - 1
