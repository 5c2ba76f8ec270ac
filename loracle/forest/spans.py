"""Cut the rows of a forest into spans, so that attention skips what no node of a span can see.

A node of the span [a, b) sees, before a, only ancestors of a itself: a node j < a is an ancestor
of x >= a exactly when its subtree reaches x, and then it reaches a as well. So the keys of a span
are the ancestors of its first node and the span, and any cut of a row gives the same attention.
Where to cut is a matter of cost alone: a cut at the start of a branch leaves the branches before
it out, one in a long run leaves out what lies ahead.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from loracle.forest.trie import IntArray

# Long runs may be cut at these distances.
_RUN_TOKENS = 64


class Span(NamedTuple):
    """Queries [start, stop) and, sorted, the nodes of their keys: (num_keys,)."""

    start: int
    stop: int
    keys: IntArray


def cut_into_spans(
    row_start: int, row_stop: int, subtree_ends: IntArray, span_pairs: int
) -> list[Span]:
    """The cheapest spans of one row, in order.

    subtree_ends: (N,) as in Forest. span_pairs: what a span costs beside its (query, key) pairs,
    as a number of such pairs.
    """
    ends = subtree_ends[row_start:row_stop] - row_start
    cuts = _possible_cuts(ends)
    num_ancestors = np.array([int((ends[:cut] > cut).sum()) for cut in cuts])
    chosen = _cheapest(cuts, num_ancestors, len(ends), span_pairs)
    bounds = [*chosen, len(ends)]
    return [
        Span(
            row_start + start,
            row_start + stop,
            row_start
            + np.concatenate([np.flatnonzero(ends[:start] > start), np.arange(start, stop)]),
        )
        for start, stop in pairwise(bounds)
    ]


def _possible_cuts(ends: IntArray) -> IntArray:
    """Starts of branches, and places inside long runs; the row's start first."""
    branch_starts = np.unique(ends[ends < len(ends)])
    regular = np.arange(0, len(ends), _RUN_TOKENS)
    return np.union1d(branch_starts, regular)


def _cheapest(
    cuts: IntArray, num_ancestors: IntArray, row_length: int, span_pairs: int
) -> list[int]:
    """Shortest path over the cuts: the first nodes of the spans."""
    places = np.append(cuts, row_length)
    cost = np.zeros(len(places))
    came_from = np.zeros(len(places), np.int64)
    for i in range(1, len(places)):
        lengths = places[i] - places[:i]
        costs = cost[:i] + lengths * (num_ancestors[:i] + lengths) + span_pairs
        came_from[i] = costs.argmin()
        cost[i] = costs[came_from[i]]
    chosen: list[int] = []
    at = len(cuts)
    while at > 0:
        at = int(came_from[at])
        chosen.append(int(places[at]))
    return chosen[::-1]
