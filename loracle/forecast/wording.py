"""A forecast for display: a table of the candidates, and the totals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from loracle.forecast.record import Forecast
from loracle.text import count, counted, duration, percent, size

if TYPE_CHECKING:
    from rich.table import Table


def forecast_table(found: Forecast) -> Table:
    """One row per candidate."""
    from rich.table import Table

    several = f"{found.num_devices} x " if found.num_devices > 1 and not found.is_here else ""
    table = Table(title=f"Forecast for {several}{found.machine}")
    table.add_column("candidate")
    for heading in ("steps", "read", "computed", "saving", "training", "answering", "memory"):
        table.add_column(heading, justify="right")
    for one in found.candidates:
        table.add_row(
            one.name,
            count(one.num_steps),
            count(one.tokens_read),
            count(one.tokens_computed),
            percent(one.tokens_read - one.tokens_computed, one.tokens_read),
            duration(one.training_seconds),
            duration(one.answering_seconds),
            size(one.training_bytes),
        )
    return table


def forecast_lines(found: Forecast) -> Iterator[str]:
    """The totals, whether it fits, and what to change if not."""
    places = f" on {found.num_devices} devices" if found.num_devices > 1 else ""
    if found.num_replicas > 1:
        places += f", {found.num_replicas} processes for each training"
    runs = counted(len(found.candidates) * found.num_runs_each, "trial")
    yield f"time: {duration(found.seconds)} for {runs} and the base{places}"
    yield f"tokens: {count(found.tokens_read)} read, {count(found.tokens_computed)} computed"
    if found.price is not None:
        yield f"price: {_price(found.price)}"
    yield (
        f"memory: training {size(found.training_bytes)} ({_parts(found)}), answering "
        f"{size(found.answering_bytes)}; {size(found.memory_bytes)} "
        + ("are free" if found.is_here else "on each card")
    )
    free = f" of {size(found.free_disk_bytes)} free" if found.free_disk_bytes is not None else ""
    yield f"disk: {size(found.disk_bytes)}{free}"
    yield f"micro-batches: {_micro_batches(found)}"
    yield f"largest safe answering batch: {counted(found.largest_answering_batch, 'question')}"
    checkpointing = "on" if found.gradient_checkpointing else "off"
    yield f"gradient checkpointing: {checkpointing}; base: {found.dtype}, {found.quantization}"
    yield from (f"note: {note}" for note in found.notes)
    if found.fits:
        yield "it fits"
        return
    yield "IT DOES NOT FIT; what would help:"
    yield from (f"  {line}" for line in found.advice)


def _price(price: float) -> str:
    return "under 0.01" if 0 < price < 0.01 else f"{price:,.2f}"


def _parts(found: Forecast) -> str:
    parts = {"libraries": found.process_bytes, **found.training_parts}
    return ", ".join(f"{name} {size(value)}" for name, value in parts.items() if value)


def _micro_batches(found: Forecast) -> str:
    planned = counted(found.micro_batch_tokens, "token")
    if not found.largest_micro_batch_tokens:
        return f"{planned} planned; not even the longest row ({found.longest_row:,}) is safe"
    return f"{planned} planned; up to {found.largest_micro_batch_tokens:,} are safe"
