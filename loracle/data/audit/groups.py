"""Rows by what they share: numbers in place of texts, arrays in place of dictionaries of lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Groups:
    """G groups of rows, in the order of their first members.

    keys: (G,), what the rows of a group share. firsts: (G,), the place of a group's first member
    among the members that were grouped. offsets: (G + 1,). rows: ascending within a group.
    """

    keys: U64
    firsts: I32
    offsets: I32
    rows: I32
    _by_key: I32

    @classmethod
    def of(cls, keys: U64, rows: npt.NDArray[np.integer[Any]]) -> Groups:
        """Group the members (key, row), whose rows ascend."""
        order = np.argsort(keys, kind="stable").astype(np.int32)
        ordered = keys[order]
        is_first = np.ones(len(keys), np.bool_)
        is_first[1:] = ordered[1:] != ordered[:-1]
        starts = np.flatnonzero(is_first).astype(np.int32)
        distinct = ordered[starts]
        del ordered
        sizes = np.diff(np.append(starts, len(keys))).astype(np.int32)
        firsts = order[starts]
        by_first = np.argsort(firsts, kind="stable").astype(np.int32)
        offsets = np.concatenate(([0], np.cumsum(sizes[by_first]))).astype(np.int32)
        # The members of every group, moved to the group's present place.
        moved = np.repeat(starts[by_first] - offsets[:-1], sizes[by_first])
        moved += np.arange(len(keys), dtype=np.int32)
        at = np.empty(len(distinct), np.int32)
        at[by_first] = np.arange(len(distinct), dtype=np.int32)
        members = rows[order[moved]].astype(np.int32)
        return cls(distinct[by_first], firsts[by_first], offsets, members, at)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, group: int) -> list[int]:
        """The rows of a group."""
        found: list[int] = self.rows[self.offsets[group] : self.offsets[group + 1]].tolist()
        return found

    def __iter__(self) -> Iterator[list[int]]:
        return (self[group] for group in range(len(self)))

    @property
    def sizes(self) -> I32:
        """How many rows each group has."""
        sizes: I32 = np.diff(self.offsets)
        return sizes

    def several(self) -> Iterator[list[int]]:
        """The groups of two rows and more."""
        return (self[group] for group in np.flatnonzero(self.sizes > 1).tolist())

    def find(self, keys: U64) -> I64:
        """The group of every key, -1 if it has none."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int64)
        ordered = self.keys[self._by_key]
        at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
        return np.where(ordered[at] == keys, self._by_key[at], -1).astype(np.int64)
