"""Greedy decoding of the answers that drafts did not finish, in a shrinking batch over shared
prefixes.

A live answer keeps its path among the prefilled keys of its span of the forest, stored once per
span (which is the "row" of its BranchAttention), and its own branch. Each step feeds its chosen
token and, after it, a guess copied from the prompt (prompt lookup); the pass that computes the
next choice verifies the guess.

Shape suffixes as in branch_attention.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loracle.forest.attention.branches import BranchAttention
from loracle.forest.attention.interface import KeysValues
from loracle.forest.limits import STORED_SPAN_PAIRS
from loracle.forest.spans import Span, cut_into_spans
from loracle.forest.trie import IntArray
from loracle.generation.prefill import Start, Verified, penalise
from loracle.generation.types import GenerationSettings, GenerationStatistics
from loracle.model.base import BaseModel, packed_hidden_states
from loracle.model.head import output_head
from loracle.run_folder import signals

# Tokens a step may carry before it costs notably more than a single one (weights are read once).
_TOKENS_PER_STEP = {"cpu": 24, "cuda": 256}
_MAX_GUESS_TOKENS = 8
_MAX_MATCH_TOKENS = 3

# The batch is packed again once this share of it has finished.
_FINISHED_SHARE = 0.25


class Decoded(NamedTuple):
    token_ids: list[int]
    stopped: bool


@dataclass
class _Live:
    """One answer in progress. `pending` is chosen but not yet fed."""

    index: int
    prompt_ids: Sequence[int]
    token_ids: list[int]
    pending: int
    num_fed: int = 0
    finished: bool = False
    stopped: bool = False

    @property
    def all_ids(self) -> list[int]:
        return [*self.prompt_ids, *self.token_ids]


def decode(
    base: BaseModel,
    verified: Verified,
    settings: GenerationSettings,
    statistics: GenerationStatistics,
) -> list[Decoded]:
    """Finish every started answer. Returns one Decoded per start, in order."""
    done = [Decoded(start.token_ids, start.stopped) for start in verified.starts]
    live = [
        _Live(i, start.prompt_ids, [*start.token_ids, start.next_token_id], start.next_token_id)
        for i, start in enumerate(verified.starts)
        if not start.finished
    ]
    for answer in live:
        answer.finished = len(answer.token_ids) >= settings.max_new_tokens
    live = _collect(live, done)
    if not live:
        return done
    state = _State.gather(base, verified, live, settings.max_new_tokens)
    while live:
        signals.stop_if_urgent()
        guesses = _guesses(live, settings, base.device.type)
        choices = state.step(base, live, guesses, settings.repetition_penalty)
        statistics.num_decode_steps += 1
        statistics.num_decode_tokens += int(choices.size)
        for answer, guess, chosen in zip(live, guesses, choices.tolist(), strict=True):
            _advance(answer, guess, chosen, base.end_token_ids, settings.max_new_tokens)
        state.set_lengths([answer.num_fed for answer in live])
        if sum(a.finished for a in live) >= _FINISHED_SHARE * len(live):
            state.keep([i for i, answer in enumerate(live) if not answer.finished])
            live = _collect(live, done)
    return done


def _collect(live: list[_Live], done: list[Decoded]) -> list[_Live]:
    for answer in live:
        if answer.finished:
            done[answer.index] = Decoded(answer.token_ids, answer.stopped)
    return [answer for answer in live if not answer.finished]


def _advance(
    answer: _Live,
    guess: Sequence[int],
    chosen: Sequence[int],
    end_token_ids: frozenset[int],
    max_new_tokens: int,
) -> None:
    """Take the choices after `pending` and, while the guess was right, after its tokens."""
    if answer.finished:
        return
    for place, token_id in enumerate(chosen):
        answer.num_fed += 1
        if token_id in end_token_ids:
            answer.finished = answer.stopped = True
            return
        answer.token_ids.append(token_id)
        answer.pending = token_id
        if len(answer.token_ids) >= max_new_tokens:
            answer.finished = True
            return
        if place >= len(guess) or guess[place] != token_id:
            return


def _guesses(
    live: Sequence[_Live], settings: GenerationSettings, device_type: str
) -> list[list[int]]:
    if not settings.prompt_lookup:
        return [[] for _ in live]
    room = _TOKENS_PER_STEP.get(device_type, 256) // len(live) - 1
    width = min(_MAX_GUESS_TOKENS, room)
    if width <= 0:
        return [[] for _ in live]
    return [
        look_up(
            answer.prompt_ids,
            answer.token_ids,
            min(width, settings.max_new_tokens - len(answer.token_ids)),
        )
        for answer in live
    ]


def look_up(prompt_ids: Sequence[int], token_ids: Sequence[int], num_tokens: int) -> list[int]:
    """What follows in the prompt after the longest match (up to 3 tokens) of the answer's end.

    The latest such place counts. Empty if nothing matches.
    """
    prompt = np.asarray(prompt_ids)
    ends = np.flatnonzero(prompt[:-1] == token_ids[-1])
    best = ends
    for length in range(2, min(_MAX_MATCH_TOKENS, len(token_ids)) + 1):
        ends = ends[ends >= length - 1]
        ends = ends[prompt[ends - (length - 1)] == token_ids[-length]]
        if len(ends) == 0:
            break
        best = ends
    if len(best) == 0 or num_tokens <= 0:
        return []
    start = int(best[-1]) + 1
    return [int(t) for t in prompt[start : start + num_tokens]]


@dataclass
class _State:
    """The tensors of the live answers: see BranchAttention."""

    prefix: list[KeysValues]
    branch: list[KeysValues]
    path_SL: Tensor
    row_S: Tensor
    slot_S: Tensor
    start_lengths_S: Tensor
    branch_lengths_S: Tensor

    @classmethod
    def gather(
        cls, base: BaseModel, verified: Verified, live: Sequence[_Live], max_new_tokens: int
    ) -> _State:
        starts = [verified.starts[answer.index] for answer in live]
        spans, row_S = _spans_of(verified, [int(start.path[-1]) for start in starts])
        longest = max(len(span.keys) for span in spans)
        path = np.zeros((len(live), longest), np.bool_)
        for i, (span, start) in enumerate(zip(row_S, starts, strict=True)):
            path[i, np.searchsorted(spans[span].keys, start.path)] = True
        prefix = _gather(verified, spans, longest)
        device = base.device
        capacity = max_new_tokens + 1 + _MAX_GUESS_TOKENS
        return cls(
            prefix=prefix,
            branch=[
                KeysValues(*(_empty(stored, len(live), capacity) for stored in layer))
                for layer in prefix
            ],
            path_SL=torch.from_numpy(path).to(device),
            row_S=torch.from_numpy(row_S).to(device),
            slot_S=torch.from_numpy(_slots(row_S)).to(device),
            start_lengths_S=torch.tensor([len(start.path) for start in starts], device=device),
            branch_lengths_S=torch.zeros(len(live), dtype=torch.long, device=device),
        )

    def step(
        self,
        base: BaseModel,
        live: Sequence[_Live],
        guesses: Sequence[Sequence[int]],
        penalty: float,
    ) -> np.ndarray:
        """Feed each answer's pending token and guess; the greedy choices after each: (S, C)."""
        num_new = 1 + max(len(guess) for guess in guesses)
        # Shorter guesses are padded with a token whose choice is never read.
        fed = [
            [answer.pending, *guess, *[answer.pending] * (num_new - 1 - len(guess))]
            for answer, guess in zip(live, guesses, strict=True)
        ]
        token_ids_SC = torch.tensor(fed, device=base.device)
        first_S = self.start_lengths_S + self.branch_lengths_S
        positions_SC = first_S[:, None] + torch.arange(num_new, device=base.device)
        context = BranchAttention(
            self.prefix,
            self.branch,
            self.path_SL,
            self.row_S,
            self.slot_S,
            self.branch_lengths_S,
            num_new,
        )
        hidden = packed_hidden_states(
            base.model, token_ids_SC.flatten(), positions_SC.flatten(), context
        )
        logits = output_head(base.model)(hidden).float()
        if penalty != 1.0:
            seen = [
                [*answer.all_ids, *ids[1 : place + 1]]
                for answer, ids in zip(live, fed, strict=True)
                for place in range(num_new)
            ]
            penalise(logits, seen, penalty)
        choices: np.ndarray = logits.argmax(dim=-1).view(len(live), num_new).cpu().numpy()
        return choices

    def set_lengths(self, num_fed: Sequence[int]) -> None:
        """Branches are valid up to what was accepted; rejected guesses are written over."""
        self.branch_lengths_S = torch.tensor(num_fed, device=self.branch_lengths_S.device)

    def keep(self, places: Sequence[int]) -> None:
        """Drop the other answers, and rows without descendants."""
        if not places:
            return
        kept = torch.tensor(places, device=self.row_S.device)
        self.path_SL = self.path_SL[kept]
        self.start_lengths_S = self.start_lengths_S[kept]
        self.branch_lengths_S = self.branch_lengths_S[kept]
        self.branch = [_rows_of(layer, kept) for layer in self.branch]
        used, self.row_S = self.row_S[kept].unique(return_inverse=True)  # type: ignore[no-untyped-call]
        if len(used) < len(self.prefix[0].keys):
            self.prefix = [_rows_of(layer, used) for layer in self.prefix]
        slots = _slots(self.row_S.cpu().numpy())
        self.slot_S = torch.from_numpy(slots).to(self.row_S.device)


def _empty(stored_RKLD: Tensor, num_rows: int, length: int) -> Tensor:
    """Room for keys or values like these, on their device: (num_rows, K, length, D)."""
    _, num_kv_heads, _, head_size = stored_RKLD.shape
    return stored_RKLD.new_zeros(num_rows, num_kv_heads, length, head_size)


def _rows_of(layer: KeysValues, rows: Tensor) -> KeysValues:
    """These rows of a layer, which may be on another device than the row numbers."""
    rows = rows.to(layer.keys.device)
    return KeysValues(layer.keys[rows], layer.values[rows])


def _slots(rows: np.ndarray) -> np.ndarray:
    """For each entry how many entries before it are of the same row."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    firsts = np.searchsorted(ordered, ordered, side="left")
    slots = np.empty(len(rows), np.int64)
    slots[order] = np.arange(len(rows)) - firsts
    return slots


def _spans_of(verified: Verified, nodes: Sequence[int]) -> tuple[list[Span], IntArray]:
    """The spans of the forest that hold the nodes, each once, and the span of every node: (S,).

    An answer sees nothing but its path, whose nodes are all among the keys of its last node's
    span: a row of several passages need not be attended to as a whole.
    """
    forest = verified.forest
    row_starts = forest.row_starts
    rows = np.searchsorted(row_starts, nodes, side="right") - 1
    spans = [
        span
        for row in np.unique(rows).tolist()
        for span in cut_into_spans(
            int(row_starts[row]), int(row_starts[row + 1]), forest.subtree_ends, STORED_SPAN_PAIRS
        )
    ]
    holding = np.searchsorted([span.start for span in spans], nodes, side="right") - 1
    used, span_S = np.unique(holding, return_inverse=True)
    return [spans[index] for index in used.tolist()], span_S


def _gather(verified: Verified, spans: Sequence[Span], longest: int) -> list[KeysValues]:
    """The spans' keys and values by layer, padded to (R, K, L, D); padding is on no path."""
    block_starts = [start for start, _ in verified.blocks]
    layers = sorted(verified.blocks[0][1])
    samples = [verified.blocks[0][1][layer] for layer in layers]
    gathered = [
        KeysValues(*(_empty(stored[None], len(spans), longest) for stored in sample))
        for sample in samples
    ]
    for place, span in enumerate(spans):
        block_start, keys_values = verified.blocks[
            int(np.searchsorted(block_starts, span.start, side="right")) - 1
        ]
        nodes = torch.from_numpy(span.keys - block_start)
        nodes_on = {device: nodes.to(device) for device in {t.keys.device for t in gathered}}
        for layer, target in zip(layers, gathered, strict=True):
            source = keys_values[layer]
            nodes = nodes_on[source.keys.device]
            target.keys[place, :, : len(nodes)] = source.keys[:, nodes]
            target.values[place, :, : len(nodes)] = source.values[:, nodes]
    return gathered


__all__ = ["Decoded", "Start", "decode", "look_up"]
