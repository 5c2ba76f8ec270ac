"""Text as the audit compares it: what differs by width, case, white space and punctuation is equal.

"Ｗho won？  The\\nBroncos!"  ->  "who won the broncos"

Many texts are normalised at once: they are joined by line breaks, so that every step runs once over
all of them, and characters are replaced by looking their code points up in one table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Punctuation that says something: "50 %" is not "50", "1/2" is not "1 2".
_KEPT = frozenset("%*/-‰")
_HYPHENS = re.compile(r"-+")

# Characters that say about a syllable or a word each.
_DENSE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
DENSE_WEIGHT = 3
"""A Han, kana or Hangul character counts as this many letters where a text must be long enough."""

# What NFKC takes apart first, of characters that stand in nearly every text of their languages.
_WIDE = {char: unicodedata.normalize("NFKC", char) for char in "，？！：；（）…\u3000\xa0"}

# Small enough for the processor's cache.
_BLOCK_CHARACTERS = 1 << 16

_PAGE_BITS = 8
_NUM_PAGES = 0x110000 >> _PAGE_BITS


class _Bare:
    """What every code point becomes: punctuation becomes a space, while letters, the marks on them,
    digits, line breaks and signs such as + and € stay. Filled page by page as characters are met.
    """

    def __init__(self) -> None:
        self._points = np.arange(0x110000, dtype=np.uint32)
        self._is_filled = np.zeros(_NUM_PAGES, np.bool_)
        self.of_ascii = {point: self._bare(point) for point in range(128)}

    def replaced(self, text: str) -> str:
        """The text with every character replaced."""
        if text.isascii():
            return text.translate(self.of_ascii)
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        self._fill(points)
        return self._points[points].tobytes().decode("utf-32-le", "surrogatepass")

    def _fill(self, points: npt.NDArray[np.uint32]) -> None:
        met = np.bincount(points >> np.uint32(_PAGE_BITS), minlength=_NUM_PAGES) > 0
        for page in np.flatnonzero(met & ~self._is_filled).tolist():
            start = page << _PAGE_BITS
            for point in range(start, start + (1 << _PAGE_BITS)):
                self._points[point] = self._bare(point)
            self._is_filled[page] = True

    @staticmethod
    def _bare(point: int) -> int:
        char = chr(point)
        bare = char != "\n" and char not in _KEPT and unicodedata.category(char)[0] in "PZC"
        return ord(" ") if bare else point


_BARE = _Bare()


def normalized(text: str) -> str:
    """NFKC, case folded, without punctuation, single spaces."""
    return _normalized_lines(text.replace("\n", " "))


def all_normalized(texts: Sequence[str]) -> list[str]:
    """Each text `normalized`."""
    found = [""] * len(texts)
    # Text that is ASCII is much faster by itself.
    waiting: dict[bool, list[int]] = {True: [], False: []}
    num_characters = {True: 0, False: 0}
    for place, text in enumerate(texts):
        is_ascii = text.isascii()
        waiting[is_ascii].append(place)
        num_characters[is_ascii] += len(text)
        if num_characters[is_ascii] >= _BLOCK_CHARACTERS:
            _normalize(texts, waiting[is_ascii], found)
            waiting[is_ascii], num_characters[is_ascii] = [], 0
    for places in waiting.values():
        _normalize(texts, places, found)
    return found


def _normalize(texts: Sequence[str], places: Sequence[int], found: list[str]) -> None:
    lines = [texts[place].replace("\n", " ") for place in places]
    normal = _normalized_lines("\n".join(lines)).split("\n")
    for place, line in zip(places, normal, strict=False):
        found[place] = line


def _normalized_lines(text: str) -> str:
    """Every line of the text normalised."""
    bare = _BARE.replaced(_compatible(text).casefold())
    if "-" in bare:
        bare = _HYPHENS.sub(_without_lone, bare)
    while "  " in bare:
        bare = bare.replace("  ", " ")
    return bare.replace(" \n", "\n").replace("\n ", "\n").strip(" ")


def _compatible(text: str) -> str:
    """NFKC of every line. One character that it changes makes it slow for the text around it."""
    if text.isascii():
        return text
    for char, plain in _WIDE.items():
        if char in text:
            text = text.replace(char, plain)
    return "\n".join(unicodedata.normalize("NFKC", line) for line in text.split("\n"))


def _without_lone(match: re.Match[str]) -> str:
    """Hyphens, as a space where they are no sign of a number and stand between no two digits."""
    text, (start, stop) = match.string, match.span()
    num = stop - start
    before, after = text[start - 1 : start], text[stop : stop + 1]
    if not before or before.isspace():
        # A sign stays: that of "-5", and the last one of "--5".
        if not _is_digit(after):
            return " "
        return " -" if num > 1 else "-"
    first = " " if _is_letter(before) else "-"
    if not after or after.isspace() or _is_letter(after):
        return " " if num == 1 else f"{first}{'-' * (num - 2)} "
    return first + "-" * (num - 1)


def _is_digit(char: str) -> bool:
    return char.isdecimal()


def _is_letter(char: str) -> bool:
    return char.isalnum() and not char.isdecimal()


def is_dense(points: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Which code points are Han, kana or Hangul."""
    dense = (points >= 0x2E80) & (points <= 0x9FFF)
    dense |= (points >= 0xAC00) & (points <= 0xD7AF)
    dense |= (points >= 0xF900) & (points <= 0xFAFF)
    dense |= (points >= 0x20000) & (points <= 0x3FFFF)
    return dense


def weight(text: str) -> int:
    """How much a text says, in letters: Chinese says as much in a third of the characters."""
    return (
        len(text) if text.isascii() else len(text) + (DENSE_WEIGHT - 1) * len(_DENSE.findall(text))
    )
