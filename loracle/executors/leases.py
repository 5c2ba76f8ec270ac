"""Which processes may write into a run folder beside the one that holds its lock: its workers.

    RUN/workers/
      7c1f-0.lease     made by the driver; a worker that finds it gone ends at once
      7c1f-0.lock      held by that worker as long as it lives
      7c1f-0.jsonl     the events of its trials (event_files.py)
      7c1f-0.log       what it and its libraries printed
      STOP             the number of the signal that asks all workers to stop

A driver that dies leaves its leases. The next one takes them away, and waits until their workers
are gone, before it writes anything. So no two processes ever work on one trial.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from loracle.errors import RunFolderError
from loracle.files import write_atomically

FOLDER_NAME = "workers"
EXIT_WITHOUT_LEASE = 75

_STOP_NAME = "STOP"
_POLL_SECONDS = 0.25
# A worker looks every quarter of a second; a shared folder may show a change after seconds.
_PATIENCE_SECONDS = 60.0


def workers_folder(root: Path) -> Path:
    """Where the workers of a run keep their files."""
    return root / FOLDER_NAME


def end_former_workers(root: Path) -> None:
    """Make sure that no worker of an earlier start still works in the run folder.

    Raises RunFolderError if one does not end.
    """
    folder = workers_folder(root)
    if not folder.is_dir():
        return
    names = [path.stem for path in folder.glob("*.lock")]
    for lease in folder.glob("*.lease"):
        lease.unlink(missing_ok=True)
    for name in names:
        if not _wait_for_end(folder, name, _PATIENCE_SECONDS):
            raise RunFolderError(
                f"{root} is in use by the worker {name} of an earlier start, which is still "
                "running; end its process (a `ray::` process on one of the machines), and try again"
            )
    shutil.rmtree(folder, ignore_errors=True)


class Leases:
    """The leases that a driver has given."""

    def __init__(self, root: Path) -> None:
        self.folder = workers_folder(root)
        self.folder.mkdir(parents=True, exist_ok=True)

    def give(self, name: str) -> None:
        """Let the worker of this name write into the run folder."""
        write_atomically(self.folder / f"{name}.lease", f"{os.getpid()}\n")

    def take_back(self, name: str, patience_seconds: float = 2.0) -> bool:
        """The worker may write no more; whether it is known to be gone."""
        (self.folder / f"{name}.lease").unlink(missing_ok=True)
        return _wait_for_end(self.folder, name, patience_seconds)

    def ask_to_stop(self, signal_number: int) -> None:
        """Ask all workers to stop as that signal would."""
        write_atomically(self.folder / _STOP_NAME, f"{signal_number}\n")

    def remove(self) -> None:
        """Remove what the workers left. To be called when none is there any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


class HeldLease:
    """A worker's side: holds its lock, and watches for the end of its lease."""

    def __init__(self, root: Path, name: str, on_stop: Callable[[int], None]) -> None:
        """on_stop: called once, in another thread, with the signal's number.

        Raises RunFolderError if there is no lease of that name.
        """
        self._folder = workers_folder(root)
        self._lease = self._folder / f"{name}.lease"
        self._on_stop = on_stop
        if not self._lease.is_file():
            raise RunFolderError(f"{root}: this worker is not one of the run's; is it shared?")
        self._lock = _lock(self._folder, name)
        self._lock.acquire(timeout=0)
        threading.Thread(target=self._watch, name="loracle-lease", daemon=True).start()

    def _watch(self) -> None:
        stop = self._folder / _STOP_NAME
        was_asked = False
        while True:
            time.sleep(_POLL_SECONDS)
            if not self._lease.exists():
                # Another process may be about to write to the same files: not one byte more.
                os._exit(EXIT_WITHOUT_LEASE)
            if not was_asked and stop.exists():
                was_asked = True
                self._on_stop(int(stop.read_text()))


def _wait_for_end(folder: Path, name: str, patience_seconds: float) -> bool:
    """Wait until a worker is gone, which lets go of its lock; whether it is."""
    if not (folder / f"{name}.lock").exists():
        return True
    lock = _lock(folder, name)
    try:
        lock.acquire(timeout=patience_seconds, poll_interval=0.05)
    except Timeout:
        return False
    lock.release(force=True)
    return True


def _lock(folder: Path, name: str) -> Any:
    return FileLock(folder / f"{name}.lock", thread_local=False)
