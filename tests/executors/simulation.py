"""Slots that run nothing: simulated devices with clocks, failures and repairs."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from loracle.executors.schedule import Ended, Lost, Ran, Schedule, drive


class Failures(NamedTuple):
    """hours_between: of one device, on average. checkpoint_seconds: work between two checkpoints.
    repair_seconds: until a lost process has another one that holds the base."""

    hours_between: float
    checkpoint_seconds: float = 600.0
    repair_seconds: float = 120.0


class SimulatedSlots:
    """Devices that need a trial's true seconds for it, from its last checkpoint on."""

    def __init__(
        self, num_slots: int, seconds: Mapping[str, float], failures: Failures | None, seed: int
    ) -> None:
        self.now = 0.0
        self.busy_seconds = 0.0
        self.num_failures = 0
        self._left = dict(seconds)
        self._seconds = seconds
        self._failures = failures
        self._generator = np.random.default_rng(seed)
        self._idle = set(range(num_slots))
        self._events: list[tuple[float, int, Ran | Lost | None]] = []

    def idle(self) -> Sequence[int]:
        return sorted(self._idle)

    def start(self, slot: int, trial: str) -> None:
        self._idle.remove(slot)
        seconds = self._left[trial]
        happening: Ran | Lost = Ran(slot, trial, None)
        if self._failures is not None:
            until_failure = self._generator.exponential(self._failures.hours_between * 3600)
            if until_failure < seconds:
                saved = until_failure // self._failures.checkpoint_seconds
                self._left[trial] -= saved * self._failures.checkpoint_seconds
                share = self._left[trial] / self._seconds[trial]
                happening, seconds = Lost(slot, trial, "killed", share), until_failure
        self.busy_seconds += seconds
        heapq.heappush(self._events, (self.now + seconds, slot, happening))

    def wait(self) -> Sequence[Ran | Lost]:
        self.now, slot, happening = heapq.heappop(self._events)
        if isinstance(happening, Lost):
            assert self._failures is not None
            self.num_failures += 1
            back = self.now + self._failures.repair_seconds
            heapq.heappush(self._events, (back, slot, None))
            return [happening]
        self._idle.add(slot)
        return [] if happening is None else [happening]


class Simulated(NamedTuple):
    """makespan_seconds: until the last trial has ended. lower_bound_seconds: no order of the same
    trials on devices that never fail can be faster. utilisation: of the devices, until then."""

    ended: list[Ended]
    makespan_seconds: float
    lower_bound_seconds: float
    utilisation: float
    num_failures: int

    @property
    def ratio(self) -> float:
        return self.makespan_seconds / self.lower_bound_seconds


def simulate(
    seconds: Mapping[str, float],
    predicted: Mapping[str, float],
    num_slots: int,
    failures: Failures | None = None,
    seed: int = 0,
) -> Simulated:
    """Run trials of these true lengths, scheduled by what was predicted."""
    slots = SimulatedSlots(num_slots, seconds, failures, seed)
    ended = list(drive(Schedule(predicted, first=["base"]), slots))
    return Simulated(
        ended,
        slots.now,
        lower_bound(list(seconds.values()), num_slots),
        slots.busy_seconds / (num_slots * slots.now),
        slots.num_failures,
    )


def lower_bound(seconds: Sequence[float], num_slots: int) -> float:
    """The mean load, the longest trial, and the pigeonhole: of the k * m + 1 longest trials, k + 1
    share a device."""
    longest_first = sorted(seconds, reverse=True)
    bound = max(sum(seconds) / num_slots, longest_first[0])
    for k in range(1, (len(longest_first) - 1) // num_slots + 1):
        bound = max(bound, sum(longest_first[k * num_slots - j] for j in range(k + 1)))
    return bound


def candidates(num: int, seed: int = 0, spread: float = 0.7) -> dict[str, float]:
    """Trials as they differ in practice: a log-normal number of hours, and the base."""
    generator = np.random.default_rng(seed)
    hours = 2.0 * generator.lognormal(0.0, spread, num)
    trials = {f"candidate-{i}": 3600 * float(h) for i, h in enumerate(hours)}
    return {"base": 900.0, **trials}
