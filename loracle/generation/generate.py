"""Answer questions with the base or an adapter: greedy over the prefix forest, with drafts.

    questions --forest prefill, drafts verified in the same pass--> finished answers
              --decoding of the rest, in a shrinking batch--------> the other answers

Drafts (reference answers, answers of earlier trials) save steps and never change an answer: a
draft's token counts only where greedy decoding chooses it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from loracle.forest.attention.interface import ATTENTION_NAME, attention_implementation
from loracle.generation.decoding import decode
from loracle.generation.memory import AnsweringMemory, AnsweringMemoryEvent
from loracle.generation.plain import answer_plainly
from loracle.generation.prefill import drafts_of, verify
from loracle.generation.types import Answer, GenerationSettings, GenerationStatistics, Question
from loracle.model.base import BaseModel, answering


@dataclass
class Account:
    """What was done before a call of `generate`, and what it notes."""

    statistics: GenerationStatistics = field(default_factory=GenerationStatistics)
    """What was answered so far; what is answered now is added."""
    answered: Sequence[Sequence[int]] = ()
    """Token ids of the answers to the first questions, whole batches of them (see
    `num_in_whole_batches`), given earlier; the answers after them are yielded."""
    on_memory: Callable[[AnsweringMemoryEvent], None] = lambda event: None
    """Called when memory runs out and less is computed at once."""


@torch.inference_mode()
def generate(
    base: BaseModel,
    adapted: Any | None,
    questions: Sequence[Question],
    settings: GenerationSettings,
    *,
    forest: bool = True,
    account: Account | None = None,
) -> Iterator[list[Answer]]:
    """Answer the questions batch by batch, in their order.

    Which questions share a batch depends only on their order and `settings.batch_size`.

    adapted: the attached adapter (its layers sit in `base.model`), or None for the base without an
        adapter.
    forest: False if the self-test failed; then transformers' `generate` is used.
    account: what was done before, and where what is done now is noted; None: nothing was, and
        nobody asks.

    Raises:
        OutOfMemoryError: not even one question at a time fits.
    """
    account = account or Account()
    statistics, answered = account.statistics, account.answered
    plainly = settings.sampling is not None or not forest
    memory = AnsweringMemory(settings, account.on_memory)
    for start in range(0, len(questions), settings.batch_size):
        batch = questions[start : start + settings.batch_size]
        if start < len(answered):
            if not plainly:
                _note_again(batch, answered[start : start + len(batch)], settings, statistics)
        elif plainly:
            yield memory.answered(
                batch,
                partial(_plain_part, base, adapted, start, can_pad=forest),
            )
        else:
            batch = _with_useful_drafts(batch, statistics)
            with attention_implementation(base.model, ATTENTION_NAME), answering(base, adapted):
                answers = memory.answered(batch, partial(_forest_part, base, statistics))
            yield answers


def num_in_whole_batches(num_answers: int, num_questions: int, batch_size: int) -> int:
    """How many of the first answers are whole batches: with the others, their batch is redone."""
    if num_answers >= num_questions:
        return num_questions
    return num_answers - num_answers % batch_size


def _with_useful_drafts(
    batch: Sequence[Question], statistics: GenerationStatistics
) -> list[Question]:
    return [
        question._replace(drafts={s: d for s, d in question.drafts.items() if statistics.useful(s)})
        for question in batch
    ]


def _note_again(
    batch: Sequence[Question],
    answers: Sequence[Sequence[int]],
    settings: GenerationSettings,
    statistics: GenerationStatistics,
) -> None:
    """Count what a batch's drafts were worth, as when it was answered.

    The counts decide which drafts later batches try.
    """
    for question, answer in zip(_with_useful_drafts(batch, statistics), answers, strict=True):
        for source, draft in drafts_of(question, settings.max_new_tokens):
            statistics.proposed[source] += len(draft)
            statistics.accepted[source] += _num_common(draft, answer)


def _num_common(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of their common beginning."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _plain_part(
    base: BaseModel,
    adapted: Any | None,
    batch_start: int,
    part_start: int,
    part: Sequence[Question],
    settings: GenerationSettings,
    *,
    can_pad: bool,
) -> list[Answer]:
    seed = settings.seed + batch_start + part_start
    return answer_plainly(base, adapted, part, settings, seed, can_pad=can_pad)


def _forest_part(
    base: BaseModel,
    statistics: GenerationStatistics,
    part_start: int,
    part: Sequence[Question],
    settings: GenerationSettings,
) -> list[Answer]:
    verified = verify(base, part, settings)
    decoded = decode(base, verified, settings, statistics)
    # Counted at the end: memory may run out before that, and the part be repeated.
    for source, (proposed, accepted) in verified.draft_use.items():
        statistics.proposed[source] += proposed
        statistics.accepted[source] += accepted
    statistics.num_prompt_tokens += sum(len(question.prompt_ids) for question in part)
    statistics.num_prefill_nodes += verified.num_nodes
    statistics.num_finished_by_drafts += sum(start.finished for start in verified.starts)
    return [
        Answer(tuple(token_ids), "stop" if stopped else "length", nll)
        for (token_ids, stopped), nll in zip(decoded, verified.nlls, strict=True)
    ]
