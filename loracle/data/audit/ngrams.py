"""Texts as hashed character n-grams, without those of most texts.

Characters and not words: Chinese has no spaces to split at. N-grams of many texts (a template, an
instruction, " the ") say nothing about kinship: left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from loracle.data.audit.groups import I64, U64
from loracle.data.audit.normalizing import is_dense
from loracle.data.audit.texts import TextView, texts_at

Number = TypeVar("Number", np.uint64, np.int64)

NGRAM_CHARACTERS = 5
DENSE_NGRAM_CHARACTERS = 3

COMMON_SHARE = 0.3
MIN_TEXTS_FOR_COMMON = 40
"""An n-gram in more than this share of the texts is left out, from this many texts on."""
_COMMON_SAMPLE = 2000

_BLOCK_CHARACTERS = 1 << 17
_FILTER_BITS = 22


def small_blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= _BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def _hashed(texts: Sequence[str]) -> tuple[U64, I64]:
    """The n-grams' hashes and each text's number of them.

    An n-gram that begins with a dense character (Han, kana, Hangul) is DENSE_NGRAM_CHARACTERS
    long, others are NGRAM_CHARACTERS long; both lie inside one text.
    """
    joined = "".join(texts)
    code_points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    lengths = np.array([len(text) for text in texts], np.int64)
    num = len(code_points)
    remaining = np.repeat(np.cumsum(lengths), lengths) - np.arange(num)
    dense = is_dense(code_points)
    padded = np.concatenate((code_points, np.zeros(NGRAM_CHARACTERS, np.uint32))).astype(np.uint64)
    hashes = np.zeros(num, np.uint64)
    short = hashes
    for k in range(NGRAM_CHARACTERS):
        hashes = (hashes ^ padded[k : k + num]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
        if k + 1 == DENSE_NGRAM_CHARACTERS:
            short = hashes.copy()
    hashes = np.where(dense, short, hashes) * np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(32)
    kept = remaining >= np.where(dense, DENSE_NGRAM_CHARACTERS, NGRAM_CHARACTERS)
    owners = np.repeat(np.arange(len(texts)), lengths)
    return hashes[kept], np.bincount(owners[kept], minlength=len(texts)).astype(np.int64)


def _slots(hashes: U64) -> I64:
    return (hashes >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)


def common_slots(views: Sequence[TextView]) -> I64 | None:
    """The slots of n-grams that stand in more than COMMON_SHARE of (a sample of) the texts; None
    if there are too few texts to tell."""
    num_texts = sum(map(len, views))
    if num_texts < MIN_TEXTS_FOR_COMMON:
        return None
    sample = np.arange(0, num_texts, max(1, num_texts // _COMMON_SAMPLE))
    slots = []
    for block in small_blocks([text for _, text in texts_at(views, sample)]):
        hashes, lengths = _hashed(block)
        owners = np.repeat(np.arange(len(block)), lengths)
        # Once for each text: the slots of a text, distinct.
        keys = distinct(
            (owners.astype(np.uint64) << np.uint64(_FILTER_BITS)) | _slots(hashes).astype(np.uint64)
        )
        slots.append((keys & np.uint64((1 << _FILTER_BITS) - 1)).astype(np.int64))
    found, times = np.unique(np.concatenate(slots), return_counts=True)
    return found[times > COMMON_SHARE * len(sample)]


@lru_cache(2)
def _filter(slots: bytes) -> npt.NDArray[np.bool_]:
    """By slot, whether it is one of these."""
    found = np.zeros(1 << _FILTER_BITS, np.bool_)
    found[np.frombuffer(slots, np.int64)] = True
    return found


def hashed_without(texts: Sequence[str], common: I64 | None) -> tuple[U64, I64]:
    """As `_hashed`, the common n-grams left out."""
    hashes, lengths = _hashed(texts)
    if common is None or not len(common):
        return hashes, lengths
    owners = np.repeat(np.arange(len(texts)), lengths)
    kept = ~_filter(common.tobytes())[_slots(hashes)]
    return hashes[kept], np.bincount(owners[kept], minlength=len(texts)).astype(np.int64)


def distinct(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """The distinct values, sorted. Several times faster than np.unique, which hashes."""
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    found: npt.NDArray[Number] = ordered[is_first]
    return found
