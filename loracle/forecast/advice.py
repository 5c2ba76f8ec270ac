"""What to change if an experiment does not fit, with what each change would take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from loracle.forecast.record import Forecast
from loracle.model.step_memory import MicroBatch, ModelShape
from loracle.text import size


def advice_for(found: Forecast, shape: ModelShape, usable: int) -> tuple[str, ...]:
    """The changes that help, least costly first; empty if everything fits."""
    lines: list[str] = []
    if found.free_disk_bytes is not None and found.disk_bytes > found.free_disk_bytes:
        lines.append(
            f"the run folder needs {size(found.disk_bytes)}, but its disk has "
            f"{size(found.free_disk_bytes)} free; choose another with --out"
        )
    if found.training_bytes > usable:
        lines += _training_advice(found, shape, usable)
    if not found.largest_answering_batch:
        lines.append("answering does not fit, even one question at a time; a smaller model would")
    return tuple(lines)


def _training_advice(found: Forecast, shape: ModelShape, usable: int) -> Iterator[str]:
    room = usable - found.process_bytes
    smallest = dataclasses.replace(shape, quantization="nf4").weight_bytes
    if smallest > room:
        yield (
            f"nothing: the weights take {size(smallest)} even in nf4, and {size(max(0, room))} are "
            "left for them; choose a smaller model, or a machine with more memory"
        )
        return
    row = MicroBatch.of_row(found.longest_row)
    checkpointing = found.gradient_checkpointing
    if 0 < found.largest_micro_batch_tokens < found.micro_batch_tokens:
        yield (
            f"training.micro_batch_tokens: {found.largest_micro_batch_tokens} fits (`auto` "
            "chooses it; the result stays the same)"
        )
        return
    if not checkpointing:
        checkpointing = True
        needed = shape.step_memory(row, True).total
        yield _line("training.gradient_checkpointing: true", needed, room, "a third more time")
        if needed <= room:
            return
    if shape.quantization == "none":
        quantised = dataclasses.replace(shape, quantization="nf4")
        needed = quantised.step_memory(row, checkpointing).total
        yield _line("model.quantization: nf4", needed, room, "small changes in the base's answers")
        if needed <= room:
            return
        shape = quantised
    if shape.adapter_bytes > 0.05 * room:
        yield f"lora.r: half the rank saves {size(shape.adapter_bytes / 2)}"
    longest = _longest_that_fits(shape, room, checkpointing)
    if longest:
        yield f"training.max_length: {longest} fits then; longer passages are shortened"
    else:
        yield "no length fits; choose a smaller model, or a machine with more memory"


def _line(setting: str, needed: int, room: int, cost: str) -> str:
    fits = "fits" if needed <= room else "is not enough by itself"
    return f"{setting}: one row then takes {size(needed)} of {size(room)} and {fits}; costs {cost}"


def _longest_that_fits(shape: ModelShape, room: int, checkpointing: bool) -> int:
    lengths = range(64, 1 << 15, 64)
    fitting = [
        n for n in lengths if shape.step_bytes(n, gradient_checkpointing=checkpointing) <= room
    ]
    return max(fitting, default=0)
