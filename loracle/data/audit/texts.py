"""Normalised texts of datasets of any size: kept on disk once there are many, read by blocks.

facts of a chunk of rows --add--> TextStore     ids, hashes, lengths, weights in memory
TextStore + ids --> TextView --mapped--> what a function returns for every block of texts
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from loracle.data.audit.groups import I32, I64, U64
from loracle.data.audit.normalizing import DENSE_WEIGHT, is_dense
from loracle.data.following import Reached, tell
from loracle.data.scratch import ScratchFile
from loracle.data.workers import ALONE, Workers

Ids = npt.NDArray[np.integer[Any]]
Found = TypeVar("Found")

_NUM_TEXTS_IN_BLOCK = 4096
_MIN_TEXTS_FOR_WORKERS = 20_000
"""Fewer texts are looked through faster than they are handed on."""


def text_hash(text: str) -> int:
    """64 bits by which texts are compared; 0 for no text."""
    if not text:
        return 0
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


class PackedTexts(NamedTuple):
    """A block of texts. content: UTF-8, divided by line breaks, which normalised texts lack."""

    content: bytes
    hashes: U64
    weights: I32

    @classmethod
    def of(cls, texts: Sequence[str], hashes: Sequence[int]) -> PackedTexts:
        joined = "\n".join(texts)
        lengths = np.array([len(text) for text in texts], np.int32)
        return cls(
            joined.encode("utf-8", "surrogatepass"),
            np.array(hashes, np.uint64),
            lengths + (DENSE_WEIGHT - 1) * _num_dense(joined, lengths),
        )


def _num_dense(joined: str, lengths: I32) -> I32:
    if joined.isascii():
        return np.zeros(len(lengths), np.int32)
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    before = np.concatenate(([0], np.cumsum(is_dense(points), dtype=np.int32)))
    stops = np.cumsum(lengths + 1) - 1
    found: I32 = (before[stops] - before[stops - lengths]).astype(np.int32)
    return found


def unpacked(content: bytes) -> list[str]:
    return content.decode("utf-8", "surrogatepass").split("\n")


class _Column:
    """Numbers that become more."""

    def __init__(self, dtype: Any) -> None:
        self._numbers: npt.NDArray[Any] = np.empty(0, dtype)
        self._num = 0

    def add(self, numbers: npt.NDArray[Any]) -> None:
        num = self._num + len(numbers)
        if num > len(self._numbers):
            more = np.empty(max(num, len(self._numbers) * 5 // 4), self._numbers.dtype)
            more[: self._num] = self._numbers[: self._num]
            self._numbers = more
        self._numbers[self._num : num] = numbers
        self._num = num

    @property
    def numbers(self) -> npt.NDArray[Any]:
        return self._numbers[: self._num]


class TextStore:
    """The texts of all datasets that are compared, by number. data_bytes: about what their files
    hold."""

    def __init__(self, workers: Workers = ALONE, data_bytes: int = 0) -> None:
        self.workers = workers
        self.data_bytes = data_bytes
        self._file = ScratchFile(data_bytes)
        # Where each block begins in the file, and the id of its first text; and the end.
        self._positions, self._bases = [0], [0]
        self._hashes, self._weights = _Column(np.uint64), _Column(np.int32)

    def __len__(self) -> int:
        return self._bases[-1]

    def add(self, texts: PackedTexts) -> int:
        """Keep texts; returns the id of the first one, the others follow."""
        base = self._bases[-1]
        if len(texts.hashes):
            self._file.append(texts.content)
            self._positions.append(self._positions[-1] + len(texts.content))
            self._bases.append(base + len(texts.hashes))
            self._hashes.add(texts.hashes)
            self._weights.add(texts.weights)
        return base

    def hashes(self, ids: Ids) -> U64:
        found: U64 = self._hashes.numbers[ids]
        return found

    def weights(self, ids: Ids) -> I32:
        """How much each text says, in letters."""
        found: I32 = self._weights.numbers[ids]
        return found

    def text(self, number: int) -> str:
        """One text."""
        [(_, [text])] = self.blocks(np.array([number], np.int64))
        return text

    def blocks(self, ids: Ids) -> Iterator[tuple[I64, list[str]]]:
        """The texts of these ids by blocks, each with their places among the ids."""
        for places, content, chosen in self._packed(ids):
            texts = unpacked(content)
            yield places, [texts[number] for number in chosen.tolist()]

    def mapped(
        self, ids: Ids, function: Callable[..., Found], *arguments: Any
    ) -> Iterator[tuple[I64, Found]]:
        """What `function(texts, *arguments)` makes of every block, with the texts' places."""
        waiting: list[I64] = []

        def packed() -> Iterator[tuple[bytes, I64]]:
            for places, content, chosen in self._packed(ids):
                waiting.append(places)
                yield content, chosen

        task = partial(_of_packed, function, arguments)
        workers = self.workers if len(self) >= _MIN_TEXTS_FOR_WORKERS else ALONE
        num_done = 0
        for found in workers.map(task, packed()):
            places = waiting.pop(0)
            num_done += len(places)
            if len(self) >= _MIN_TEXTS_FOR_WORKERS:
                tell(Reached("comparing", "", len(ids), num_done, len(ids)))
            yield places, found

    def _packed(self, ids: Ids) -> Iterator[tuple[I64, bytes, I64]]:
        order = np.argsort(ids, kind="stable").astype(np.int64)
        ordered: I64 = ids[order].astype(np.int64)
        cuts = np.searchsorted(ordered, self._bases)
        for block in np.flatnonzero(np.diff(cuts)).tolist():
            start, stop = int(cuts[block]), int(cuts[block + 1])
            position = self._positions[block]
            content = self._file.read(position, self._positions[block + 1] - position)
            yield order[start:stop], content, ordered[start:stop] - self._bases[block]


def _of_packed(
    function: Callable[..., Found], arguments: Sequence[Any], task: tuple[bytes, I64]
) -> Found:
    content, chosen = task
    texts = unpacked(content)
    return function([texts[number] for number in chosen.tolist()], *arguments)


class TextView:
    """Some of a store's texts, in an order."""

    def __init__(self, store: TextStore, ids: Ids) -> None:
        self.store = store
        self.ids = ids
        self.memo: dict[object, Any] = {}
        """What was computed of all of them, by who computed it."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextView:
        """A view of texts that are in memory."""
        store = TextStore()
        for start in range(0, len(texts), _NUM_TEXTS_IN_BLOCK):
            block = texts[start : start + _NUM_TEXTS_IN_BLOCK]
            store.add(PackedTexts.of(block, [0] * len(block)))
        return cls(store, np.arange(len(texts)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> str:
        return self.store.text(int(self.ids[place]))


def texts_at(views: Sequence[TextView], places: I64) -> Iterator[tuple[int, str]]:
    """The texts at places counted through the views."""
    first = 0
    for view in views:
        own = places[(places >= first) & (places < first + len(view))]
        for at, block in view.store.blocks(view.ids[own - first]):
            yield from zip(own[at].tolist(), block, strict=True)
        first += len(view)
