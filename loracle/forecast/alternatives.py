"""What a card would take with other settings: every base's precision, with and without gradient
checkpointing, so that a plan can be compared with what else is possible."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from loracle.forecast.choosing import Chosen, chosen
from loracle.forecast.foresee import largest_micro_batch
from loracle.forecast.machines import Machine, process_bytes
from loracle.forecast.record import Alternative, Forecast
from loracle.model.quantization import PACKED_SHARE
from loracle.model.step_memory import MicroBatch, ModelShape
from loracle.text import duration

_QUICKER = 0.85
"""A setting is recommended if it takes less than this share of the planned one's time."""

Seconds = Callable[[ModelShape, Chosen], float]
"""The time of all trainings with such a base and such micro-batches."""


def alternatives(
    shape: ModelShape, machine: Machine, longest_row: int, planned: Chosen, seconds: Seconds
) -> tuple[Alternative, ...]:
    """Six settings, the planned one among them as it is."""
    return tuple(
        _alternative(
            dataclasses.replace(shape, quantization=quantization),
            machine,
            longest_row,
            planned if (quantization, on) == (shape.quantization, planned[1]) else None,
            gradient_checkpointing=on,
            seconds=seconds,
        )
        for quantization in PACKED_SHARE
        for on in (False, True)
    )


def _alternative(
    shape: ModelShape,
    machine: Machine,
    longest_row: int,
    planned: Chosen | None,
    *,
    gradient_checkpointing: bool,
    seconds: Seconds,
) -> Alternative:
    largest = largest_micro_batch(shape, machine, longest_row, gradient_checkpointing)
    choice = planned or chosen("auto", gradient_checkpointing, shape, machine, longest_row)
    num_tokens = max(choice.budget_tokens, longest_row)
    row = max(1, longest_row)
    step = MicroBatch(num_tokens, num_tokens * row, num_tokens, row)
    fits = largest >= num_tokens
    return Alternative(
        quantization=shape.quantization,
        gradient_checkpointing=gradient_checkpointing,
        micro_batch_tokens=choice.budget_tokens,
        training_bytes=process_bytes(machine.device_type)
        + shape.step_memory(step, gradient_checkpointing).total,
        training_seconds=seconds(shape, choice) if fits else None,
        is_planned=planned is not None,
    )


def quicker_settings(found: Forecast) -> Iterator[str]:
    """The quickest setting that fits, if it is much quicker than the planned one."""
    fitting = [one for one in found.alternatives if one.training_seconds is not None]
    planned = next((one for one in fitting if one.is_planned), None)
    if planned is None or planned.training_seconds is None:
        return
    quickest = min(fitting, key=lambda one: one.training_seconds or 0.0)
    seconds = quickest.training_seconds or 0.0
    if seconds > _QUICKER * planned.training_seconds:
        return
    changes = []
    if quickest.quantization != planned.quantization:
        changes.append(f"model.quantization: {quickest.quantization}")
    if quickest.gradient_checkpointing != planned.gradient_checkpointing:
        on = "true" if quickest.gradient_checkpointing else "false"
        changes.append(f"training.gradient_checkpointing: {on}")
    yield (
        f"quicker: {', '.join(changes)}: training takes {duration(seconds)}, not "
        f"{duration(planned.training_seconds)}"
    )
