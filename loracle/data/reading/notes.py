"""What was done with rows that stay: counted by kind, with the first place for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from loracle.text import counted


class NoteKind(NamedTuple):
    """What a note is of, as its count is read: 1 `one`, 2 `several`."""

    one: str
    several: str


class Note(NamedTuple):
    """message: what was found, how often, and where first. outcome: what was done, or what to do.
    is_warning: whether it may change what is learned."""

    message: str
    outcome: str
    is_warning: bool

    def __str__(self) -> str:
        return f"{self.message}; {self.outcome}"


@dataclass
class _Noted:
    one: str
    first: str
    outcome: str
    is_warning: bool
    count: int = 0


class Notes:
    """Grows with the rows of a reading."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Noted] = {}

    def add(
        self, kind: NoteKind, where: str, detail: str, outcome: str, *, is_warning: bool = False
    ) -> None:
        """Count one more of a kind."""
        noted = _Noted(kind.one, f"{where}: {detail}", outcome, is_warning)
        known = self._kinds.setdefault(kind.several, noted)
        known.count += 1

    def take(self, later: Notes) -> None:
        """Count what was noted of the rows that follow."""
        for several, found in later._kinds.items():
            known = self._kinds.setdefault(several, found)
            if known is not found:
                known.count += found.count

    def __iter__(self) -> Iterator[Note]:
        for several, found in self._kinds.items():
            message = f"{counted(found.count, found.one, several)} ({found.first})"
            yield Note(message, found.outcome, found.is_warning)
