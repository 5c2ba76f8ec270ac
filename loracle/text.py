"""How numbers, times, sizes and names are written for people, in one place.

Plain functions of plain values; this module imports only `errors` and `language` from Loracle.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

from loracle.language import Language

NOTHING = "–"
"""Shown if a value is absent."""

# A row of a file, and what is said of it.
_PLACE = re.compile(r"(\S.*?:\d+): (.+)", re.DOTALL)
_NUM_SHOWN_PLACES = 3

# Metrics with a unit of their own; all others are shares, written in points.
_METRICS_IN_NATS = frozenset({"answer_nll"})
# Metrics that are written in capitals; all others are unchanged.
_ABBREVIATIONS = frozenset({"em", "f1"})

_SMALLEST_P = 0.001

# Terminal commands, and marks that change the writing direction. Tab and newline are harmless.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with control characters spelled out, so that they cannot control a terminal."""
    return _CONTROL_CHARACTERS.sub(lambda found: ascii(found[0])[1:-1], text)


def metric_name(metric: str) -> str:
    """EM and F1 in capitals, other metrics unchanged."""
    return metric.upper() if metric in _ABBREVIATIONS else metric


def metric_unit(metric: str) -> Literal["share", "nats"]:
    """`share`: 0 to 1, written in points. `nats`: written unchanged."""
    return "nats" if metric in _METRICS_IN_NATS else "share"


def on_scale(metric: str, value: float) -> float:
    """The value in the unit in which it is written: a share in points (times 100)."""
    return 100 * value if metric_unit(metric) == "share" else value


def shown_score(metric: str, value: float, *, signed: bool = False) -> str:
    """A mean or lift for display: "78.1", and with its sign "+2.0"; nats "1.234"."""
    num_digits = 1 if metric_unit(metric) == "share" else 3
    return f"{on_scale(metric, value):{'+' if signed else ''}.{num_digits}f}"


def shown_difference(metric: str, value: float) -> str:
    """A difference with its sign and unit: "+2.0 points"; nats have none, "-0.250"."""
    unit = " points" if metric_unit(metric) == "share" else ""
    return f"{shown_score(metric, value, signed=True)}{unit}"


def shown_difference_zh(metric: str, value: float) -> str:
    """As `shown_difference`, in Chinese: "+2.0 分"."""
    return shown_difference(metric, value).replace(" points", " 分")


def shown_interval(metric: str, low: float | None, high: float | None) -> str:
    """An interval, "[70.4, 85.9]"; "[?, ?]" if it is unknown."""
    if low is None or high is None:
        return "[?, ?]"
    return f"[{shown_score(metric, low)}, {shown_score(metric, high)}]"


def p_value(p: float) -> str:
    """A p-value with two significant digits: "0.032", "0.50", "< 0.001"."""
    if p < _SMALLEST_P:
        return f"< {_SMALLEST_P}"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_text(p: float) -> str:
    """A p-value in a sentence: "p 0.032", "p < 0.001"."""
    return f"p {p_value(p)}"


def count(value: float | None) -> str:
    """A count with thousands separators."""
    return NOTHING if value is None else f"{value:,.0f}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A count with its noun: "1 row", "1,200 rows". plural: where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def first_few(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are: "a, b and 3 more"."""
    more = len(names) - most
    shown = ", ".join(names[:most])
    return f"{shown} and {more:,} more" if more > 0 else shown


def without_repeats(problems: Sequence[str]) -> list[str]:
    """Problems of rows, FILE:LINE: TEXT: a text that many rows share is written once."""
    places: dict[str, list[str]] = {}
    for problem in problems:
        where, text = _place_and_text(problem)
        places.setdefault(text, []).append(where)
    lines: list[str] = []
    for text, (first, *others) in places.items():
        of_all = [f"{where}: {text}" if where else text for where in (first, *others)]
        same = f"{first_few(others, _NUM_SHOWN_PLACES)}: the same"
        lines += of_all if len(others) < _NUM_SHOWN_PLACES else [of_all[0], same]
    return lines


def _place_and_text(problem: str) -> tuple[str, str]:
    found = _PLACE.match(problem)
    return (found[1], found[2]) if found else ("", problem)


def percent(part: float, whole: float) -> str:
    """A share in percent; 0 of 0 has no share."""
    return f"{part / whole:.0%}" if whole else NOTHING


def clock(seconds: float | None) -> str:
    """A time in a table, as minutes:seconds or hours:minutes:seconds."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(num_bytes: float | None) -> str:
    """A size for display: "512 bytes", "1.5 MB", "12.0 GB"."""
    if num_bytes is None:
        return NOTHING
    if num_bytes < 1000:
        return f"{num_bytes:.0f} bytes"
    for unit in ("kB", "MB"):
        num_bytes /= 1000
        if num_bytes < 1000:
            return f"{num_bytes:.1f} {unit}"
    return f"{num_bytes / 1000:,.1f} GB"


def duration(seconds: float, language: Language = "en", *, tenths: bool = True) -> str:
    """A duration for display: "4.2 s", "1 min 20 s", "2 h 05 min".

    tenths: show tenths of a second below ten seconds.
    """
    second, minute, hour = _TIME_UNITS[language]
    if seconds < 9.95 and tenths:
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
    """The number of terminal columns of a text: two for a Chinese character."""
    return sum(map(_width_of, text))


def shortened(text: str, width: int) -> str:
    """The text in at most `width` columns: a long text loses its middle, "alpaca-…-zh".

    Related names differ at their ends, so both ends are kept.
    """
    if cell_width(text) <= width:
        return text
    if width < 1:
        return ""
    head_width = width // 2
    head = _first_cells(text, head_width)
    tail = _first_cells(text[::-1], width - 1 - head_width)[::-1]
    return f"{head}…{tail}"


def wrapped(line: str, width: int) -> str:
    """The line broken at spaces and between Chinese characters, each part at most `width` columns.

    A longer word, such as a path, stays whole, so that it can be copied. Further parts are
    indented as the line itself is, a bullet included.
    """
    lead = _LEAD.match(line)
    indent = " " * len(lead[0]) if lead else ""
    lines = [indent]
    gap = ""
    for piece in _PIECES.findall(line[len(indent) :]):
        if piece.isspace():
            gap = piece
        elif lines[-1] == indent or cell_width(f"{lines[-1]}{gap}{piece}") <= width:
            lines[-1] += ("" if lines[-1] == indent else gap) + piece
            gap = ""
        else:
            lines.append(f"{indent}{piece}")
            gap = ""
    return "\n".join([(lead[0] if lead else "") + lines[0][len(indent) :], *lines[1:]])


_LEAD = re.compile(r" *(?:- )?")
# A space; or a wide character with the marks that must not begin a line; or other text.
_WIDE = "\u2e80-\u303f\u3040-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\U00020000-\U0003fffd"
_CLOSING = "，。、；：！？）》」』”’…％%,.;:!?)"
_OPENING = "（《「『“‘("
_PIECES = re.compile(
    rf" +|[{_OPENING}]*[{_WIDE}][{_CLOSING}]*"
    rf"|[{_OPENING}]*[^\s{_WIDE}{_OPENING}]+[{_CLOSING}]*|\S|\s"
)


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


_SECONDS_PER_UNIT = {"s": 1, "min": 60, "h": 3600}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h)\s*")


def seconds_of(text: str) -> float | None:
    """ "30 s", "10 min" or "1.5 h" in seconds; None for any other text."""
    found = _DURATION.fullmatch(text)
    return float(found[1]) * _SECONDS_PER_UNIT[found[2]] if found else None
