"""Numbers and names as the page shows them, the same in both languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loracle.plan import BASE_NAME
from loracle.report.charts import NUM_COLOURS
from loracle.text import NOTHING

Said = tuple[str, str]
"""A text in English and in Chinese."""

BASE_SERIES = "base"

# Names that are written in capitals; all others stand as they are.
_ABBREVIATIONS = frozenset({"em", "f1"})


def places_of(plan: Mapping[str, Any]) -> dict[str, int]:
    """The place of each candidate in the plan, from 0."""
    return {entry["name"]: index for index, entry in enumerate(plan["candidates"])}


def series_of(name: str, places: Mapping[str, int]) -> str:
    """The class of a candidate's colour; the base has a grey of its own."""
    return BASE_SERIES if name == BASE_NAME else str(places[name] % NUM_COLOURS)


def metric_name(metric: str) -> str:
    """EM and F1 in capitals, other metrics as they are called."""
    return metric.upper() if metric in _ABBREVIATIONS else metric


def count(value: float | None) -> str:
    """A count with its thousands apart."""
    return NOTHING if value is None else f"{value:,.0f}"


def percent(part: float, whole: float) -> str:
    """A share in percent; nothing of nothing is no share."""
    return f"{part / whole:.0%}" if whole else NOTHING


def clock(seconds: float | None) -> str:
    """A duration as minutes:seconds, or hours:minutes:seconds."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(num_bytes: int | None) -> str:
    """A file's size in kB or MB."""
    if num_bytes is None:
        return NOTHING
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:,.1f} kB"


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed (nearest rank)."""
    if not values:
        return None
    rank = -int(-share * len(values) // 1)
    return sorted(values)[max(rank, 1) - 1]
