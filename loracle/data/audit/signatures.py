"""What n-gram sets agree in: bands, which like texts share whole, and sketches to tell the rest.

    texts --signatures_of--> (texts, NUM_BINS) --> keys of 32 bands, a sketch of NUM_BINS bytes

The signature is one permutation hashing (Li, Owen, Zhang 2012) with optimal densification
(Shrivastava 2017): one hash for each n-gram instead of one for each n-gram and signature entry, all
of it in numpy. A sketch has the last byte of every bin: two texts agree in at least as many bytes
as in bins, so that sketches never rule out a pair that the signatures would not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loracle.data.audit.groups import I32, I64, U64
from loracle.data.audit.ngrams import hashed_without, small_blocks
from loracle.data.audit.texts import TextView
from loracle.data.scratch import ScratchFile

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]

NUM_BINS = 128
BAND_ROWS = 4
NUM_BANDS = NUM_BINS // BAND_ROWS
MIN_NGRAMS = 12
"""Texts with fewer distinct n-grams are not compared: two short texts are equal or they differ."""

_EMPTY = np.uint32(0xFFFFFFFF)


def signatures_of(texts: Sequence[str], common: I64 | None) -> tuple[U32, I64]:
    """One permutation MinHash, shape (texts, NUM_BINS), and each text's number of n-grams, repeats
    included. A text with fewer than MIN_NGRAMS has empty bins."""
    hashes, lengths = hashed_without(texts, common)
    flat = np.full(len(texts) * NUM_BINS, _EMPTY, np.uint32)
    owners = np.repeat(np.arange(len(texts)), lengths)
    bins = (hashes & np.uint64(NUM_BINS - 1)).astype(np.int64)
    values = ((hashes >> np.uint64(16)) & np.uint64(0x7FFFFFFF)).astype(np.uint32)
    np.minimum.at(flat, owners * NUM_BINS + bins, values)
    signatures = flat.reshape(len(texts), NUM_BINS)
    _densify(signatures, lengths >= MIN_NGRAMS)
    return signatures, lengths


class Signed:
    """Texts by their signatures, of those with enough n-grams to be compared; on disk once there
    are many, since a band is looked at by itself, and sketches by stretches."""

    def __init__(self, data_bytes: int) -> None:
        self._keys, self._sketches = ScratchFile(data_bytes), ScratchFile(data_bytes)
        self._places: list[I32] = []

    @classmethod
    def of(cls, view: TextView, common: I64 | None) -> Signed:
        """A view's signatures; the last ones asked for are remembered."""
        key = (cls, None if common is None else common.tobytes())
        if key not in view.memo:
            view.memo.clear()
            signed = cls(view.store.data_bytes)
            for places, found in view.store.mapped(view.ids, _signed_block, common):
                signed.add(places, *found)
            view.memo[key] = signed
        found_before: Signed = view.memo[key]
        return found_before

    def add(self, places: I64, keys: U64, sketches: U8, num_ngrams: I64) -> None:
        """Add texts. keys: shape (NUM_BANDS, texts), equal where two texts agree in a band.
        sketches: shape (texts, NUM_BINS)."""
        enough = num_ngrams >= MIN_NGRAMS
        self._places.append(places[enough].astype(np.int32))
        self._keys.append(keys[:, enough].tobytes())
        self._sketches.append(sketches[enough].tobytes())

    @property
    def places(self) -> I64:
        """The texts, in the order of a band's keys."""
        return np.concatenate([np.empty(0, np.int64), *self._places])

    def keys(self, band: int) -> U64:
        """One key for each text."""
        parts, start = [], 0
        for places in self._places:
            num_bytes = 8 * len(places)
            parts.append(self._keys.read(start + band * num_bytes, num_bytes))
            start += NUM_BANDS * num_bytes
        return np.frombuffer(b"".join(parts), np.uint64)

    def sketches(self, start: int, num: int) -> U8:
        """The sketches of at most `num` texts, in the order of `places`; shape (n, NUM_BINS)."""
        content = self._sketches.read(start * NUM_BINS, num * NUM_BINS)
        return np.frombuffer(content, np.uint8).reshape(-1, NUM_BINS)


def _signed_block(texts: Sequence[str], common: I64 | None) -> tuple[U64, U8, I64]:
    """The keys of every text's bands, its sketch and its number of n-grams."""
    keys, sketches, counts = [], [], []
    for block in small_blocks(texts):
        signatures, lengths = signatures_of(block, common)
        bands = signatures.astype(np.uint64).reshape(len(block), -1, BAND_ROWS)
        keys.append((bands * _MULTIPLIERS).sum(axis=2, dtype=np.uint64).T)
        sketches.append(signatures.astype(np.uint8))
        counts.append(lengths)
    return np.concatenate(keys, axis=1), np.concatenate(sketches), np.concatenate(counts)


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
