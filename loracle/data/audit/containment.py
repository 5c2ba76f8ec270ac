"""Which of many texts contain which of many others, in time linear in both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from loracle.data.audit.normalizing import weight
from loracle.data.audit.texts import TextView

KEY_CHARACTERS = 8
"""Needles are found by their first characters; shorter ones are not looked for."""
_FILTER_BITS = 16
_SLOT = np.uint64((1 << _FILTER_BITS) - 1)


class Occurrence(NamedTuple):
    """`texts[text]` contains `needles[needle]`."""

    needle: int
    text: int


def occurrences(needles: Sequence[str], texts: TextView) -> list[Occurrence]:
    """Every needle in every text, as whole words where its script has spaces between them."""
    wanted = [needle if len(needle) >= KEY_CHARACTERS else "" for needle in needles]
    if not any(wanted):
        return []
    found: set[Occurrence] = set()
    for places, block in texts.store.mapped(texts.ids, _occurrences, wanted):
        found.update(Occurrence(needle, int(places[text])) for needle, text in block)
    return sorted(found)


def _occurrences(texts: Sequence[str], needles: Sequence[str]) -> set[Occurrence]:
    by_key: dict[str, list[int]] = defaultdict(list)
    for index, needle in enumerate(needles):
        if needle:
            by_key[needle[:KEY_CHARACTERS]].append(index)
    found: set[Occurrence] = set()
    for text, position in _positions(list(by_key), texts):
        whole = texts[text]
        for index in by_key.get(whole[position : position + KEY_CHARACTERS], ()):
            if whole.startswith(needles[index], position) and _is_word(
                whole, position, needles[index]
            ):
                found.add(Occurrence(index, text))
    return found


def contains(text: str, needle: str) -> bool:
    """Whether a text contains a needle, as whole words where its script has spaces."""
    position = text.find(needle)
    while position >= 0:
        if _is_word(text, position, needle):
            return True
        position = text.find(needle, position + 1)
    return False


def _positions(keys: Sequence[str], texts: Sequence[str]) -> list[tuple[int, int]]:
    """(text, position) where one of the keys may begin: their hash stands there."""
    wanted = np.sort(_hashes("".join(keys))[::KEY_CHARACTERS])
    lengths = np.array([len(text) for text in texts], np.int64)
    ends = np.cumsum(lengths)
    hashes = _hashes("".join(texts))
    # Most places are told apart by a few bits of their hash.
    slots = np.zeros(1 << _FILTER_BITS, np.bool_)
    slots[wanted & _SLOT] = True
    places = np.flatnonzero(slots[hashes & _SLOT])
    at = np.searchsorted(wanted, hashes[places])
    hits = places[wanted[np.minimum(at, len(wanted) - 1)] == hashes[places]]
    owners = np.searchsorted(ends, hits, side="right")
    return list(zip(owners.tolist(), (hits - ends[owners] + lengths[owners]).tolist(), strict=True))


def _hashes(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """The hash of the KEY_CHARACTERS characters from every position on."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    num = len(points) - KEY_CHARACTERS + 1
    hashes = np.zeros(max(num, 0), np.uint64)
    for k in range(KEY_CHARACTERS):
        hashes = (hashes ^ points[k : k + len(hashes)]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _is_word(text: str, position: int, needle: str) -> bool:
    """Whether no letter is cut off from what stands there; dense scripts have no such borders."""
    end = position + len(needle)
    before = position == 0 or _is_border(text[position - 1], needle[0])
    return before and (end == len(text) or _is_border(text[end], needle[-1]))


def _is_border(outside: str, inside: str) -> bool:
    return not (outside.isalnum() and inside.isalnum()) or weight(outside + inside) > 2
