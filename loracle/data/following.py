"""Whoever wants to see how far the reading of large data is: a bar on a terminal, say.

with following(bar.show):
    ...                       every block that is read calls bar.show
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple


class Reached(NamedTuple):
    """How far one dataset is.

    stage "reading": done and total are bytes, total about what its files hold, as text.
    stage "comparing": done and total are texts; total 0 if it is unknown. name "": the dataset that
    was named last.
    stage "read": all datasets of a run are read, and its own bars and lines follow.
    """

    stage: Literal["reading", "comparing", "read"]
    name: str
    num_rows: int
    done: int
    total: int


Follower = Callable[[Reached], None]
_FOLLOWER: ContextVar[Follower | None] = ContextVar("follower", default=None)


@contextmanager
def following(follower: Follower | None) -> Iterator[None]:
    """Tell the follower of all that is read meanwhile."""
    token = _FOLLOWER.set(follower)
    try:
        yield
    finally:
        _FOLLOWER.reset(token)


def tell(reached: Reached) -> None:
    """Tell whoever follows, if someone does."""
    follower = _FOLLOWER.get()
    if follower is not None:
        follower(reached)
