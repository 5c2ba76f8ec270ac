"""The values of `auto`: micro-batches and gradient checkpointing that fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from loracle.forecast.foresee import largest_micro_batch
from loracle.forecast.machines import Machine
from loracle.model.step_memory import ModelShape
from loracle.training.loop import AUTO_BUDGET_TOKENS

_FEWEST_TOKENS = 1024
"""On a CPU, micro-batches of fewer tokens cost more time than gradient checkpointing does."""
SMALLEST_TOKENS = 256
"""If nothing seems to fit: the loop then tries it, and reports if it really does not fit."""


class Chosen(NamedTuple):
    """budget_tokens: of a micro-batch."""

    budget_tokens: int
    gradient_checkpointing: bool


def chosen(
    micro_batch_tokens: int | Literal["auto"],
    gradient_checkpointing: bool | Literal["auto"],
    shape: ModelShape | None,
    machine: Machine,
    longest_row: int,
    seconds: Callable[[Chosen], float] | None = None,
) -> Chosen:
    """The plan's value, or the largest that fits; if there is plenty of memory, the fastest size.

    shape: None if it is not known; then memory decides nothing.
    seconds: how long the trainings then take: decides about checkpointing where both ways fit;
        None: on by rule, if the micro-batches would get small without it.
    """
    best = AUTO_BUDGET_TOKENS[machine.device_type]
    wanted = best if micro_batch_tokens == "auto" else micro_batch_tokens
    if shape is None or not machine.memory_bytes:
        return Chosen(wanted, gradient_checkpointing is True)

    def largest(checkpointing: bool) -> Chosen:
        if micro_batch_tokens != "auto":
            return Chosen(micro_batch_tokens, checkpointing)
        fitting = largest_micro_batch(shape, machine, longest_row, checkpointing)
        return Chosen(max(SMALLEST_TOKENS, min(best, fitting)), checkpointing)

    if gradient_checkpointing != "auto":
        return largest(gradient_checkpointing)
    plain, less = (largest_micro_batch(shape, machine, longest_row, c) for c in (False, True))
    needed = 1 if micro_batch_tokens == "auto" else micro_batch_tokens
    if seconds is not None and min(plain, less) >= needed:
        return min((largest(False), largest(True)), key=seconds)
    return largest(plain < min(wanted, max(_FEWEST_TOKENS, longest_row)))
