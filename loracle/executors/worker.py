"""What runs trials in one process, as executors know it. The experiment has the only one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Worker(Protocol):
    """Holds the base on its device, and runs trials one at a time into the run folder."""

    def facts(self) -> Any:
        """What the driver has to know of the base as it was loaded; picklable, and small. The first
        call loads it where the worker has a process of its own."""

    def run(self, trial: str) -> str | None:
        """Run one trial, by its name: why it failed, or None."""

    def peak_memory_bytes(self) -> int:
        """The most memory that was held so far."""


class WorkerPlace(NamedTuple):
    """Where a worker in a process of its own stands.

    root: the run folder. started_from: the folder where paths in the plan begin. events: the file
    its events go to. num_slots: how many workers the run has. num_replicas: how many processes
    share its trainings, this one included.
    """

    root: Path
    started_from: Path
    events: Path
    num_slots: int
    num_replicas: int = 1


OpenWorker = Callable[[WorkerPlace], Worker]
"""Makes a worker from the run folder alone, in whichever process it is called. A function of a
module, since processes find it by its name: nothing else of the driver is sent to them."""
