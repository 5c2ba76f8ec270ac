"""A worker in a process of its own: what Ray runs on a slot.

An actor gets the run folder, the name of its lease and the name of a function; later the names of
trials. It reads everything else from the run folder, and writes everything there.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

from loracle.executors.leases import HeldLease, workers_folder
from loracle.executors.worker import OpenWorker, Worker, WorkerPlace
from loracle.run_folder import signals


class Opened(NamedTuple):
    """What an actor says once it holds the base. device: for people."""

    facts: Any
    device: str
    pid: int


class TrialRun(NamedTuple):
    """How a trial ended on an actor. was_stopped: by a signal, with a checkpoint."""

    reason: str | None
    peak_memory_bytes: int
    was_stopped: bool = False


class TrialActor:
    """Holds one worker. Ray calls its methods one after the other, on the main thread."""

    def __init__(
        self, root: Path, started_from: Path, name: str, num_slots: int, num_replicas: int
    ) -> None:
        folder = workers_folder(root)
        _print_to(folder / f"{name}.log")
        self._place = WorkerPlace(
            root, started_from, folder / f"{name}.jsonl", num_slots, num_replicas
        )
        self._worker: Worker | None = None
        signals.install("{signal}: this worker stopped")
        self._lease = HeldLease(root, name, _signal_this_process)

    def begin(self, open_worker: OpenWorker) -> None:
        """Read the data. Raises UserError where that cannot be done."""
        if self._place.started_from.is_dir():
            os.chdir(self._place.started_from)
        self._worker = open_worker(self._place)

    def open(self) -> Opened:
        """Load the base. Raises UserError where that cannot be done."""
        assert self._worker is not None, "begin comes first"
        return Opened(self._worker.facts(), _device(), os.getpid())

    def run(self, trial: str) -> TrialRun:
        """Run one trial."""
        assert self._worker is not None, "begin comes first"
        try:
            reason = self._worker.run(trial)
        except signals.Stopped:
            return TrialRun(None, 0, was_stopped=True)
        return TrialRun(reason, self._worker.peak_memory_bytes())


def _print_to(path: Path) -> None:
    """Whatever this process prints goes to a file of the run, where people find it."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)


def _signal_this_process(number: int) -> None:
    """Stop as at SIGTERM, whichever signal the driver got: Ray blocks SIGINT in its processes."""
    os.kill(os.getpid(), signal.SIGTERM)


def _device() -> str:
    """What this actor has, as people name it."""
    import ray

    gpus = ",".join(str(index) for index in ray.get_gpu_ids())
    return f"{platform.node()} " + (f"GPU {gpus}" if gpus else f"process {os.getpid()}")
