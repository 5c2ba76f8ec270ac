"""Near-duplicate texts: character n-grams, MinHash to find candidates, exact Jaccard to decide.

    texts --shingles--> sets of hashed n-grams --signatures--> bands --candidates--> exact Jaccard

Characters and not words: Chinese has no spaces to split at. The signature is one permutation
hashing (Li, Owen, Zhang 2012) with optimal densification (Shrivastava 2017): one hash for each
n-gram instead of one for each n-gram and signature entry, all of it in numpy. datasketch's MinHash
needs 93 s for the signatures of 110,000 rows of 880 characters where this takes a few
(benchmarks/audit.py measures both).

MinHash only proposes. A pair is reported where the exact Jaccard similarity of its two sets reaches
the threshold, so every reported pair is true; one of similarity 0.6 is missed in about 1 of 80
cases, one of 0.8 practically never (1 - (1 - s**4)**32).

N-grams that stand in many of the texts (a template, an instruction, " the ") say nothing about
kinship and are left out of all sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

NGRAM_CHARACTERS = 5
DENSE_NGRAM_CHARACTERS = 3
NUM_BINS = 128
BAND_ROWS = 4
MIN_NGRAMS = 12
"""Texts with fewer distinct n-grams are not compared: two short texts are equal or they differ."""

COMMON_SHARE = 0.3
MIN_TEXTS_FOR_COMMON = 40
"""An n-gram in more than this share of the texts is left out, from this many texts on."""
_COMMON_SAMPLE = 2000

MAX_BUCKET_PAIRS = 200
"""Pairs compared for one text in one bucket of like texts."""

_BLOCK_CHARACTERS = 1 << 20
_EMPTY = np.uint32(0xFFFFFFFF)
_FILTER_BITS = 22
_NUM_KEPT_SETS = 2048


class NearPair(NamedTuple):
    """Texts `left` and `right` (their indices, left < right) and their Jaccard similarity."""

    left: int
    right: int
    similarity: float


@dataclass(frozen=True)
class NearPairs:
    """The pairs found. num_untried: candidates left untried in buckets of very many like texts."""

    pairs: list[NearPair]
    num_untried: int


def near_pairs(texts: Sequence[str], threshold: float, num_left: int | None = None) -> NearPairs:
    """All pairs of texts whose similarity reaches the threshold, by index.

    texts: normalised (see normalizing.py), without equal ones.
    num_left: only pairs between the first `num_left` texts and the others; None: all pairs.
    """
    if len(texts) < 2:
        return NearPairs([], 0)
    common = _common(texts)
    signatures, num_ngrams = _signatures(texts, common)
    enough = np.flatnonzero(num_ngrams >= MIN_NGRAMS)
    candidates, num_untried = _candidates(signatures, enough, num_left)
    estimates = _agreement(signatures, candidates)
    # The estimate's standard deviation is below 0.045; three of them below the threshold is safe.
    likely = candidates[estimates >= threshold - 0.14]

    @lru_cache(_NUM_KEPT_SETS)
    def set_of(text: int) -> U64:
        hashes, _ = _hashed_without(texts[text : text + 1], common)
        return _distinct(hashes)

    pairs = [
        NearPair(left, right, similarity)
        for left, right in likely.tolist()
        if (similarity := _jaccard(set_of(left), set_of(right))) >= threshold
    ]
    return NearPairs(pairs, num_untried)


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
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
    dense = _is_dense(code_points)
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


def _is_dense(code_points: U32) -> npt.NDArray[np.bool_]:
    dense = (code_points >= 0x2E80) & (code_points <= 0x9FFF)
    dense |= (code_points >= 0xAC00) & (code_points <= 0xD7AF)
    dense |= (code_points >= 0xF900) & (code_points <= 0xFAFF)
    dense |= (code_points >= 0x20000) & (code_points <= 0x3FFFF)
    return dense


def _slots(hashes: U64) -> I64:
    return (hashes >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)


def _common(texts: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    """By slot, the n-grams that stand in more than COMMON_SHARE of (a sample of) the texts; None
    if there are too few texts to tell."""
    if len(texts) < MIN_TEXTS_FOR_COMMON:
        return None
    sample = texts[:: max(1, len(texts) // _COMMON_SAMPLE)]
    times = np.zeros(1 << _FILTER_BITS, np.int64)
    for block in _blocks(sample):
        hashes, lengths = _hashed(block)
        owners = np.repeat(np.arange(len(block)), lengths)
        # Once for each text: the slots of a text, distinct.
        keys = _distinct(
            (owners.astype(np.uint64) << np.uint64(_FILTER_BITS)) | _slots(hashes).astype(np.uint64)
        )
        slots = (keys & np.uint64((1 << _FILTER_BITS) - 1)).astype(np.int64)
        times += np.bincount(slots, minlength=1 << _FILTER_BITS)
    common: npt.NDArray[np.bool_] = times > COMMON_SHARE * len(sample)
    return common


def _hashed_without(texts: Sequence[str], common: npt.NDArray[np.bool_] | None) -> tuple[U64, I64]:
    """As `_hashed`, the common n-grams left out."""
    hashes, lengths = _hashed(texts)
    if common is None:
        return hashes, lengths
    owners = np.repeat(np.arange(len(texts)), lengths)
    kept = ~common[_slots(hashes)]
    return hashes[kept], np.bincount(owners[kept], minlength=len(texts)).astype(np.int64)


def _signatures(texts: Sequence[str], common: npt.NDArray[np.bool_] | None) -> tuple[U32, I64]:
    """One permutation MinHash, shape (texts, NUM_BINS), and each text's number of n-grams, repeats
    included. Texts without n-grams have no minimum. A block's n-grams are in memory at a time."""
    parts = []
    counts = []
    for block in _blocks(texts):
        hashes, lengths = _hashed_without(block, common)
        flat = np.full(len(block) * NUM_BINS, _EMPTY, np.uint32)
        owners = np.repeat(np.arange(len(block)), lengths)
        bins = (hashes & np.uint64(NUM_BINS - 1)).astype(np.int64)
        values = ((hashes >> np.uint64(16)) & np.uint64(0x7FFFFFFF)).astype(np.uint32)
        np.minimum.at(flat, owners * NUM_BINS + bins, values)
        parts.append(_densified(flat.reshape(len(block), NUM_BINS)))
        counts.append(lengths)
    return np.concatenate(parts), np.concatenate(counts)


def _densified(signatures: U32) -> U32:
    """Fill every empty bin from a bin that the same fixed random order finds filled first."""
    generator = np.random.default_rng(1)
    sparse = np.flatnonzero((signatures == _EMPTY).any(axis=1) & (signatures != _EMPTY).any(axis=1))
    rows = signatures[sparse]
    result = rows.copy()
    # Each turn asks another donor for every bin; after 40 turns bins are asked one by one.
    turns = [generator.permutation(NUM_BINS) for _ in range(40)]
    turns += [np.roll(np.arange(NUM_BINS), k) for k in range(NUM_BINS)]
    for number, donors in enumerate(turns):
        empty = result == _EMPTY
        if not empty.any():
            break
        # The turn's number goes into the value: two texts agree where they borrowed alike.
        borrowed = np.where(rows[:, donors] == _EMPTY, _EMPTY, rows[:, donors] ^ np.uint32(number))
        result = np.where(empty, borrowed, result)
    signatures[sparse] = result
    return signatures


def _candidates(signatures: U32, enough: I64, num_left: int | None) -> tuple[I64, int]:
    """Pairs of texts that agree in a whole band, shape (P, 2), each once; and how many untried."""
    found: list[I64] = []
    num_untried = 0
    multipliers = np.random.default_rng(2).integers(1, 1 << 62, BAND_ROWS).astype(np.uint64) | 1
    for start in range(0, NUM_BINS, BAND_ROWS):
        band = signatures[enough, start : start + BAND_ROWS].astype(np.uint64)
        keys = (band * multipliers).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        pairs, untried = _bucket_pairs(keys[order], enough[order], num_left)
        found.append(pairs)
        num_untried += untried
    pairs = np.concatenate(found)
    width = np.int64(len(signatures))
    codes = np.unique(pairs[:, 0] * width + pairs[:, 1])
    return np.stack((codes // width, codes % width), axis=1), num_untried


def _bucket_pairs(keys: U64, members: I64, num_left: int | None) -> tuple[I64, int]:
    """Pairs inside runs of equal keys. `members` ascend within a run."""
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    sizes = np.diff(np.append(starts, len(keys)))
    pairs: list[I64] = [np.empty((0, 2), np.int64)]
    num_untried = 0
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        bucket = members[start : start + size]
        if num_left is None:
            left = right = bucket
        else:
            cut = int(np.searchsorted(bucket, num_left))
            left, right = bucket[:cut], bucket[cut:]
        if not len(left) or not len(right):
            continue
        tried = left[:MAX_BUCKET_PAIRS]
        num_untried += (len(left) - len(tried)) * len(right)
        grid = np.stack(np.meshgrid(tried, right, indexing="ij"), axis=-1).reshape(-1, 2)
        pairs.append(grid[grid[:, 0] < grid[:, 1]])
    return np.concatenate(pairs), num_untried


def _agreement(signatures: U32, pairs: I64) -> npt.NDArray[np.float64]:
    """The share of bins in which each pair agrees: an estimate of its Jaccard similarity."""
    shares = np.empty(len(pairs))
    for start in range(0, len(pairs), 1 << 15):
        block = pairs[start : start + (1 << 15)]
        shares[start : start + len(block)] = (
            signatures[block[:, 0]] == signatures[block[:, 1]]
        ).mean(axis=1)
    return shares


def _distinct(values: U64) -> U64:
    """The distinct values, sorted. Faster here than np.unique, which hashes."""
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    distinct: U64 = ordered[is_first]
    return distinct


def _jaccard(left: U64, right: U64) -> float:
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)
