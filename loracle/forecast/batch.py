"""How many questions a model in memory can answer together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from loracle.forecast.foresee import largest_answering_batch
from loracle.forecast.record import read_forecast
from loracle.forecast.work import AnsweringBatch
from loracle.forest.limits import MAX_EXPLICIT_TOKENS, PREFILL_TOKENS
from loracle.model.max_length import SPARE_SHARE, shape_of_model
from loracle.model.memory import free_memory
from loracle.model.step_memory import MicroBatch

DEFAULT_BATCH_SIZE = 64


def recommended_batch_size(
    model: Any,
    prompt_lengths: Sequence[int],
    max_new_tokens: int,
    *,
    free_bytes: int | None = None,
) -> int:
    """The answering batch for `batch_size=None`: 64, or less if memory does not allow it.

    More than 64 saves almost nothing, and more is computed next to answers that end early.

    Args:
        model: a transformers model with its weights in memory.
        prompt_lengths: tokens of every prompt.
        max_new_tokens: the longest answer.
        free_bytes: memory besides the weights; None asks the system.

    Returns:
        1 to 64; also 1 if not even one question seems to fit, which answering then reports.
    """
    device_type = next(model.parameters()).device.type
    if free_bytes is None:
        found = free_memory(device_type)
        if found is None:
            return DEFAULT_BATCH_SIZE
        free_bytes = found.num_bytes
    value_bytes = next(model.parameters()).element_size()
    shape = shape_of_model(model, value_bytes, device_type)
    longest = max(prompt_lengths, default=1)
    at_once = max(longest, PREFILL_TOKENS.get(device_type, PREFILL_TOKENS["cpu"]))
    prefill = MicroBatch(at_once, at_once * min(longest, MAX_EXPLICIT_TOKENS), 256, longest)
    # Assuming nothing is shared: a batch never takes more than this.
    batch = AnsweringBatch(1, longest, prefill, max_new_tokens)
    usable = int((1 - SPARE_SHARE) * free_bytes) + shape.weight_bytes
    return max(1, min(DEFAULT_BATCH_SIZE, largest_answering_batch(shape, usable, batch)))


def batch_size_taken(asked: int | Literal["auto"], run: Path) -> int:
    """The answering batch of a run. asked: the plan's; run: its folder, which keeps what auto was
    when it first started."""
    if asked != "auto":
        return asked
    recorded = read_forecast(run)
    return (recorded and recorded.forecast.answering_batch) or DEFAULT_BATCH_SIZE
