"""How numbers, times, sizes and names are written for people: in one place, for every reader.

Plain functions of plain values; no module of Loracle but `errors` stands below this one.
"""

from __future__ import annotations

import re

NOTHING = "–"
"""Stands where a value is absent."""

# Metrics with a unit of their own; all others are shares.
_UNSCALED_METRICS = frozenset({"answer_nll"})

# Terminal commands, and marks that turn the direction of writing. Tab and new line are harmless.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with control characters spelled out, so that they command no terminal."""
    return _CONTROL_CHARACTERS.sub(lambda found: ascii(found[0])[1:-1], text)


def shown_score(metric: str, value: float, *, signed: bool = False) -> str:
    """A mean or lift as people read it: shares times 100, answer_nll in nats."""
    sign = "+" if signed else ""
    if metric in _UNSCALED_METRICS:
        return f"{value:{sign}.3f}"
    return f"{value * 100:{sign}.1f}"


def duration(seconds: float) -> str:
    """A time as people say it: "4.2 s", "1 min 20 s", "2 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole_seconds = round(seconds)
    if whole_seconds < 60:
        return f"{whole_seconds} s"
    if whole_seconds < 3600:
        return f"{whole_seconds // 60} min {whole_seconds % 60:02d} s"
    whole_minutes = round(seconds / 60)
    return f"{whole_minutes // 60} h {whole_minutes % 60:02d} min"


def size(num_bytes: float) -> str:
    """A size as people say it: "512 bytes", "3.4 MB", "12 GB"."""
    if num_bytes < 1000:
        return f"{num_bytes:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        num_bytes /= 1000
        if num_bytes < 999.5:
            return f"{num_bytes:.1f} {unit}" if num_bytes < 9.95 else f"{num_bytes:.0f} {unit}"
    return f"{num_bytes / 1000:.1f} TB"
