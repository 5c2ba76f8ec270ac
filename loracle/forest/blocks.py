"""Which blocks of a packed forest attend to which, so that a kernel skips the others.

Node q sees node k exactly when `k <= q < subtree_end[k]`. For a block of keys, the maximum of
`subtree_end` says how far any of them is seen, and the minimum up to where all of them are:

    queries of block i, keys of block j < i
        some query sees some key    first node of i < max of subtree_end over j
        every query sees every key  last node of i  < min of subtree_end over j
    queries and keys of one block   partial

Both are exact, and rows need no bounds of their own: no subtree ends after its row. A sliding
window makes them conservative, by the blocks' smallest and largest depths.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from loracle.forest.trie import IntArray

BlockArray = npt.NDArray[np.int32]


class BlockLists(NamedTuple):
    """For every block its partners: those that see each other whole first, then the partial ones.

    starts: (B + 1,), where a block's partners start in `partners`; first_partial: (B,), where its
    partial ones do.
    """

    starts: BlockArray
    first_partial: BlockArray
    partners: BlockArray

    @classmethod
    def of(
        cls, own: IntArray, partner: IntArray, is_partial: npt.NDArray[np.bool_], num_blocks: int
    ) -> Self:
        """Sort pairs (own, partner) into lists."""
        order = np.lexsort((partner, is_partial, own))
        counts = np.bincount(own, minlength=num_blocks)
        starts = np.concatenate(([0], np.cumsum(counts)))
        num_full = np.bincount(own[~is_partial], minlength=num_blocks)
        return cls(
            starts.astype(np.int32),
            (starts[:-1] + num_full).astype(np.int32),
            partner[order].astype(np.int32),
        )


class ForestBlocks(NamedTuple):
    """The pairs of blocks that attention has to visit, seen from either side."""

    num_nodes: int
    block_tokens: int
    keys_of_queries: BlockLists
    queries_of_keys: BlockLists

    @property
    def num_blocks(self) -> int:
        return len(self.keys_of_queries.first_partial)


def forest_blocks(
    subtree_ends: IntArray, depths: IntArray, block_tokens: int, window: int = 0
) -> ForestBlocks:
    """Find the pairs of blocks of `block_tokens` nodes that attention has to visit.

    subtree_ends, depths: (N,) as in Forest. window: a node sees only this many positions back,
        itself included; 0 is no limit.
    """
    num_nodes = len(subtree_ends)
    firsts = np.arange(0, num_nodes, block_tokens)
    num_blocks = len(firsts)
    seen_by_all = np.minimum.reduceat(subtree_ends, firsts)
    seen_by_any = np.maximum.reduceat(subtree_ends, firsts)
    # The blocks whose queries see a block of keys are a run that starts with itself.
    num_seeing = (seen_by_any - 1) // block_tokens - np.arange(num_blocks) + 1
    key = np.repeat(np.arange(num_blocks), num_seeing)
    query = key + np.arange(len(key)) - np.repeat(np.cumsum(num_seeing) - num_seeing, num_seeing)
    query_stops = np.minimum(firsts + block_tokens, num_nodes)
    is_partial = (query == key) | (seen_by_all[key] < query_stops[query])
    if window:
        shallowest = np.minimum.reduceat(depths, firsts)
        deepest = np.maximum.reduceat(depths, firsts)
        is_partial |= deepest[query] - shallowest[key] >= window
        is_near = (shallowest[query] - deepest[key] < window) | (query == key)
        key, query, is_partial = key[is_near], query[is_near], is_partial[is_near]
    return ForestBlocks(
        num_nodes,
        block_tokens,
        BlockLists.of(query, key, is_partial, num_blocks),
        BlockLists.of(key, query, is_partial, num_blocks),
    )
