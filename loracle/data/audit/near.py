"""Near-duplicate texts: character n-grams, MinHash to find candidates, exact Jaccard to decide.

    texts --signatures.py--> bands --candidates--> sketches agree --> exact Jaccard

MinHash only proposes. A pair is reported where the exact Jaccard similarity of its two sets reaches
the threshold, so every reported pair is true; one of similarity 0.6 is missed in about 1 of 80
cases, one of 0.8 practically never (1 - (1 - s**4)**32).

Pairs that agree in a band by chance grow with the square of the texts; their sketches rule out
practically all of them before a text is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loracle.data.audit.groups import I64, U64
from loracle.data.audit.ngrams import common_slots, distinct, hashed_without
from loracle.data.audit.signatures import NUM_BANDS, NUM_BINS, U8, Signed, signatures_of
from loracle.data.audit.texts import TextView, texts_at

MAX_BUCKET_PAIRS = 200
"""Pairs compared for one text in one bucket of like texts."""
MAX_PAIRS_IN_BUCKET = 1 << 20
"""Of all its texts together; fewer for one text where the bucket is larger than that allows."""

# The estimate's standard deviation is below 0.045; three of them below the threshold is safe.
_SLACK = 0.14
_BATCH_PAIRS = 1 << 14
_STRETCH_TEXTS = 1 << 17
_NUM_TEXTS_AT_ONCE = 128
_KEY_FILTER_BITS = 16
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
    common = common_slots(views)
    signed = [Signed.of(view, common) for view in views]
    candidates, num_untried = _candidates(signed, None if others is None else len(texts))
    likely = _likely(signed, candidates, list(map(len, views)), threshold)
    pairs: list[NearPair] = []
    for start in range(0, len(likely), _BATCH_PAIRS):
        batch = likely[start : start + _BATCH_PAIRS]
        pairs += _similar(views, batch, common, threshold)
    return NearPairs(pairs, num_untried)


def _similar(
    views: Sequence[TextView], pairs: I64, common: I64 | None, threshold: float
) -> list[NearPair]:
    """The pairs whose similarity reaches the threshold."""
    places, at = np.unique(pairs, return_inverse=True)
    at = at.reshape(pairs.shape)
    texts = dict(texts_at(views, places))
    signatures = np.concatenate(
        [
            signatures_of([texts[place] for place in block.tolist()], common)[0]
            for block in np.array_split(places, max(1, len(places) // _NUM_TEXTS_AT_ONCE))
        ]
    )
    estimates = (signatures[at[:, 0]] == signatures[at[:, 1]]).mean(axis=1)

    @lru_cache(_NUM_KEPT_SETS)
    def set_of(place: int) -> U64:
        hashes, _ = hashed_without([texts[place]], common)
        return distinct(hashes)

    likely = pairs[estimates >= threshold - _SLACK]
    return [
        NearPair(left, right, similarity)
        for left, right in likely.tolist()
        if (similarity := _jaccard(set_of(left), set_of(right))) >= threshold
    ]


def _likely(
    signed: Sequence[Signed], candidates: I64, sizes: Sequence[int], threshold: float
) -> I64:
    """The candidates whose sketches agree in as many bytes as the threshold needs, in order.

    Sketches are read by stretches, each pair of stretches once. sizes: of the views.
    """
    numbers = _numbers_of(signed, sizes)[candidates]
    stretches = numbers // _STRETCH_TEXTS
    order = np.lexsort((stretches[:, 1], stretches[:, 0]))
    is_likely = np.zeros(len(candidates), np.bool_)

    @lru_cache(2)
    def stretch_of(side: int, stretch: int) -> U8:
        return signed[side].sketches(stretch * _STRETCH_TEXTS, _STRETCH_TEXTS)

    for chosen in _runs(order, stretches):
        left, right = (
            stretch_of(side, int(stretches[chosen[0], column]))
            for column, side in ((0, 0), (1, len(signed) - 1))
        )
        for start in range(0, len(chosen), _BATCH_PAIRS):
            batch = chosen[start : start + _BATCH_PAIRS]
            at = numbers[batch] % _STRETCH_TEXTS
            agreeing = (left[at[:, 0]] == right[at[:, 1]]).sum(axis=1, dtype=np.int64)
            is_likely[batch] = agreeing / NUM_BINS >= threshold - _SLACK
    return candidates[is_likely]


def _numbers_of(signed: Sequence[Signed], sizes: Sequence[int]) -> I64:
    """By place, counted through the views: the text's number among the signed ones of its view."""
    numbers = np.full(sum(sizes), -1, np.int64)
    first = 0
    for one, size in zip(signed, sizes, strict=True):
        places = one.places
        numbers[places + first] = np.arange(len(places))
        first += size
    return numbers


def _runs(order: I64, values: I64) -> Iterator[I64]:
    """The order cut where the values change."""
    ordered = values[order]
    cuts = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
    return (run for run in np.split(order, cuts) if len(run))


def _candidates(signed: Sequence[Signed], num_left: int | None) -> tuple[I64, int]:
    """Pairs of texts that agree in a whole band, shape (P, 2), each once; and how many untried."""
    places = [one.places for one in signed]
    found = np.empty(0, np.int64)
    num_untried = 0
    for band in range(NUM_BANDS):
        keys = [one.keys(band) for one in signed]
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
            found = distinct(np.concatenate((found, (pairs[:, 0] << 32) + pairs[:, 1])))
    return np.stack((found >> 32, found & 0xFFFFFFFF), axis=1), num_untried


def _shared_keys(keys: Sequence[U64]) -> U64:
    """The keys, ascending, that two texts may have: of one set twice, of two sets in the second."""
    if len(keys) > 1:
        return distinct(keys[1])
    ordered = np.sort(keys[0])
    return distinct(ordered[1:][ordered[1:] == ordered[:-1]])


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
    # Most buckets hold two texts.
    twos = starts[sizes == 2]
    of_two = np.stack((members[twos], members[twos + 1]), axis=1)
    if num_left is not None:
        of_two = of_two[(of_two[:, 0] < num_left) & (of_two[:, 1] >= num_left)]
    pairs = [of_two]
    num_untried = 0
    for start, size in zip(starts[sizes > 2].tolist(), sizes[sizes > 2].tolist(), strict=True):
        bucket = members[start : start + size]
        cut = len(bucket) if num_left is None else int(np.searchsorted(bucket, num_left))
        left, right = bucket[:cut], bucket if num_left is None else bucket[cut:]
        if not len(left) or not len(right):
            continue
        num_tried = max(1, min(MAX_BUCKET_PAIRS, MAX_PAIRS_IN_BUCKET // len(right)))
        tried = left[:num_tried]
        num_untried += (len(left) - len(tried)) * len(right)
        grid = np.stack((np.repeat(tried, len(right)), np.tile(right, len(tried))), axis=1)
        pairs.append(grid[grid[:, 0] < grid[:, 1]])
    return np.concatenate(pairs), num_untried


def _jaccard(left: U64, right: U64) -> float:
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)
