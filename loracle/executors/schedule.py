"""Which trial runs where, and what becomes of it when its process is lost: pure code.

    predicted seconds --Schedule--> the next trial for an idle slot, longest first
    drive(schedule, slots)          the loop that Ray's actors and the simulation share

A slot is what runs one trial at a time: one device, or several that hold one model together.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

MAX_LOSSES = 3
"""How often a trial's process may be lost without progress: then the trial itself may end it."""


class Ended(NamedTuple):
    """A trial that needs no further attempt. reason: why it failed; None: its files are whole."""

    trial: str
    reason: str | None


class Ran(NamedTuple):
    """A slot is done with its trial. reason: as of Ended."""

    slot: int
    trial: str
    reason: str | None


class Lost(NamedTuple):
    """The process of a slot is gone, with the trial that it ran.

    share_left: of the trial's work, seen from its last checkpoint.
    """

    slot: int
    trial: str
    reason: str
    share_left: float = 1.0


class Slots(Protocol):
    """What trials run on: Ray's actors, or a simulation of them."""

    def idle(self) -> Sequence[int]:
        """The slots that can take a trial now."""

    def start(self, slot: int, trial: str) -> None:
        """Run a trial on an idle slot."""

    def wait(self) -> Sequence[Ran | Lost]:
        """What happened since; returns at once if something did, else after a while."""


class Schedule:
    """The trials that wait: those that come first, then the longest predicted."""

    def __init__(self, predicted: Mapping[str, float], first: Sequence[str] = ()) -> None:
        """predicted: by trial, in any one unit. first: trials to start with, in this order."""
        self._predicted = dict(predicted)
        self._ranks = {trial: rank for rank, trial in enumerate(first)}
        self._order = {trial: number for number, trial in enumerate(predicted)}
        self._waiting = [self._entry(trial, seconds) for trial, seconds in predicted.items()]
        heapq.heapify(self._waiting)
        self._num_losses = dict.fromkeys(predicted, 0)
        self._share_left = dict.fromkeys(predicted, 1.0)
        self._num_open = len(self._waiting)

    @property
    def is_open(self) -> bool:
        """Whether a trial waits or is under way."""
        return self._num_open > 0

    def take(self) -> str | None:
        """The next trial; None if none waits."""
        return heapq.heappop(self._waiting)[-1] if self._waiting else None

    def end(self) -> None:
        """A trial that was taken needs no further attempt."""
        self._num_open -= 1

    def put_back(self, trial: str, share_left: float) -> bool:
        """A trial waits again because its process was lost; False if that was once too often.

        share_left: of its work. Losses count from the last one that it had come further since.
        """
        if share_left < self._share_left[trial]:
            self._share_left[trial], self._num_losses[trial] = share_left, 0
        self._num_losses[trial] += 1
        if self._num_losses[trial] >= MAX_LOSSES:
            return False
        left = self._predicted[trial] * share_left
        heapq.heappush(self._waiting, self._entry(trial, left))
        return True

    def _entry(self, trial: str, seconds: float) -> tuple[int, float, int, str]:
        return self._ranks.get(trial, len(self._ranks)), -seconds, self._order[trial], trial


def drive(schedule: Schedule, slots: Slots) -> Iterator[Ended]:
    """Run every trial, those of lost processes again; yields each one when it has ended."""
    while schedule.is_open:
        for slot in slots.idle():
            trial = schedule.take()
            if trial is None:
                break
            slots.start(slot, trial)
        for happened in slots.wait():
            if isinstance(happened, Lost):
                if schedule.put_back(happened.trial, happened.share_left):
                    continue
                reason = f"its process was lost {MAX_LOSSES} times: {happened.reason}"
                ended = Ended(happened.trial, reason)
            else:
                ended = Ended(happened.trial, happened.reason)
            schedule.end()
            yield ended
