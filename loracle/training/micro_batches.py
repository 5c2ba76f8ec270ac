"""A step in the pieces that are computed at once, each with the keys of its dropout.

    sequences of a step --cut--> MicroBatch, MicroBatch, ...

Cutting reads and writes numpy arrays alone. So the next step is cut while the device still computes
the present one: the host has nothing to do then but to wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from loracle.forest.limits import MAX_ROW_TOKENS
from loracle.forest.trie import Forest, IntArray, Sequences, build_forest
from loracle.model.token_dropout import KeyArray, token_keys


class MicroBatch(NamedTuple):
    """What is computed at once: a forest, or sequences that are padded. dropout_keys: of every
    token as it stands in the computation, flat; 0 for padding. counts: False for a pass that only
    keeps this process in step with others."""

    content: Forest | Sequences
    dropout_keys: KeyArray
    counts: bool = True


class CutStep(NamedTuple):
    """A step that was cut ahead of its turn, and the budget that it was cut by."""

    step: int
    budget_tokens: int
    micro_batches: tuple[MicroBatch, ...]


NOT_CUT = CutStep(-1, 0, ())
"""In place of a step that was not cut ahead."""


def cut(batch: Sequences, budget_tokens: int, seed: int, *, forest: bool) -> Iterator[MicroBatch]:
    """Cut a step's sequences. seed: of the dropout, whatever the budget is."""
    for content in _contents(batch, budget_tokens, forest):
        yield MicroBatch(content, _dropout_keys(content, seed))


class Lockstep(Protocol):
    """What keeps the processes of a sharded base at the same pass."""

    def most(self, num_passes: int) -> int:
        """The largest number of passes that any process needs for this step."""


def in_step(
    micro_batches: Iterable[MicroBatch], lockstep: Lockstep, *, forest: bool
) -> Iterator[MicroBatch]:
    """The micro-batches, and as many passes that do not count as the process with the most has
    more."""
    own = list(micro_batches)
    # Asked before the first pass: within one, all processes are at the same layer.
    num_passes = lockstep.most(len(own))
    yield from own
    for _ in range(num_passes - len(own)):
        (idle,) = cut(Sequences.of([[0, 0]], [[0.0, 1.0]]), 2, 0, forest=forest)
        yield idle._replace(counts=False)


def take(sequences: Sequences, rows: IntArray) -> Sequences:
    """The sequences `rows`, in that order."""
    starts, lengths = sequences.offsets[:-1][rows], sequences.lengths[rows]
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    weights = None if sequences.weights is None else sequences.weights[places]
    return Sequences(sequences.token_ids[places], offsets, weights)


def _contents(
    batch: Sequences, budget_tokens: int, forest: bool
) -> Iterator[Forest] | Iterator[Sequences]:
    if forest:
        rows_tokens = min(MAX_ROW_TOKENS, budget_tokens)
        return build_forest(batch, max_row_tokens=rows_tokens).micro_batches(budget_tokens)
    return (take(batch, rows) for rows in _padded_rows(batch.lengths, budget_tokens))


def _dropout_keys(content: Forest | Sequences, seed: int) -> KeyArray:
    if isinstance(content, Forest):
        return token_keys(content.token_ids, content.depths, seed)
    lengths = content.lengths
    places = np.arange(int(lengths.max()))
    is_token = places < lengths[:, None]
    keys = np.zeros(is_token.shape, np.uint64)
    depths = np.broadcast_to(places, is_token.shape)[is_token]
    keys[is_token] = token_keys(content.token_ids, depths, seed)
    return keys.reshape(-1)


def _padded_rows(lengths: IntArray, budget_tokens: int) -> Iterator[IntArray]:
    """Sequences of similar length together, at most `budget_tokens` with their padding."""
    rows: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if rows and (len(rows) + 1) * lengths[row] > budget_tokens:
            yield np.array(rows)
            rows = []
        rows.append(row)
    yield np.array(rows)
