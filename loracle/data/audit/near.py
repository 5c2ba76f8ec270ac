"""Near-duplicate texts: character n-grams, MinHash to find candidates, exact Jaccard to decide.

    texts --shingles--> sets of hashed n-grams --signatures--> bands --candidates--> exact Jaccard

Characters and not words: Chinese has no spaces to split at. The signature is one permutation
hashing (Li, Owen, Zhang 2012) with optimal densification (Shrivastava 2017): one hash for each
n-gram instead of one for each n-gram and signature entry, all of it in numpy.

MinHash only proposes. A pair is reported where the exact Jaccard similarity of its two sets reaches
the threshold, so every reported pair is true; one of similarity 0.6 is missed in about 1 of 80
cases, one of 0.8 practically never (1 - (1 - s**4)**32).

N-grams of many texts (a template, an instruction, " the ") say nothing about kinship: left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loracle.data.audit.groups import I32, I64, U64
from loracle.data.audit.normalizing import is_dense
from loracle.data.audit.texts import TextView

U32 = npt.NDArray[np.uint32]

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

_BLOCK_CHARACTERS = 1 << 17
_BATCH_PAIRS = 1 << 15
_NUM_TEXTS_AT_ONCE = 128
_EMPTY = np.uint32(0xFFFFFFFF)
_FILTER_BITS = 22
_KEY_FILTER_BITS = 16
_MAX_BYTES_IN_MEMORY = 1 << 24
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
    if num_left is None:
        return near_texts(TextView.of(texts), threshold)
    return near_texts(TextView.of(texts[:num_left]), threshold, TextView.of(texts[num_left:]))


def near_texts(texts: TextView, threshold: float, others: TextView | None = None) -> NearPairs:
    """As `near_pairs`, of texts in a store.

    others: only pairs between `texts` and these, which are counted behind them; None: all pairs.
    """
    views = [texts] if others is None else [texts, others]
    num_texts = sum(map(len, views))
    if num_texts < 2 or not all(map(len, views)):
        return NearPairs([], 0)
    common = _common(views)
    banded = [_banded(view, common) for view in views]
    candidates, num_untried = _candidates(banded, None if others is None else len(texts))
    pairs: list[NearPair] = []
    for start in range(0, len(candidates), _BATCH_PAIRS):
        batch = candidates[start : start + _BATCH_PAIRS]
        pairs += _similar(views, batch, common, threshold)
    return NearPairs(pairs, num_untried)


def _similar(
    views: Sequence[TextView], pairs: I64, common: I64 | None, threshold: float
) -> list[NearPair]:
    """The pairs whose similarity reaches the threshold."""
    places, at = np.unique(pairs, return_inverse=True)
    at = at.reshape(pairs.shape)
    texts = dict(_texts_at(views, places))
    signatures = np.concatenate(
        [
            _signatures([texts[place] for place in block.tolist()], common)[0]
            for block in np.array_split(places, max(1, len(places) // _NUM_TEXTS_AT_ONCE))
        ]
    )
    estimates = (signatures[at[:, 0]] == signatures[at[:, 1]]).mean(axis=1)

    @lru_cache(_NUM_KEPT_SETS)
    def set_of(place: int) -> U64:
        hashes, _ = _hashed_without([texts[place]], common)
        return _distinct(hashes)

    # The estimate's standard deviation is below 0.045; three of them below the threshold is safe.
    likely = pairs[estimates >= threshold - 0.14]
    return [
        NearPair(left, right, similarity)
        for left, right in likely.tolist()
        if (similarity := _jaccard(set_of(left), set_of(right))) >= threshold
    ]


def _texts_at(views: Sequence[TextView], places: I64) -> Iterator[tuple[int, str]]:
    """The texts at places counted through the views."""
    first = 0
    for view in views:
        own = places[(places >= first) & (places < first + len(view))]
        for at, block in view.store.blocks(view.ids[own - first]):
            yield from zip(own[at].tolist(), block, strict=True)
        first += len(view)


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
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


def _common(views: Sequence[TextView]) -> I64 | None:
    """The slots of n-grams that stand in more than COMMON_SHARE of (a sample of) the texts; None
    if there are too few texts to tell."""
    num_texts = sum(map(len, views))
    if num_texts < MIN_TEXTS_FOR_COMMON:
        return None
    sample = np.arange(0, num_texts, max(1, num_texts // _COMMON_SAMPLE))
    slots = []
    for block in _blocks([text for _, text in _texts_at(views, sample)]):
        hashes, lengths = _hashed(block)
        owners = np.repeat(np.arange(len(block)), lengths)
        # Once for each text: the slots of a text, distinct.
        keys = _distinct(
            (owners.astype(np.uint64) << np.uint64(_FILTER_BITS)) | _slots(hashes).astype(np.uint64)
        )
        slots.append((keys & np.uint64((1 << _FILTER_BITS) - 1)).astype(np.int64))
    distinct, times = np.unique(np.concatenate(slots), return_counts=True)
    return distinct[times > COMMON_SHARE * len(sample)]


@lru_cache(2)
def _filter(slots: bytes) -> npt.NDArray[np.bool_]:
    """By slot, whether it is one of these."""
    found = np.zeros(1 << _FILTER_BITS, np.bool_)
    found[np.frombuffer(slots, np.int64)] = True
    return found


def _hashed_without(texts: Sequence[str], common: I64 | None) -> tuple[U64, I64]:
    """As `_hashed`, the common n-grams left out."""
    hashes, lengths = _hashed(texts)
    if common is None or not len(common):
        return hashes, lengths
    owners = np.repeat(np.arange(len(texts)), lengths)
    kept = ~_filter(common.tobytes())[_slots(hashes)]
    return hashes[kept], np.bincount(owners[kept], minlength=len(texts)).astype(np.int64)


def _signatures(texts: Sequence[str], common: I64 | None) -> tuple[U32, I64]:
    """One permutation MinHash, shape (texts, NUM_BINS), and each text's number of n-grams, repeats
    included. A text with fewer than MIN_NGRAMS has empty bins."""
    hashes, lengths = _hashed_without(texts, common)
    flat = np.full(len(texts) * NUM_BINS, _EMPTY, np.uint32)
    owners = np.repeat(np.arange(len(texts)), lengths)
    bins = (hashes & np.uint64(NUM_BINS - 1)).astype(np.int64)
    values = ((hashes >> np.uint64(16)) & np.uint64(0x7FFFFFFF)).astype(np.uint32)
    np.minimum.at(flat, owners * NUM_BINS + bins, values)
    signatures = flat.reshape(len(texts), NUM_BINS)
    _densify(signatures, lengths >= MIN_NGRAMS)
    return signatures, lengths


class Banded:
    """Texts by their signatures' bands, of those with enough n-grams to be compared; on disk once
    there are many, since a band is looked at by itself."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_MAX_BYTES_IN_MEMORY)  # noqa: SIM115
        self._places: list[I32] = []

    def add(self, places: I64, keys: U64, num_ngrams: I64) -> None:
        """Add texts. keys: shape (bands, texts), equal where two texts agree in a band."""
        enough = num_ngrams >= MIN_NGRAMS
        self._places.append(places[enough].astype(np.int32))
        self._file.write(keys[:, enough].tobytes())

    @property
    def places(self) -> I64:
        """The texts, in the order of a band's keys."""
        return np.concatenate([np.empty(0, np.int64), *self._places])

    def keys(self, band: int) -> U64:
        """One key for each text."""
        parts, start = [], 0
        for places in self._places:
            num_bytes = 8 * len(places)
            self._file.seek(start + band * num_bytes)
            parts.append(self._file.read(num_bytes))
            start += NUM_BINS // BAND_ROWS * num_bytes
        return np.frombuffer(b"".join(parts), np.uint64)


def _banded(view: TextView, common: I64 | None) -> Banded:
    """A view's bands; the last ones asked for are remembered."""
    key = (_banded, None if common is None else common.tobytes())
    if key not in view.memo:
        view.memo.clear()
        banded = Banded()
        for places, (keys, num_ngrams) in view.store.mapped(view.ids, _bands_of, common):
            banded.add(places, keys, num_ngrams)
        view.memo[key] = banded
    found: Banded = view.memo[key]
    return found


def _bands_of(texts: Sequence[str], common: I64 | None) -> tuple[U64, I64]:
    """The keys of every text's bands, shape (bands, texts), and its number of n-grams."""
    keys, counts = [], []
    for block in _blocks(texts):
        signatures, lengths = _signatures(block, common)
        bands = signatures.astype(np.uint64).reshape(len(block), -1, BAND_ROWS)
        keys.append((bands * _MULTIPLIERS).sum(axis=2, dtype=np.uint64).T)
        counts.append(lengths)
    return np.concatenate(keys, axis=1), np.concatenate(counts)


def _densify(signatures: U32, wanted: npt.NDArray[np.bool_]) -> None:
    """Fill every empty bin from a bin that the same fixed random order finds filled first."""
    sparse = np.flatnonzero(wanted & (signatures == _EMPTY).any(axis=1))
    rows = signatures[sparse]
    texts, bins = np.nonzero(rows == _EMPTY)
    for number, donors in enumerate(_TURNS):
        if not len(texts):
            break
        # The turn's number goes into the value: two texts agree where they borrowed alike.
        borrowed = rows[texts, donors[bins]]
        has_found = borrowed != _EMPTY
        signatures[sparse[texts[has_found]], bins[has_found]] = borrowed[has_found] ^ np.uint32(
            number
        )
        texts, bins = texts[~has_found], bins[~has_found]


def _turns() -> list[I64]:
    """Each turn asks another donor for every bin; after 40 turns bins are asked one by one."""
    generator = np.random.default_rng(1)
    drawn = [generator.permutation(NUM_BINS) for _ in range(40)]
    return [*drawn, *(np.roll(np.arange(NUM_BINS), k) for k in range(NUM_BINS))]


_TURNS = _turns()
_MULTIPLIERS = np.random.default_rng(2).integers(1, 1 << 62, BAND_ROWS).astype(np.uint64) | 1


def _candidates(banded: Sequence[Banded], num_left: int | None) -> tuple[I64, int]:
    """Pairs of texts that agree in a whole band, shape (P, 2), each once; and how many untried."""
    places = [one.places for one in banded]
    found = np.empty(0, np.int64)
    num_untried = 0
    for band in range(NUM_BINS // BAND_ROWS):
        keys = [one.keys(band) for one in banded]
        # Of very many keys few stand in two places: only those need an order.
        shared = _shared_keys(keys)
        chosen = [np.flatnonzero(_is_among(own, shared)) for own in keys]
        texts = [own[at] for own, at in zip(places, chosen, strict=True)]
        if num_left is not None:
            texts[1] = texts[1] + num_left
        members = np.concatenate(texts)
        member_keys = np.concatenate([own[at] for own, at in zip(keys, chosen, strict=True)])
        order = np.lexsort((members, member_keys))
        pairs, untried = _bucket_pairs(member_keys[order], members[order], num_left)
        num_untried += untried
        if len(pairs):
            found = np.unique(np.concatenate((found, (pairs[:, 0] << 32) + pairs[:, 1])))
    return np.stack((found >> 32, found & 0xFFFFFFFF), axis=1), num_untried


def _shared_keys(keys: Sequence[U64]) -> U64:
    """The keys, ascending, that two texts may have: of one set twice, of two sets in the second."""
    if len(keys) > 1:
        return np.unique(keys[1])
    ordered = np.sort(keys[0])
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _is_among(keys: U64, wanted: U64) -> npt.NDArray[np.bool_]:
    """Whether each key is one of those that ascend."""
    if not len(wanted):
        return np.zeros(len(keys), np.bool_)
    # Most are told apart by a few bits of theirs.
    shift = np.uint64(64 - _KEY_FILTER_BITS)
    may_be = np.zeros(1 << _KEY_FILTER_BITS, np.bool_)
    may_be[(wanted >> shift).astype(np.int64)] = True
    found = may_be[(keys >> shift).astype(np.int64)]
    places = np.flatnonzero(found)
    at = np.minimum(np.searchsorted(wanted, keys[places]), len(wanted) - 1)
    found[places] = wanted[at] == keys[places]
    return found


def _bucket_pairs(keys: U64, members: I64, num_left: int | None) -> tuple[I64, int]:
    """Pairs inside runs of equal keys. `members` ascend within a run."""
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)])
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
