"""What was done with rows that stay: counted by kind, with the first place for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Note(NamedTuple):
    """message: what was found, how often, and where first. outcome: what was done, or what to do.
    is_warning: whether it may change what is learned."""

    message: str
    outcome: str
    is_warning: bool

    def __str__(self) -> str:
        return f"{self.message}; {self.outcome}"


@dataclass
class _Kind:
    first: str
    outcome: str
    is_warning: bool
    count: int = 0


class Notes:
    """Grows with the rows of a reading."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(
        self, kind: str, where: str, detail: str, outcome: str, *, is_warning: bool = False
    ) -> None:
        """Count one more of a kind."""
        known = self._kinds.setdefault(kind, _Kind(f"{where}: {detail}", outcome, is_warning))
        known.count += 1

    def take(self, later: Notes) -> None:
        """Count what was noted of the rows that follow."""
        for kind, found in later._kinds.items():
            known = self._kinds.setdefault(kind, found)
            if known is not found:
                known.count += found.count

    def __iter__(self) -> Iterator[Note]:
        for kind, found in self._kinds.items():
            message = f"{found.count:,} {kind} ({found.first})"
            yield Note(message, found.outcome, found.is_warning)
