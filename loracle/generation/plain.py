"""Answers from transformers' own `generate`: for sampling, beam search, and models that cannot run
a forest. Plain batches, no drafts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from loracle.generation.types import Answer, GenerationSettings, Question
from loracle.model.base import BaseModel, answering
from loracle.run_folder import signals


def answer_plainly(
    base: BaseModel,
    adapted: Any | None,
    batch: Sequence[Question],
    settings: GenerationSettings,
    seed: int,
    *,
    can_pad: bool,
) -> list[Answer]:
    """Answer a batch, in order.

    can_pad: False where left padding could change answers (memory outside attention); prompts of
    one length then share a call, and no other.
    """
    torch.manual_seed(seed)
    answers: dict[int, Answer] = {}
    for places in _calls(batch, can_pad):
        signals.stop_if_urgent()
        prompts = [list(batch[place].prompt_ids) for place in places]
        with answering(base, adapted):
            answers.update(zip(places, _call(base, prompts, settings), strict=True))
    return [answers[place] for place in range(len(batch))]


def _calls(batch: Sequence[Question], can_pad: bool) -> list[list[int]]:
    if can_pad:
        return [list(range(len(batch)))]
    by_length: dict[int, list[int]] = {}
    for place, question in enumerate(batch):
        by_length.setdefault(len(question.prompt_ids), []).append(place)
    return list(by_length.values())


def _call(
    base: BaseModel, prompts: Sequence[Sequence[int]], settings: GenerationSettings
) -> list[Answer]:
    longest = max(len(ids) for ids in prompts)
    end_ids = sorted(base.end_token_ids)
    pad_id = end_ids[0]
    token_ids = torch.tensor([[pad_id] * (longest - len(ids)) + list(ids) for ids in prompts])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])
    output = base.model.generate(
        input_ids=token_ids.to(base.device),
        attention_mask=mask.to(base.device),
        max_new_tokens=settings.max_new_tokens,
        repetition_penalty=settings.repetition_penalty,
        eos_token_id=end_ids,
        pad_token_id=pad_id,
        **(settings.sampling or {"do_sample": False}),
    )
    answers = []
    for row in output[:, longest:].tolist():
        stop = next((i for i, token_id in enumerate(row) if token_id in base.end_token_ids), None)
        reason = "length" if stop is None else "stop"
        answers.append(Answer(tuple(row[:stop]), reason))  # type: ignore[arg-type]
    return answers
