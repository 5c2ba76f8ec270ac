"""The ids and groups of rows: those they bring, and those that are made where they bring none.

A row without a usable id of its own is called STEM-N, N being its number from 1. No row is lost
for its id: one that cannot be used, or that another row has, is replaced and counted.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b

from loracle.data.faults import Faults, checked_text, kind_of, show
from loracle.data.reading.notes import NoteKind, Notes
from loracle.data.reading.row_content import RowValue, as_text, is_blank

_IDS = NoteKind("id that repeats or cannot be used", "ids that repeat or cannot be used")
_GROUPS = NoteKind("group that cannot be used", "groups that cannot be used")


class Identities:
    """Gives every row of a reading an id that no other has."""

    def __init__(self, stem: str, notes: Notes) -> None:
        self._stem = stem
        self._notes = notes
        self._ids = _SeenIds()

    def id_of(self, row: RowValue, number: int, where: str) -> str:
        """The id of row number `number`, at `where`."""
        name = self.own_id(row, where)
        if name is not None:
            if (first := self._ids.find_or_add(name, number)) is None:
                return name
            detail = f"id {show(name)} is also row {first:,}"
            self._notes.add(_IDS, where, detail, "such rows are named STEM-N instead")
        made = name = f"{self._stem}-{number}"
        copy = 1
        while self._ids.find_or_add(made, number) is not None:
            copy += 1
            made = f"{name}-{copy}"
        return made

    def own_id(self, row: RowValue, where: str) -> str | None:
        """The id that a row brings; None where it has no usable one."""
        return self._own(row, "id", where, _IDS, "such rows are named STEM-N instead")

    def group_of(self, row: RowValue, where: str) -> str | None:
        """The group that a row names, as text."""
        return self._own(row, "group", where, _GROUPS, "such rows count as having no group")

    def _own(self, row: RowValue, key: str, where: str, kind: NoteKind, outcome: str) -> str | None:
        value = row.get(key)
        if is_blank(value):
            return None
        faults = Faults()
        text = checked_text(as_text(value), key, faults)
        if text is None:
            self._notes.add(kind, where, f"{key} is {kind_of(value)}", outcome)
        return text


class OwnIdentities(Identities):
    """The ids that rows bring, "" for the others: of a part of a dataset, which does not know the
    ids of the other parts.

    hashes: of the ids. has_made_like: whether one is like those that are made.
    """

    def __init__(self, stem: str, notes: Notes) -> None:
        super().__init__(stem, notes)
        self.hashes = array("Q")
        self.has_made_like = False

    def id_of(self, row: RowValue, number: int, where: str) -> str:
        name = self.own_id(row, where)
        if name is None:
            return ""
        self.hashes.append(_hash_of(name))
        self.has_made_like |= name.startswith(f"{self._stem}-")
        return name


def _hash_of(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") or 1


class _SeenIds:
    """Which ids were given, in at most 64 bytes each: a hash table of their 64-bit hashes.

    Two different ids are taken for one with a chance below 1 in 10^6 for 5 million ids.
    """

    def __init__(self) -> None:
        self._slots = 2**10
        self._hashes = array("Q", bytes(8 * self._slots))
        self._numbers = array("Q", bytes(8 * self._slots))
        self._num_ids = 0

    def find_or_add(self, name: str, number: int) -> int | None:
        """The number of the row that had the id before, else None and the id is kept."""
        if 2 * self._num_ids >= self._slots:
            self._grow()
        key = _hash_of(name)
        slot = self._slot_of(key)
        if self._hashes[slot] == key:
            return self._numbers[slot]
        self._hashes[slot], self._numbers[slot] = key, number
        self._num_ids += 1
        return None

    def _slot_of(self, key: int) -> int:
        slot = key % self._slots
        while self._hashes[slot] not in (0, key):
            slot = (slot + 1) % self._slots
        return slot

    def _grow(self) -> None:
        old = [(key, row) for key, row in zip(self._hashes, self._numbers, strict=True) if key]
        self._slots *= 2
        self._hashes = array("Q", bytes(8 * self._slots))
        self._numbers = array("Q", bytes(8 * self._slots))
        for key, row in old:
            slot = self._slot_of(key)
            self._hashes[slot], self._numbers[slot] = key, row
