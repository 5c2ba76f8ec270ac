"""Answered rows a second: Loracle, transformers' `generate`, and its continuous batching."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from gpu_parts.measuring import Bench, Case, peak_memory, seconds_of
from gpu_parts.models import make_base, make_rows
from loracle.generation.generate import generate
from loracle.generation.types import GenerationSettings, Question
from loracle.model.attention_choice import choose_attention
from loracle.model.base import BaseModel

NEW_TOKENS = 40
BATCH_SIZE = 64


def cases(bench: Bench, name: str) -> Iterator[Case]:
    """Random weights hardly ever end an answer, so that all sides write the same number."""
    base, _ = choose_attention(make_base(bench, name))
    for sharing in (True, False):
        num_rows = 6 if bench.is_tiny else 128
        vocabulary = base.model.config.vocab_size
        prompts = make_rows(bench, vocabulary, num_rows, sharing=sharing).prompts(num_rows)
        words = "sharing" if sharing else "separate"
        for method, answer in METHODS.items():

            def measure(answer: Any = answer, prompts: list[list[int]] = prompts) -> dict[str, Any]:
                with peak_memory(bench) as memory:
                    seconds = seconds_of(bench, lambda: answer(bench, base, prompts), turns=1)
                return {
                    "rows_per_second": round(len(prompts) / seconds, 2),
                    "seconds": round(seconds, 3),
                    **memory,
                }

            yield Case(f"{words}/{method}", measure)


def _num_new(bench: Bench) -> int:
    return 4 if bench.is_tiny else NEW_TOKENS


def by_loracle(bench: Bench, base: BaseModel, prompts: list[list[int]]) -> None:
    settings = GenerationSettings(_num_new(bench), 1.0, False, False, BATCH_SIZE, 16384)
    questions = [Question(ids) for ids in prompts]
    for _ in generate(base, None, questions, settings):
        pass


@torch.no_grad()
def by_batches(bench: Bench, base: BaseModel, prompts: list[list[int]]) -> None:
    """Padded on the left, rows of similar length together."""
    base.model.set_attn_implementation("sdpa")
    by_length = sorted(prompts, key=len)
    for start in range(0, len(by_length), BATCH_SIZE):
        batch = by_length[start : start + BATCH_SIZE]
        ids = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, -len(tokens) :] = torch.tensor(tokens)
            mask[row, -len(tokens) :] = 1
        base.model.generate(
            input_ids=ids.to(bench.device),
            attention_mask=mask.to(bench.device),
            do_sample=False,
            max_new_tokens=_num_new(bench),
        )


@torch.no_grad()
def by_continuous_batching(bench: Bench, base: BaseModel, prompts: list[list[int]]) -> None:
    from transformers import ContinuousBatchingConfig, GenerationConfig

    settings = GenerationConfig(
        do_sample=False, max_new_tokens=_num_new(bench), eos_token_id=1, pad_token_id=0
    )
    # On a CPU it would take most of the memory for its cache.
    cache = ContinuousBatchingConfig(
        **({"page_size": 16, "num_blocks": 64, "max_batch_tokens": 64} if bench.is_tiny else {})
    )
    outputs = base.model.generate_batch(
        inputs=prompts,
        generation_config=settings,
        continuous_batching_config=cache,
        progress_bar=False,
    )
    assert len(outputs) == len(prompts), f"{len(outputs)} of {len(prompts)} were answered"


METHODS = {
    "loracle": by_loracle,
    "generate": by_batches,
    "continuous_batching": by_continuous_batching,
}
