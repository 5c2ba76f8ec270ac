"""The values of `auto`: micro-batches and gradient checkpointing that fit in memory."""

from __future__ import annotations

from typing import Literal, NamedTuple

from loracle.forecast.foresee import largest_micro_batch
from loracle.forecast.machines import Machine
from loracle.model.step_memory import ModelShape
from loracle.training.loop import AUTO_BUDGET_TOKENS

_FEWEST_TOKENS = 1024
"""Micro-batches of fewer tokens cost more time than gradient checkpointing does."""


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
) -> Chosen:
    """The plan's value, or the largest that fits; if there is plenty of memory, the fastest size.

    shape: None if it is not known; then memory decides nothing.
    """
    best = AUTO_BUDGET_TOKENS[machine.device_type]
    if shape is None or not machine.memory_bytes:
        budget = best if micro_batch_tokens == "auto" else micro_batch_tokens
        return Chosen(budget, gradient_checkpointing is True)
    wanted = best if micro_batch_tokens == "auto" else micro_batch_tokens
    checkpointing = gradient_checkpointing is True
    if gradient_checkpointing == "auto":
        plain = largest_micro_batch(shape, machine, longest_row, False)
        checkpointing = plain < min(wanted, max(_FEWEST_TOKENS, longest_row))
    if micro_batch_tokens != "auto":
        return Chosen(micro_batch_tokens, checkpointing)
    fitting = largest_micro_batch(shape, machine, longest_row, checkpointing)
    # If nothing seems to fit, the loop tries the smallest, and reports if it really does not fit.
    return Chosen(max(256, min(best, fitting)), checkpointing)
