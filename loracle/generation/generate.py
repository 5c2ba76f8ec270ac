"""Answer questions with the base or an adapter: greedy over the prefix forest, with drafts.

    questions --forest prefill, drafts verified in the same pass--> finished answers
              --decoding of the rest, in a shrinking batch--------> the other answers

Drafts (reference answers, answers of earlier trials) save steps and never change an answer: a
draft's token counts only where greedy decoding chooses it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from loracle.forest.attention.interface import ATTENTION_NAME, attention_implementation
from loracle.generation.decoding import decode
from loracle.generation.plain import generate_plainly
from loracle.generation.prefill import verify
from loracle.generation.types import Answer, GenerationSettings, GenerationStatistics, Question
from loracle.model.base import BaseModel, answering


@torch.inference_mode()
def generate(
    base: BaseModel,
    adapted: Any | None,
    questions: Sequence[Question],
    settings: GenerationSettings,
    *,
    forest: bool = True,
    statistics: GenerationStatistics | None = None,
) -> Iterator[list[Answer]]:
    """Answer the questions batch by batch, in their order.

    adapted: the attached adapter (its layers sit in `base.model`), or None for the base alone.
    forest: False where the self-test failed; then, too, transformers' `generate` answers.
    """
    statistics = statistics if statistics is not None else GenerationStatistics()
    if settings.sampling is not None or not forest:
        yield from generate_plainly(base, adapted, questions, settings, can_pad=forest)
        return
    for start in range(0, len(questions), settings.batch_size):
        batch = questions[start : start + settings.batch_size]
        with attention_implementation(base.model, ATTENTION_NAME), answering(base, adapted):
            answers = _answer_batch(base, batch, settings, statistics)
        yield answers


def _answer_batch(
    base: BaseModel,
    batch: Sequence[Question],
    settings: GenerationSettings,
    statistics: GenerationStatistics,
) -> list[Answer]:
    batch = [
        question._replace(drafts={s: d for s, d in question.drafts.items() if statistics.useful(s)})
        for question in batch
    ]
    verified = verify(base, batch, settings)
    for source, (proposed, accepted) in verified.draft_use.items():
        statistics.proposed[source] += proposed
        statistics.accepted[source] += accepted
    statistics.num_prompt_tokens += sum(len(question.prompt_ids) for question in batch)
    statistics.num_prefill_nodes += verified.num_nodes
    statistics.num_finished_by_drafts += sum(start.finished for start in verified.starts)
    decoded = decode(base, verified, settings, statistics)
    return [
        Answer(tuple(token_ids), "stop" if stopped else "length", nll)
        for (token_ids, stopped), nll in zip(decoded, verified.nlls, strict=True)
    ]
