"""A forecast for display: a table of the candidates, and the totals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from loracle.forecast.alternatives import quicker_settings
from loracle.forecast.record import Forecast
from loracle.text import NOTHING, count, counted, duration, percent, size

if TYPE_CHECKING:
    from rich.table import Table


def forecast_table(found: Forecast) -> Table:
    """One row per candidate."""
    several = f"{found.num_devices} x " if found.num_devices > 1 and not found.is_here else ""
    headings = (
        "candidate",
        "steps",
        "read",
        "computed",
        "saved",
        "training",
        "answering",
        "memory",
    )
    rows = [
        (
            one.name,
            count(one.num_steps),
            _tokens(one.tokens_read),
            _tokens(one.tokens_computed),
            percent(one.tokens_read - one.tokens_computed, one.tokens_read),
            duration(one.training_seconds),
            duration(one.answering_seconds),
            size(one.training_bytes),
        )
        for one in found.candidates
    ]
    return _table(f"Forecast for {several}{found.machine}", headings, rows)


def settings_table(found: Forecast) -> Table:
    """Other settings of the base and of its training; only of a GPU."""
    headings = ("quantization", "checkpointing", "micro-batch", "memory", "all trainings", "")
    rows = [
        (
            one.quantization,
            "on" if one.gradient_checkpointing else "off",
            count(one.micro_batch_tokens) if one.training_seconds is not None else NOTHING,
            size(one.training_bytes),
            "does not fit" if one.training_seconds is None else duration(one.training_seconds),
            "planned" if one.is_planned else "",
        )
        for one in found.alternatives
    ]
    return _table("Settings compared", headings, rows)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The first column may be shortened in a narrow terminal, no other one."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    first, *others = headings
    table.add_column(first, overflow="fold", min_width=min(9, len(first)))
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def forecast_lines(found: Forecast) -> Iterator[str]:
    """The totals, whether it fits, and what to change if not."""
    yield f"time: {duration(found.seconds)} for {_trials(found)} and the base{_places(found)}"
    yield f"tokens: {count(found.tokens_read)} read, {count(found.tokens_computed)} computed"
    if found.price is not None:
        yield f"price: {_price(found)}"
    yield (
        f"memory: training {size(found.training_bytes)} ({_parts(found)}), answering "
        f"{size(found.answering_bytes)}; {size(found.memory_bytes)} "
        + ("are free" if found.is_here else "on each card")
    )
    free = f" of {size(found.free_disk_bytes)} free" if found.free_disk_bytes is not None else ""
    yield f"disk: {size(found.disk_bytes)}{free}"
    yield f"micro-batches: {_micro_batches(found)}"
    yield f"answering batch: {_answering_batch(found)}"
    checkpointing = "on" if found.gradient_checkpointing else "off"
    yield f"gradient checkpointing: {checkpointing}; base: {found.dtype}, {_quantization(found)}"
    yield from (f"note: {note}" for note in found.notes)
    if found.fits:
        yield "it fits"
    else:
        yield "IT DOES NOT FIT; what would help:"
        yield from (f"  {line}" for line in found.advice)
    yield from quicker_settings(found)


def _trials(found: Forecast) -> str:
    return counted(len(found.candidates) * found.num_runs_each, "trial")


def _places(found: Forecast) -> str:
    places = f" on {found.num_devices} devices" if found.num_devices > 1 else ""
    if found.num_replicas > 1:
        places += f", {found.num_replicas} processes for each training"
    return places


def _tokens(number: int) -> str:
    """A large number of tokens in millions: the table has to fit a terminal."""
    return count(number) if number < 1_000_000 else f"{number / 1e6:,.1f} M"


def _quantization(found: Forecast) -> str:
    return "not quantised" if found.quantization == "none" else found.quantization


def _price(found: Forecast) -> str:
    price, per_hour = found.price or 0.0, found.price_per_hour
    shown = "under 0.01" if 0 < price < 0.01 else f"{price:,.2f}"
    if per_hour is None:
        return shown
    devices = counted(found.num_devices, "device")
    return f"{shown} ({devices} for {duration(found.seconds)}, {per_hour:g} an hour)"


def _answering_batch(found: Forecast) -> str:
    planned = counted(found.answering_batch or 0, "question")
    if not found.largest_answering_batch:
        return f"{planned} planned; not even one is safe"
    safe = f"{planned} planned; up to {found.largest_answering_batch:,} are safe"
    if found.largest_answering_batch >= (found.answering_batch or 0):
        return safe
    return f"{safe}; a run that runs out of memory computes fewer at once (auto starts so)"


def _parts(found: Forecast) -> str:
    parts = {"libraries": found.process_bytes, **found.training_parts}
    return ", ".join(f"{name} {size(value)}" for name, value in parts.items() if value)


def _micro_batches(found: Forecast) -> str:
    planned = counted(found.micro_batch_tokens, "token")
    if not found.largest_micro_batch_tokens:
        return f"{planned} planned; not even the longest row ({found.longest_row:,}) is safe"
    return f"{planned} planned; up to {found.largest_micro_batch_tokens:,} are safe"
