"""Which sequences of a step each replica computes: about the same number of tokens each.

A share is a set of whole sequences, so the sum of the shares' gradients is the step's. Two ways
to cut are tried, and the one whose largest share is smaller is taken:

    whole trees   sequences of one prefix group stay together; trees go, the largest first, to
                  the share that has the least so far
    one line      the sequences in sorted order, cut into runs; a tree that is cut costs its
                  shared prefix once more

All replicas compute the same shares from the same batch; nothing random is in them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loracle.forest.trie import IntArray, Sequences, common_prefix_lengths


def shares_of(
    batch: Sequences, groups: IntArray, num_shares: int, *, forest: bool
) -> list[IntArray]:
    """The sequences of every share, in the batch's order. A share may be empty.

    groups: the prefix group of every sequence (`prefix_groups`), shape (S,).
    forest: whether shared prefixes are computed once; padded batches compute them each time.
    """
    if num_shares == 1:
        return [np.arange(batch.num_sequences)]
    if not forest:
        singles = [[row] for row in range(batch.num_sequences)]
        return _sorted(_balanced(singles, batch.lengths.tolist(), num_shares))
    order, common = common_prefix_lengths(batch)
    lengths = batch.lengths[order].tolist()
    shared = common.tolist()
    by_tree = _by_tree(groups[order].tolist(), lengths, shared, num_shares)
    in_line = _in_line(lengths, shared, num_shares)
    smaller = min((by_tree, in_line), key=lambda cut: _largest(cut, lengths, shared))
    return _sorted([order[ranks].tolist() for ranks in smaller])


def _by_tree(
    groups: list[int], lengths: list[int], shared: list[int], num_shares: int
) -> list[list[int]]:
    """Ranks in sorted order, whole trees together."""
    trees: dict[int, list[int]] = {}
    for rank, group in enumerate(groups):
        trees.setdefault(group, []).append(rank)
    # What all share is computed in each share, whatever trees it has.
    of_all = min(shared[1:], default=0)
    costs = [_tokens(tree, lengths, shared) - of_all for tree in trees.values()]
    return _balanced(list(trees.values()), costs, num_shares)


def _balanced(
    parts: Sequence[Sequence[int]], costs: Sequence[int], num_shares: int
) -> list[list[int]]:
    """The largest part first, each to the share that has the least so far (Graham 1969)."""
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    totals = [0] * num_shares
    for part in sorted(range(len(parts)), key=lambda part: (-costs[part], part)):
        least = totals.index(min(totals))
        shares[least] += parts[part]
        totals[least] += costs[part]
    return shares


def _in_line(lengths: list[int], shared: list[int], num_shares: int) -> list[list[int]]:
    """Runs in sorted order, with the smallest largest run there is."""
    low, high = max(lengths, default=0), sum(lengths)
    while low < high:
        limit = (low + high) // 2
        if len(_runs(lengths, shared, limit)) <= num_shares:
            high = limit
        else:
            low = limit + 1
    runs = _runs(lengths, shared, low)
    return runs + [[] for _ in range(num_shares - len(runs))]


def _runs(lengths: list[int], shared: list[int], limit: int) -> list[list[int]]:
    runs: list[list[int]] = []
    tokens = 0
    for rank, length in enumerate(lengths):
        tokens += length - shared[rank]
        if not runs or tokens > limit:
            runs.append([])
            tokens = length
        runs[-1].append(rank)
    return runs


def _largest(shares: Sequence[Sequence[int]], lengths: list[int], shared: list[int]) -> int:
    """The tokens of the largest share. What two neighbours share is the least in between."""
    return max(_tokens(sorted(share), lengths, shared) for share in shares)


def _tokens(ranks: Sequence[int], lengths: list[int], shared: list[int]) -> int:
    total = 0
    for before, rank in zip([None, *ranks], ranks, strict=False):
        prefix = 0 if before is None else min(shared[before + 1 : rank + 1])
        total += lengths[rank] - prefix
    return total


def _sorted(shares: Sequence[Sequence[int]]) -> list[IntArray]:
    return [np.array(sorted(share), np.int64) for share in shares]
