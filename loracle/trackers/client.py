"""What every tracker does: the interface between a run's events and a tracker's own client."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Config = Mapping[str, str | int | float | bool]
"""Flat names to plain values."""


@dataclass(frozen=True)
class Experiment:
    """What the tracked runs have in common."""

    name: str
    """The run folder's name, shown by the tracker as the group or experiment."""
    folder: Path
    """The run folder. A tracker that writes files puts them in its own folder there."""
    fingerprint: str
    """Of the plan."""


class TrackedRun(Protocol):
    """One run of a tracker: the base, a trial, or the decision."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record values of an optimizer step, counted from 1."""

    def finish(
        self, scores: Mapping[str, float], texts: Mapping[str, str], *, failed: bool
    ) -> None:
        """Record the run's results, and end it."""


class SteppedRun:
    """What the runs of clients that take `log(values, step=...)` have in common."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._last_step = 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record values of an optimizer step, counted from 1."""
        self._run.log(dict(values), step=step)
        self._last_step = step


class Tracker(Protocol):
    """A tracker's client. Imports it when the first run starts."""

    def __init__(self, experiment: Experiment) -> None: ...

    @staticmethod
    def problem() -> str | None:
        """Why the installed client cannot be used with its current setup, and what to do. No
        network."""

    def start(self, name: str, config: Config) -> TrackedRun:
        """Start a run with that name."""


@contextmanager
def speaking_to_stderr() -> Iterator[None]:
    """Redirect a client's output to standard error: standard output is for the result."""
    # The process may have been started without a standard error stream.
    if sys.stderr is not None:
        with redirect_stdout(sys.stderr):
            yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield
