"""Work that is done in pieces: here, or by processes beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Found = TypeVar("Found")


class Workers(Protocol):
    """Whoever does the work."""

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        """What the function makes of each task, in the tasks' order."""
        ...


class _Alone:
    """This process."""

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        return map(function, tasks)


ALONE: Workers = _Alone()
