"""What a training and an evaluation will compute, counted in the order they will really have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from loracle.forest.limits import (
    MAX_EXPLICIT_TOKENS,
    MAX_ROW_TOKENS,
    SPAN_PAIRS,
    STORED_SPAN_PAIRS,
)
from loracle.forest.ordering import Ordering
from loracle.forest.spans import cut_into_spans
from loracle.forest.trie import Forest, IntArray, Sequences, build_forest, num_forest_nodes
from loracle.model.step_memory import MicroBatch
from loracle.training.loop import TrainingSettings, num_training_steps
from loracle.training.micro_batches import take

_MAX_COUNTED_STEPS = 64
"""For a longer training, this many evenly spread steps are counted, and represent the others."""
_MAX_COUNTED_BATCHES = 4
GUESS_TOKENS = 9
"""Tokens that decoding keeps room for behind an answer (decoding.py)."""


class Rows(NamedTuple):
    """A candidate's rendered rows, with the prefix group for each."""

    name: str
    sequences: Sequences
    groups: IntArray


@dataclass(frozen=True)
class TrainingWork:
    """One training. num_counted_steps: fewer than num_steps if the others were extrapolated.

    largest: the micro-batch that holds the most. num_spans, num_dense_pairs: as in MicroBatch, of
    all of them.
    """

    num_steps: int
    num_counted_steps: int
    tokens_read: int
    tokens_computed: int
    num_targets: int
    num_pairs: int
    largest: MicroBatch
    num_micro_batches: int = 0
    num_spans: int = 0
    num_dense_pairs: int = 0


@dataclass(frozen=True)
class AnsweringWork:
    """One model's answers to one evaluation set, without drafts, which can only save steps.

    tokens_computed: prompts, shared prefixes once per batch. num_steps: decoding passes.
    num_new_tokens: of all answers. batch: what the largest batch holds. num_prefills: passes over
    prompts. num_pairs: (query, key) pairs of their attention. num_decoding_pairs: of every new
    token with its prompt and the room for its answer. num_decoding_keys: keys that a pass of
    decoding reads, of all passes; questions that share a passage read it once. num_gathered_keys:
    which are put together for it.
    """

    num_questions: int
    tokens_read: int
    tokens_computed: int
    num_new_tokens: int
    num_steps: int
    batch: AnsweringBatch
    num_prefills: int = 0
    num_pairs: int = 0
    num_decoding_pairs: int = 0
    num_decoding_keys: int = 0
    num_gathered_keys: int = 0


class AnsweringBatch(NamedTuple):
    """num_nodes: tokens whose keys and values are kept. prefill: what is computed at once."""

    num_questions: int
    num_nodes: int
    prefill: MicroBatch
    num_new_tokens: int


def training_work(rows: Rows, settings: TrainingSettings) -> TrainingWork:
    """Count the steps of one training: which rows are together, what they share, how they are
    split."""
    ordering = Ordering(
        tuple(rows.groups.tolist()), settings.batch_size, settings.seed, settings.grouped
    )
    num_steps = num_training_steps(ordering, rows.sequences.lengths, settings)
    chosen = np.unique(
        np.linspace(0, num_steps - 1, min(num_steps, _MAX_COUNTED_STEPS)).astype(int)
    )
    read = 0
    found: list[MicroBatch] = []
    for step in chosen.tolist():
        batch = take(rows.sequences, ordering.batch(step))
        read += len(batch.token_ids)
        found += _micro_batches(batch, settings)
    scale = num_steps / len(chosen)

    def in_all(of_one: Callable[[MicroBatch], int]) -> int:
        return round(sum(map(of_one, found)) * scale)

    return TrainingWork(
        num_steps=num_steps,
        num_counted_steps=len(chosen),
        tokens_read=round(read * scale),
        tokens_computed=in_all(lambda one: one.num_tokens),
        num_targets=in_all(lambda one: one.num_targets),
        num_pairs=in_all(lambda one: one.num_pairs),
        largest=_bound(found, _longest(rows.sequences), settings.budget_tokens),
        num_micro_batches=in_all(lambda one: 1),
        num_spans=in_all(lambda one: one.num_spans),
        num_dense_pairs=in_all(lambda one: one.num_dense_pairs),
    )


def answering_work(
    prompts: Sequences, new_tokens: Sequence[int], batch_size: int, budget_tokens: int
) -> AnsweringWork:
    """Count the answering of prompts in batches. new_tokens: how long each answer will be."""
    read = computed = num_steps = num_prefills = 0
    batches: list[AnsweringBatch] = []
    for start in range(0, prompts.num_sequences, batch_size):
        stop = min(start + batch_size, prompts.num_sequences)
        batch = take(prompts, np.arange(start, stop))
        rows_tokens = min(MAX_ROW_TOKENS, budget_tokens)
        num_nodes = num_forest_nodes(batch, max_row_tokens=rows_tokens)
        longest_answer = max(new_tokens[start:stop])
        read += len(batch.token_ids)
        computed += num_nodes
        num_steps += longest_answer
        num_prefills += -(-num_nodes // max(1, budget_tokens))
        longest = int(batch.lengths.max())
        at_once = max(min(num_nodes, budget_tokens), longest)
        pairs = at_once * min(longest, MAX_EXPLICIT_TOKENS)
        prefill = MicroBatch(at_once, pairs, min(256, stop - start), max(longest, 1))
        batches.append(AnsweringBatch(stop - start, num_nodes, prefill, longest_answer))
    num_new_tokens = int(sum(new_tokens))
    sampled = _sampled(prompts, batch_size, budget_tokens)
    room = max(new_tokens, default=0) + GUESS_TOKENS
    return AnsweringWork(
        num_questions=prompts.num_sequences,
        tokens_read=read,
        tokens_computed=computed,
        num_new_tokens=num_new_tokens,
        num_steps=num_steps,
        batch=max(batches, key=lambda batch: batch.num_nodes + batch.prefill.num_tokens),
        num_prefills=num_prefills,
        num_pairs=round(sampled.pairs_of_node * computed),
        num_decoding_pairs=round((sampled.longest_keys + room) * num_new_tokens),
        num_decoding_keys=round(sampled.stored_keys * num_new_tokens),
        num_gathered_keys=round(sampled.stored_keys * sum(map(bool, new_tokens))),
    )


class _Sampled(NamedTuple):
    """A few evenly spread batches, which represent the others.

    pairs_of_node: (query, key) pairs of a prompt's token. longest_keys: what a question's token is
    multiplied with; stored_keys: what is stored for it, a share of what questions share.
    """

    pairs_of_node: float
    longest_keys: float
    stored_keys: float


def _sampled(prompts: Sequences, batch_size: int, budget_tokens: int) -> _Sampled:
    starts = np.arange(0, prompts.num_sequences, batch_size)
    chosen = np.unique(np.linspace(0, len(starts) - 1, _MAX_COUNTED_BATCHES).astype(int))
    num_pairs = num_nodes = num_questions = longest_keys = stored_keys = 0
    for start in starts[chosen].tolist():
        batch = take(prompts, np.arange(start, min(start + batch_size, prompts.num_sequences)))
        forest = build_forest(batch, max_row_tokens=min(MAX_ROW_TOKENS, budget_tokens))
        for one in map(measured, forest.micro_batches(budget_tokens)):
            num_pairs += one.num_pairs + one.num_dense_pairs
        num_spans, longest = _stored_spans(forest)
        num_nodes += forest.num_nodes
        num_questions += batch.num_sequences
        longest_keys += batch.num_sequences * longest
        stored_keys += num_spans * longest
    return _Sampled(
        num_pairs / num_nodes, longest_keys / num_questions, stored_keys / num_questions
    )


def _stored_spans(forest: Forest) -> tuple[int, int]:
    """How many spans hold the ends of prompts, and the most keys of one (decoding.py)."""
    spans = [
        span
        for start, stop in pairwise(forest.row_starts.tolist())
        for span in cut_into_spans(start, stop, forest.subtree_ends, STORED_SPAN_PAIRS)
    ]
    starts = [span.start for span in spans]
    used = np.unique(np.searchsorted(starts, forest.last_nodes, side="right") - 1)
    return len(used), max(len(spans[place].keys) for place in used.tolist())


def _micro_batches(batch: Sequences, settings: TrainingSettings) -> list[MicroBatch]:
    if not settings.forest:
        return _padded(batch, settings.budget_tokens)
    forest = build_forest(batch, max_row_tokens=min(MAX_ROW_TOKENS, settings.budget_tokens))
    return [measured(micro_batch) for micro_batch in forest.micro_batches(settings.budget_tokens)]


def measured(forest: Forest) -> MicroBatch:
    """What a forest takes when it is computed at once."""
    starts = forest.row_starts.tolist()
    longest = int(forest.row_lengths.max())
    whole = MicroBatch(forest.num_nodes, 0, len(forest.target_nodes), longest)
    if longest > MAX_EXPLICIT_TOKENS:
        dense = int((forest.row_lengths.astype(np.int64) ** 2).sum())
        return whole._replace(num_dense_pairs=dense)
    spans = [
        span
        for start, stop in pairwise(starts)
        for span in cut_into_spans(start, stop, forest.subtree_ends, SPAN_PAIRS)
    ]
    num_pairs = sum((span.stop - span.start) * len(span.keys) for span in spans)
    return whole._replace(num_pairs=num_pairs, num_spans=len(spans))


def _padded(batch: Sequences, budget_tokens: int) -> list[MicroBatch]:
    """Padded batches compute their padding, and logits at every position."""
    found: list[MicroBatch] = []
    lengths: list[int] = []
    for length in [*sorted(batch.lengths.tolist()), 0]:
        if lengths and (not length or (len(lengths) + 1) * length > budget_tokens):
            size = len(lengths) * lengths[-1]
            found.append(MicroBatch(size, size * lengths[-1], size, lengths[-1]))
            lengths = []
        lengths.append(length)
    return found


def _longest(sequences: Sequences) -> int:
    return int(sequences.lengths.max(initial=1))


def _bound(found: Sequence[MicroBatch], longest_row: int, budget_tokens: int) -> MicroBatch:
    """The largest of every part: steps that were not counted may hold a longer row."""
    largest = max(found, key=lambda batch: batch.num_tokens)
    if largest.num_tokens < longest_row and longest_row > budget_tokens:
        return MicroBatch.of_row(longest_row)
    return MicroBatch(
        largest.num_tokens,
        max(batch.num_pairs for batch in found),
        max(batch.num_targets for batch in found),
        max(batch.longest_row for batch in found),
    )
