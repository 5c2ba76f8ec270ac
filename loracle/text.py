"""How numbers, times, sizes and names are written for people: in one place, for every reader.

Plain functions of plain values; of Loracle, only `errors` and `language` stand below this module.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from loracle.language import Language

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


def duration(seconds: float, language: Language = "en") -> str:
    """A time as people say it: "4.2 s", "1 min 20 s", "2 h 05 min"."""
    second, minute, hour = _TIME_UNITS[language]
    if seconds < 9.95:
        return f"{seconds:.1f} {second}"
    whole_seconds = round(seconds)
    if whole_seconds < 60:
        return f"{whole_seconds} {second}"
    if whole_seconds < 3600:
        return f"{whole_seconds // 60} {minute} {whole_seconds % 60:02d} {second}"
    whole_minutes = round(seconds / 60)
    return f"{whole_minutes // 60} {hour} {whole_minutes % 60:02d} {minute}"


_TIME_UNITS: Mapping[Language, tuple[str, str, str]] = {
    "en": ("s", "min", "h"),
    "zh": ("秒", "分", "小时"),
}


def cell_width(text: str) -> int:
    """The number of terminal columns that a text takes: two for a Chinese character."""
    return sum(map(_width_of, text))


def shortened(text: str, width: int) -> str:
    """The text in at most `width` columns: what is too long loses its middle, "alpaca-…-zh".

    Names of one family differ at their ends, so both ends stay.
    """
    if cell_width(text) <= width:
        return text
    if width < 1:
        return ""
    head_width = width // 2
    head = _first_cells(text, head_width)
    tail = _first_cells(text[::-1], width - 1 - head_width)[::-1]
    return f"{head}…{tail}"


def _first_cells(text: str, width: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _width_of(character)
        if taken > width:
            return text[:index]
    return text


def _width_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
