"""Answers that state one thing: a number, or a choice among letters.

    numeric   "17 + 25 = 42 apples."            against "42"   -> 1
    choice    "The answer is (B), because ..."  against "B"    -> 1

Both sides are read by the same rules after NFKC, so full-width forms count. What states nothing
scores 0, also against a reference that states nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

from loracle.metrics.answers import check_references

# With thousands between commas, or plain; with a fraction, an exponent, or none.
_NUMBER = re.compile(
    r"(?<![\d.])[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?![\d])"
    r"|(?<![\d.])[-+]?\.\d+"
)
_MINUS_SIGNS = str.maketrans({"−": "-", "–": "-"})

_LETTER = r"[(\[]?([A-Z])(?![A-Za-z])[)\]]?"
_ANNOUNCED = re.compile(
    r"(?:(?i:answer|choice|option)(?:\s+(?i:is))?|答案(?:是|为)?|选项?(?:是|为)?|应?选择?)"
    rf"\s*[:：]?\s*\**\s*{_LETTER}"
)
# First in the text and followed by the end, a mark or a line: "A man came" states no choice.
_FIRST = re.compile(rf"\s*\**{_LETTER}\**\s*(?:$|[.,:;、。，：；)\]\n])")
_IN_BRACKETS = re.compile(r"[(\[]([A-Z])[)\]]")


def numeric(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the last number of the prediction equals the last number of a reference.

    Compared as exact decimals, 3.0 equals 3. Commas between thousands, currency and units do not
    count; 50% is 50. Numbers in words are not read.
    """
    check_references(references)
    predicted = _last_number(prediction)
    return float(predicted is not None and predicted in map(_last_number, references))


def _last_number(text: str) -> Decimal | None:
    """The number, with its sign unless that is an operation, as in "(2)-3" and "x-3"."""
    text = unicodedata.normalize("NFKC", text).translate(_MINUS_SIGNS)
    found = [*_NUMBER.finditer(text)]
    if not found:
        return None
    written = found[-1][0]
    before = text[: found[-1].start()][-1:]
    if written[0] in "+-" and before.isascii() and (before.isalnum() or before == ")"):
        written = written[1:]
    return Decimal(written.replace(",", ""))


def choice(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the prediction chooses the letter that a reference chooses.

    The letter is capital. It is the last one that is announced ("the answer is B", "答案是B",
    "选B"), else one that the text begins with ("B", "B. Paris"), else the only one in brackets.
    """
    check_references(references)
    predicted = _chosen(prediction)
    return float(predicted is not None and predicted in map(_chosen, references))


def _chosen(text: str) -> str | None:
    text = unicodedata.normalize("NFKC", text)
    if announced := _ANNOUNCED.findall(text):
        return str(announced[-1])
    if first := _FIRST.match(text):
        return first[1]
    in_brackets = set(_IN_BRACKETS.findall(text))
    return in_brackets.pop() if len(in_brackets) == 1 else None
