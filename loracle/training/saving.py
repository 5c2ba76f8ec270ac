"""When checkpoints of a training are written: by steps, by time, or by what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from loracle.run_folder import signals
from loracle.training.checkpoint import Checkpoint, CheckpointFolder, Progress

# auto: at most this share of the time goes into checkpoints, unless that made them rarer than
# _LONGEST_SECONDS; and none sooner than _SHORTEST_SECONDS after another.
_LARGEST_SHARE = 0.02
_LONGEST_SECONDS, _SHORTEST_SECONDS = 600.0, 10.0


@dataclass(frozen=True)
class CheckpointInterval:
    """Optimizer steps or seconds between two checkpoints. Both None: by measured cost."""

    steps: int | None = None
    seconds: float | None = None


BY_COST = CheckpointInterval()


class CheckpointClock:
    """When the next checkpoint is due.

    first_cost_seconds: what one is thought to take before the first was measured.
    """

    def __init__(
        self,
        interval: CheckpointInterval,
        first_cost_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._cost_seconds = first_cost_seconds
        self._now = now
        self._started = self._last = now()
        self._spent_seconds = 0.0

    def due(self, step: int, *, ends_epoch: bool) -> bool:
        """Whether one is to be written after `step` steps (counted from 1)."""
        if self._interval.steps is not None and step % self._interval.steps == 0:
            return True
        waited = self._now() - self._last
        if self._interval.seconds is not None and waited >= self._interval.seconds:
            return True
        affordable = waited * _LARGEST_SHARE >= self._cost_seconds
        if ends_epoch and affordable:
            return True
        if self._interval != BY_COST:
            return False
        return waited >= _LONGEST_SECONDS or (affordable and waited >= _SHORTEST_SECONDS)

    def written(self, cost_seconds: float) -> None:
        """Note that one was written, and what it took."""
        self._cost_seconds = cost_seconds
        self._spent_seconds += cost_seconds
        self._last = self._now()

    @property
    def share(self) -> float:
        """The share of the time since the start that went into checkpoints."""
        return self._spent_seconds / max(self._now() - self._started, 1e-9)


class Saving:
    """Writes the checkpoints of a training under way, and resumes from one."""

    def __init__(
        self,
        folder: CheckpointFolder | None,
        interval: CheckpointInterval,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._folder, self._parameters, self._optimizer = folder, parameters, optimizer
        self._clock = CheckpointClock(interval, _likely_cost_seconds(parameters))
        self._started, self._seconds_before = time.perf_counter(), 0.0

    def resume(self, checkpoint: Checkpoint) -> tuple[int, int]:
        """Put back what the checkpoint holds; returns the steps done and the token budget."""
        checkpoint.restore(self._parameters, self._optimizer)
        self._seconds_before = checkpoint.progress.seconds
        return checkpoint.progress.step, checkpoint.progress.budget_tokens

    def after_step(self, num_steps_done: int, budget_tokens: int, *, ends_epoch: bool) -> None:
        """Write a checkpoint if one is due or a signal asks for the end, which it is then."""
        if signals.asked_to_stop():
            self._write(num_steps_done, budget_tokens)
            signals.stop_if_asked()
        if self._clock.due(num_steps_done, ends_epoch=ends_epoch):
            self._write(num_steps_done, budget_tokens)

    @contextmanager
    def if_stopped(self, num_steps_done: int, budget_tokens: int) -> Iterator[None]:
        """Inside, a step that is dropped half-way leaves a checkpoint of those before it."""
        try:
            yield
        except signals.Stopped as stopped:
            if num_steps_done and not stopped.at_once:
                self._write(num_steps_done, budget_tokens)
            raise

    def _write(self, num_steps_done: int, budget_tokens: int) -> None:
        if self._folder is None:
            return
        started = time.perf_counter()
        seconds = self._seconds_before + started - self._started
        progress = Progress(num_steps_done, budget_tokens, seconds)
        self._folder.write(progress, self._parameters, self._optimizer)
        self._clock.written(time.perf_counter() - started)


def _likely_cost_seconds(parameters: Mapping[str, nn.Parameter]) -> float:
    """A first guess of what writing a checkpoint takes: weights and two moments, to a slow disk."""
    num_bytes = sum(3 * p.numel() * p.element_size() for p in parameters.values())
    return 0.02 + num_bytes / 200e6
