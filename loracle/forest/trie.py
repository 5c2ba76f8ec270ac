"""The prefix forest: token sequences stored as tries, every distinct prefix once.

Four sequences that share a passage become one row of a forest:

    passage question-1 answer-1          node:    0 1 2 3 4 5 6 7 8 9
    passage question-1 answer-2          token:   p p p q q a a b q c
    passage question-2 answer-3          depth:   0 1 2 3 4 5 6 5 3 4
                                         end:    10 . . 8 8 7 7 8 . .

Nodes stand in depth-first order, so the descendants of a node follow it directly. One number a
node says everything about ancestry: `subtree_ends[i]` is the first node after i that is not a
descendant of i. Node j attends to node i exactly when `i <= j < subtree_ends[i]`.

A row is one such trie. Rows never attend to each other; sequences that share too little to be
worth a wider attention stand in rows of their own. A supervised token is a target: at `node`, the
next token is `token_id`, with `weight`. The sum over the forest's targets equals the sum over the
separate sequences, and so does its gradient (any cut into rows and micro-batches gives the same).

Numpy only; building is far cheaper than any model's work (see benchmarks/forest_building.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
TokenArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]

# Extra work of attending to one key, as a share of a token's own work in the linear layers.
# Measured for a 135M model on a CPU; it only decides which rows are joined, never a result.
ATTENTION_COST = 5e-4

_BLOCK_TOKENS = 1 << 18


class Sequences(NamedTuple):
    """Ragged token sequences: sequence i is `token_ids[offsets[i]:offsets[i + 1]]`.

    Shapes: token_ids (T,), weights (T,), offsets (S + 1,). `weights[t]` is the loss weight of
    *predicting* token t from the tokens before it in its sequence; a sequence's first token has
    none. `weights` is None where nothing is supervised.
    """

    token_ids: TokenArray
    offsets: IntArray
    weights: FloatArray | None = None

    @classmethod
    def of(
        cls, token_ids: Sequence[Sequence[int]], weights: Sequence[Sequence[float]] | None = None
    ) -> Self:
        """Pack lists of token ids, and of weights if there are any."""
        offsets = np.zeros(len(token_ids) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids in token_ids], out=offsets[1:])
        flat = np.fromiter((t for ids in token_ids for t in ids), np.int32, int(offsets[-1]))
        if weights is None:
            return cls(flat, offsets)
        flat_weights = np.fromiter((w for ws in weights for w in ws), np.float32, len(flat))
        return cls(flat, offsets, flat_weights)

    @property
    def num_sequences(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        """Tokens of every sequence, shape (S,)."""
        lengths: IntArray = np.diff(self.offsets)
        return lengths


@dataclass(frozen=True, slots=True)
class Forest:
    """Rows of tries, packed one after another without padding. N nodes, R rows, S sequences.

    token_ids, depths, subtree_ends: (N,). row_starts: (R + 1,), the rows' first nodes.
    last_nodes: (S,), the node of every sequence's last token, in the order the sequences came.
    target_nodes, target_token_ids, target_weights: (T,), sorted by node.
    num_sequence_tokens: tokens that the separate sequences hold.
    """

    token_ids: TokenArray
    depths: IntArray
    subtree_ends: IntArray
    row_starts: IntArray
    last_nodes: IntArray
    target_nodes: IntArray
    target_token_ids: IntArray
    target_weights: FloatArray
    num_sequence_tokens: int

    @property
    def num_nodes(self) -> int:
        return len(self.token_ids)

    @property
    def num_rows(self) -> int:
        return len(self.row_starts) - 1

    @property
    def row_lengths(self) -> IntArray:
        """Nodes of every row, shape (R,)."""
        lengths: IntArray = np.diff(self.row_starts)
        return lengths

    def ancestors(self, node: int) -> IntArray:
        """The path from the row's root to `node`, both included."""
        start = int(self.row_starts[np.searchsorted(self.row_starts, node, side="right") - 1])
        path: IntArray = start + np.flatnonzero(self.subtree_ends[start : node + 1] > node)
        return path

    def micro_batches(self, budget_tokens: int) -> Iterator[Forest]:
        """Cut into runs of whole rows of at most `budget_tokens` nodes (a longer row stands alone).

        `last_nodes` is empty in a micro-batch: sequences are followed in the whole forest only.
        """
        first = 0
        while first < self.num_rows:
            limit = self.row_starts[first] + budget_tokens
            stop = int(np.searchsorted(self.row_starts, limit, side="right")) - 1
            stop = max(stop, first + 1)
            yield self._rows(first, stop)
            first = stop

    def _rows(self, first: int, stop: int) -> Forest:
        low, high = int(self.row_starts[first]), int(self.row_starts[stop])
        t_low, t_high = np.searchsorted(self.target_nodes, [low, high])
        return Forest(
            token_ids=self.token_ids[low:high],
            depths=self.depths[low:high],
            subtree_ends=self.subtree_ends[low:high] - low,
            row_starts=self.row_starts[first : stop + 1] - low,
            last_nodes=np.empty(0, np.int64),
            target_nodes=self.target_nodes[t_low:t_high] - low,
            target_token_ids=self.target_token_ids[t_low:t_high],
            target_weights=self.target_weights[t_low:t_high],
            num_sequence_tokens=0,
        )


def build_forest(
    sequences: Sequences,
    *,
    max_row_tokens: int,
    attention_cost: float = ATTENTION_COST,
    share: bool = True,
) -> Forest:
    """Build the forest of `sequences`.

    Tokens after a sequence's last target are left out, and so is the last target itself: nothing
    is predicted from them. Without weights every token becomes a node.

    max_row_tokens: a row is closed before it grows beyond this many nodes; a single longer
        sequence stands in a row of its own, whole.
    attention_cost: see ATTENTION_COST.
    share: False puts every sequence into its own row, which is the plain packed batch.
    """
    return _lay_out(sequences, *_planned(sequences, max_row_tokens, attention_cost, share=share))


def num_forest_nodes(
    sequences: Sequences,
    *,
    max_row_tokens: int,
    attention_cost: float = ATTENTION_COST,
    share: bool = True,
) -> int:
    """How many nodes `build_forest` would give, without the memory of a forest."""
    num_kept, _, common, _ = _planned(sequences, max_row_tokens, attention_cost, share=share)
    return int(num_kept.sum() - common.sum())


def _planned(
    sequences: Sequences, max_row_tokens: int, attention_cost: float, *, share: bool
) -> tuple[IntArray, IntArray, IntArray, npt.NDArray[np.bool_]]:
    """Tokens needed of every sequence; the order, what each shares with the one sorted before it in
    its row, and whether it starts a row."""
    num_kept = _num_needed_tokens(sequences)
    if share:
        order = _sort(sequences, num_kept)
        common = _common_prefixes(sequences, num_kept, order)
    else:
        order = np.arange(sequences.num_sequences)
        common = np.zeros(sequences.num_sequences, np.int64)
    is_row_start = _cut_rows(num_kept[order], common, max_row_tokens, attention_cost, share=share)
    common[is_row_start] = 0
    return num_kept, order, common, is_row_start


def common_prefix_lengths(sequences: Sequences) -> tuple[IntArray, IntArray]:
    """Sort the sequences; return (order, tokens each shares with the one sorted before it).

    Both of shape (S,); the first sorted sequence shares 0.
    """
    lengths = sequences.lengths
    order = _sort(sequences, lengths)
    return order, _common_prefixes(sequences, lengths, order)


def _num_needed_tokens(sequences: Sequences) -> IntArray:
    if sequences.weights is None:
        return sequences.lengths
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    targets = np.flatnonzero(sequences.weights)
    num_before_end = np.searchsorted(targets, ends)
    # Before the first target stands -1, which is in no sequence.
    last_target = np.concatenate(([-1], targets))[num_before_end]
    return np.where(last_target >= starts, last_target - starts, 0)


def _sort(sequences: Sequences, num_kept: IntArray) -> IntArray:
    # Big-endian bytes compare as the numbers do, so sorting runs at memcmp speed.
    buffer = sequences.token_ids.astype(">u4").tobytes()
    starts = (4 * sequences.offsets[:-1]).tolist()
    stops = (4 * (sequences.offsets[:-1] + num_kept)).tolist()
    keys = [buffer[start:stop] for start, stop in zip(starts, stops, strict=True)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def _common_prefixes(sequences: Sequences, num_kept: IntArray, order: IntArray) -> IntArray:
    starts, kept = sequences.offsets[:-1][order], num_kept[order]
    common = np.zeros(len(order), np.int64)
    compared = np.minimum(kept[:-1], kept[1:])
    ends = np.cumsum(compared)
    first = 0
    # Blocks keep the index arrays inside the processor's cache.
    while first < len(compared):
        done = ends[first - 1] if first else 0
        stop = int(np.searchsorted(ends, done + _BLOCK_TOKENS, side="right"))
        stop = max(stop, first + 1)
        block = compared[first:stop]
        common[first + 1 : stop + 1] = _compare_block(
            sequences.token_ids, starts[first:stop], starts[first + 1 : stop + 1], block
        )
        first = stop
    return common


def _compare_block(
    token_ids: TokenArray, left_starts: IntArray, right_starts: IntArray, lengths: IntArray
) -> IntArray:
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    positions = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    left = token_ids[np.repeat(left_starts, lengths) + positions]
    right = token_ids[np.repeat(right_starts, lengths) + positions]
    differs = np.flatnonzero(left != right)
    # The first difference at or after each pair's start; none inside the pair means all equal.
    at = np.append(differs, bounds[-1])[np.searchsorted(differs, bounds[:-1])]
    shared: IntArray = np.minimum(at - bounds[:-1], lengths)
    return shared


def _cut_rows(
    kept: IntArray,
    common: IntArray,
    max_row_tokens: int,
    attention_cost: float,
    *,
    share: bool,
) -> npt.NDArray[np.bool_]:
    """Where a new row starts: where joining would cost more attention than sharing saves."""
    is_start = np.ones(len(kept), np.bool_)
    if not share:
        return is_start
    row_length = 0
    for k, (length, shared) in enumerate(zip(kept.tolist(), common.tolist(), strict=True)):
        added = length - shared
        joined = row_length + added
        extra = attention_cost * (joined * joined - row_length * row_length - length * length)
        if k and joined <= max_row_tokens and extra <= shared:
            is_start[k] = False
            row_length = joined
        else:
            row_length = length
    return is_start


def _lay_out(
    sequences: Sequences,
    num_kept: IntArray,
    order: IntArray,
    common: IntArray,
    is_row_start: npt.NDArray[np.bool_],
) -> Forest:
    added = num_kept[order] - common
    chunk_starts = np.concatenate(([0], np.cumsum(added)))
    num_nodes = int(chunk_starts[-1])
    depths = np.arange(num_nodes) - np.repeat(chunk_starts[:-1] - common, added)
    sources = np.repeat(sequences.offsets[:-1][order], added) + depths
    tries = _walk(common.tolist(), chunk_starts.tolist(), is_row_start.tolist())
    segment_starts, segment_ends, open_chunks = tries
    by_start = np.argsort(segment_starts, kind="stable")
    segment_lengths = np.diff(np.append(segment_starts[by_start], num_nodes))
    last_nodes = np.empty(len(order), np.int64)
    last_nodes[order] = _nodes_at(
        np.arange(len(order)), num_kept[order] - 1, common, chunk_starts, open_chunks
    )
    nodes, token_ids, weights = _targets(
        sequences, num_kept, order, common, chunk_starts, open_chunks
    )
    return Forest(
        token_ids=sequences.token_ids[sources],
        depths=depths,
        subtree_ends=np.repeat(segment_ends[by_start], segment_lengths),
        row_starts=np.append(chunk_starts[:-1][is_row_start], num_nodes),
        last_nodes=last_nodes,
        target_nodes=nodes,
        target_token_ids=token_ids,
        target_weights=weights,
        num_sequence_tokens=int(sequences.offsets[-1]),
    )


class _OpenChunk(NamedTuple):
    """From depth `depth` on, the path runs through nodes that start at `node`."""

    depth: int
    node: int


def _walk(
    common: list[int], chunk_starts: list[int], is_row_start: list[bool]
) -> tuple[IntArray, IntArray, list[tuple[_OpenChunk, ...]]]:
    """Follow the sorted sequences with a stack of open chunks.

    Returns the segments' first nodes and subtree ends, and for each sequence the chunks of
    earlier sequences that its shared prefix runs through.
    """
    starts: list[int] = []
    ends: list[int] = []
    paths: list[tuple[_OpenChunk, ...]] = []
    stack: list[tuple[_OpenChunk, int]] = []  # chunk, depth where it stops
    for k, shared in enumerate(common):
        node = chunk_starts[k]
        while stack and (is_row_start[k] or stack[-1][1] > shared):
            chunk, stop_depth = stack.pop()
            if chunk.depth < shared:  # the new sequence leaves in the middle of this chunk
                starts.append(chunk.node + shared - chunk.depth)
                ends.append(node)
                stack.append((chunk, shared))
                break
            if stop_depth > chunk.depth:
                starts.append(chunk.node)
                ends.append(node)
        paths.append(tuple(chunk for chunk, _ in stack))
        length = chunk_starts[k + 1] - node
        if length:
            stack.append((_OpenChunk(shared, node), shared + length))
    while stack:
        chunk, _ = stack.pop()
        starts.append(chunk.node)
        ends.append(chunk_starts[-1])
    return np.array(starts, np.int64), np.array(ends, np.int64), paths


def _nodes_at(
    ranks: IntArray,
    depths: IntArray,
    common: IntArray,
    chunk_starts: IntArray,
    paths: list[tuple[_OpenChunk, ...]],
) -> IntArray:
    """The node of sorted sequence `ranks[i]` at depth `depths[i]`. An empty sequence gives -1."""
    nodes = chunk_starts[:-1][ranks] + depths - common[ranks]
    for i in np.flatnonzero(depths < common[ranks]):
        depth = int(depths[i])
        chunks = [chunk for chunk in paths[int(ranks[i])] if chunk.depth <= depth]
        nodes[i] = chunks[-1].node + depth - chunks[-1].depth if depth >= 0 else -1
    return np.where(depths < 0, -1, nodes)


def _targets(
    sequences: Sequences,
    num_kept: IntArray,
    order: IntArray,
    common: IntArray,
    chunk_starts: IntArray,
    paths: list[tuple[_OpenChunk, ...]],
) -> tuple[IntArray, IntArray, FloatArray]:
    """The targets as (nodes, token ids, weights), equal ones added up, sorted by node."""
    if sequences.weights is None:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    positions = np.flatnonzero(sequences.weights != 0)
    owners = np.searchsorted(sequences.offsets, positions, side="right") - 1
    depths = positions - sequences.offsets[owners]
    assert (depths > 0).all(), "a sequence's first token cannot be a target"
    rank_of = np.empty(len(order), np.int64)
    rank_of[order] = np.arange(len(order))
    nodes = _nodes_at(rank_of[owners], depths - 1, common, chunk_starts, paths)
    token_ids = sequences.token_ids[positions].astype(np.int64)
    keys = nodes * (int(token_ids.max(initial=0)) + 1) + token_ids
    _, firsts, groups = np.unique(keys, return_index=True, return_inverse=True)
    weights = np.bincount(groups, weights=sequences.weights[positions], minlength=len(firsts))
    return nodes[firsts], token_ids[firsts], weights.astype(np.float32)
