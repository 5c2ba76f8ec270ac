"""Prefill a batch of questions as a forest and verify every draft in the same pass.

Each (question, draft) is one sequence, the prompt followed by the draft; the forest stores what
they share once. Greedy choices are computed only at the prompt's last token and along the drafts.
The longest agreeing draft decides where decoding continues.

Shape suffixes: N packed nodes, M nodes with logits, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loracle.forest.attention.interface import KeysValues
from loracle.forest.attention.rows import RowAttention
from loracle.forest.limits import MAX_ROW_TOKENS
from loracle.forest.trie import Forest, IntArray, Sequences, build_forest
from loracle.generation.types import GenerationSettings, Question
from loracle.model.base import BaseModel, forest_hidden_states
from loracle.model.head import output_head
from loracle.run_folder import signals

_CHUNK_NODES = 256


class Start(NamedTuple):
    """The state of an answer after prefill.

    path: the forest's nodes of the prompt and the accepted draft. token_ids: the accepted tokens.
    next_token_id: what greedy decoding chose after them.
    finished: the end token was chosen, or max_new_tokens was reached. stopped: the former.
    """

    prompt_ids: Sequence[int]
    path: IntArray
    token_ids: list[int]
    next_token_id: int
    finished: bool
    stopped: bool


@dataclass
class Verified:
    """A prefilled batch. `blocks` holds each micro-batch's first node and keys and values."""

    forest: Forest
    blocks: list[tuple[int, dict[int, KeysValues]]]
    starts: list[Start]
    nlls: list[float | None]
    draft_use: Mapping[str, tuple[int, int]]

    @property
    def num_nodes(self) -> int:
        return self.forest.num_nodes


class _Branch(NamedTuple):
    """One sequence of the forest: a question's prompt followed by `token_ids`."""

    question: int
    source: str | None
    token_ids: tuple[int, ...]
    path: IntArray
    end_token_id: int | None = None


def verify(base: BaseModel, batch: Sequence[Question], settings: GenerationSettings) -> Verified:
    """Prefill, verify, and score the references if `settings.answer_nll` is set."""
    branches, forest = _plant(batch, settings)
    wanted = _wanted_nodes(branches, batch)
    seen_ids = _seen_ids(branches, batch, wanted) if settings.repetition_penalty != 1.0 else None
    targets = _reference_targets(branches, batch, wanted) if settings.answer_nll else []
    blocks: list[tuple[int, dict[int, KeysValues]]] = []
    choices = np.empty(len(wanted), np.int64)
    target_logprobs: dict[tuple[int, int], float] = {}
    for first, last, logits, block in _prefill(base, forest, wanted, settings.budget_tokens):
        if block is not None:
            blocks.append(block)
        if first == last:
            continue
        _read_targets(logits, first, last, targets, target_logprobs)
        if seen_ids is not None:
            penalise(logits, seen_ids[first:last], settings.repetition_penalty)
        choices[first:last] = logits.argmax(dim=-1).cpu().numpy()
    greedy = dict(zip(wanted.tolist(), choices.tolist(), strict=True))
    starts, use = _accept(base, batch, branches, greedy, settings.max_new_tokens)
    nlls = _best_nlls(branches, batch, target_logprobs, wanted) if settings.answer_nll else None
    return Verified(forest, blocks, starts, nlls or [None] * len(batch), use)


def penalise(logits_MV: Tensor, seen_ids: Sequence[Sequence[int]], penalty: float) -> None:
    """Repetition penalty in place, as transformers' RepetitionPenaltyLogitsProcessor.

    The logit of every token seen so far is divided by the penalty where positive, multiplied
    where negative. seen_ids: for each row of logits the ids of its whole path.
    """
    longest = max(len(ids) for ids in seen_ids)
    # A row is padded with one of its own ids: the same value is written again.
    padded = [list(ids) + [ids[0]] * (longest - len(ids)) for ids in seen_ids]
    seen = torch.tensor(padded, device=logits_MV.device)
    scores = logits_MV.gather(1, seen)
    logits_MV.scatter_(1, seen, torch.where(scores < 0, scores * penalty, scores / penalty))


def drafts_of(question: Question, max_new_tokens: int) -> list[tuple[str, tuple[int, ...]]]:
    """The drafts to try, each with its source: no longer than an answer, without duplicates."""
    return [
        (source, draft[:max_new_tokens])
        for source, drafts in question.drafts.items()
        for draft in dict.fromkeys(map(tuple, drafts))
        if draft
    ]


def _plant(batch: Sequence[Question], settings: GenerationSettings) -> tuple[list[_Branch], Forest]:
    planned: list[tuple[int, str | None, tuple[int, ...], int | None]] = []
    for i, question in enumerate(batch):
        planned.append((i, None, (), None))
        if settings.answer_nll:
            opening = tuple(question.opening_ids)
            planned += [(i, None, (*opening, *ids[:-1]), ids[-1]) for ids in question.references]
        planned += [
            (i, source, draft, None)
            for source, draft in drafts_of(question, settings.max_new_tokens)
        ]
    sequences = Sequences.of([[*batch[i].prompt_ids, *ids] for i, _, ids, _ in planned])
    forest = build_forest(sequences, max_row_tokens=min(MAX_ROW_TOKENS, settings.budget_tokens))
    branches = [
        _Branch(i, source, ids, forest.ancestors(int(node)), end)
        for (i, source, ids, end), node in zip(planned, forest.last_nodes, strict=True)
    ]
    return branches, forest


def _wanted_nodes(branches: Sequence[_Branch], batch: Sequence[Question]) -> IntArray:
    """Nodes where logits are needed: each prompt's last token and all tokens after it."""
    parts = [branch.path[len(batch[branch.question].prompt_ids) - 1 :] for branch in branches]
    return np.unique(np.concatenate(parts))


def _seen_ids(
    branches: Sequence[_Branch], batch: Sequence[Question], wanted: IntArray
) -> list[list[int]]:
    seen: dict[int, list[int]] = {}
    for branch in branches:
        prompt_ids = batch[branch.question].prompt_ids
        ids = [*prompt_ids, *branch.token_ids]
        for depth in range(len(prompt_ids) - 1, len(ids)):
            seen.setdefault(int(branch.path[depth]), ids[: depth + 1])
    return [seen[node] for node in wanted.tolist()]


def _prefill(
    base: BaseModel, forest: Forest, wanted: IntArray, budget_tokens: int
) -> Iterator[tuple[int, int, Tensor, tuple[int, dict[int, KeysValues]] | None]]:
    """Run the forest; yield (first, last, logits of wanted[first:last], block) in order.

    A micro-batch's block comes with its first yield, and None with the others.
    """
    head = output_head(base.model)
    start = 0
    for micro_batch in forest.micro_batches(budget_tokens):
        signals.stop_if_urgent()
        keys_values: dict[int, KeysValues] = {}
        context = RowAttention.of(micro_batch, base.device, keys_values, base.attention)
        stop = start + micro_batch.num_nodes
        low, high = np.searchsorted(wanted, [start, stop]).tolist()
        hidden = forest_hidden_states(base.model, micro_batch, context, wanted[low:high] - start)
        block: tuple[int, dict[int, KeysValues]] | None = (start, keys_values)
        for first in range(low, max(high, low + 1), _CHUNK_NODES):
            last = min(first + _CHUNK_NODES, high)
            yield first, last, head(hidden[first - low : last - low]).float(), block
            block = None
        start = stop


def _accept(
    base: BaseModel,
    batch: Sequence[Question],
    branches: Sequence[_Branch],
    greedy: Mapping[int, int],
    max_new_tokens: int,
) -> tuple[list[Start], dict[str, tuple[int, int]]]:
    starts: dict[int, Start] = {}
    use: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for branch in branches:
        prompt_ids = batch[branch.question].prompt_ids
        path = branch.path[len(prompt_ids) - 1 :]
        accepted = 0
        while (
            accepted < len(branch.token_ids)
            and branch.token_ids[accepted] == greedy[int(path[accepted])]
            and branch.token_ids[accepted] not in base.end_token_ids
        ):
            accepted += 1
        if branch.source is not None:
            proposed, so_far = use[branch.source]
            use[branch.source] = (proposed + len(branch.token_ids), so_far + accepted)
        before = starts.get(branch.question)
        if before is not None and accepted <= len(before.token_ids):
            continue
        next_token_id = greedy[int(path[accepted])]
        stopped = next_token_id in base.end_token_ids and accepted < max_new_tokens
        starts[branch.question] = Start(
            prompt_ids=prompt_ids,
            path=branch.path[: len(prompt_ids) + accepted],
            token_ids=list(branch.token_ids[:accepted]),
            next_token_id=next_token_id,
            finished=stopped or accepted >= max_new_tokens,
            stopped=stopped,
        )
    return [starts[i] for i in range(len(batch))], dict(use)


def _reference_targets(
    branches: Sequence[_Branch], batch: Sequence[Question], wanted: IntArray
) -> list[tuple[int, int]]:
    """(place in `wanted`, token id) of every reference token, sorted, once each."""
    targets: set[tuple[int, int]] = set()
    for branch in branches:
        targets.update(_branch_targets(branch, batch, wanted))
    return sorted(targets)


def _branch_targets(
    branch: _Branch, batch: Sequence[Question], wanted: IntArray
) -> list[tuple[int, int]]:
    if branch.end_token_id is None:
        return []
    question = batch[branch.question]
    num_given = len(question.opening_ids)
    nodes = branch.path[len(question.prompt_ids) + num_given - 1 :]
    places = np.searchsorted(wanted, nodes).tolist()
    return list(zip(places, [*branch.token_ids[num_given:], branch.end_token_id], strict=True))


def _read_targets(
    logits: Tensor,
    first: int,
    last: int,
    targets: Sequence[tuple[int, int]],
    found: dict[tuple[int, int], float],
) -> None:
    here = [target for target in targets if first <= target[0] < last]
    if not here:
        return
    places = torch.tensor([place - first for place, _ in here], device=logits.device)
    token_ids = torch.tensor([token_id for _, token_id in here], device=logits.device)
    logprobs = logits[places, token_ids] - logits.logsumexp(dim=-1)[places]
    found.update(zip(here, logprobs.tolist(), strict=True))


def _best_nlls(
    branches: Sequence[_Branch],
    batch: Sequence[Question],
    logprobs: Mapping[tuple[int, int], float],
    wanted: IntArray,
) -> list[float | None]:
    best: list[float | None] = [None] * len(batch)
    for branch in branches:
        targets = _branch_targets(branch, batch, wanted)
        if targets:
            nll = -sum(logprobs[target] for target in targets)
            before = best[branch.question]
            best[branch.question] = nll if before is None else min(before, nll)
    return best
