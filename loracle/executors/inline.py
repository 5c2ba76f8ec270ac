"""Run the trials one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Trial = TypeVar("Trial")
Result = TypeVar("Result")


def execute(run_one: Callable[[Trial], Result], trials: Iterable[Trial]) -> list[Result]:
    """The results of `run_one`, in the trials' order."""
    return [run_one(trial) for trial in trials]
