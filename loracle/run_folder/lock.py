"""Which process works in a run folder: it holds RUN/.lock, and RUN/.holder.json names it.

    {"host": "node7", "pid": 4711, "since": "2026-01-02T10:00:00+00:00"}

The lock itself is filelock's: the system releases it when its holder dies, in whatever way. On a
file system without such locks, filelock falls back to a marker that names process and machine, and
takes over a marker whose process is gone.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from loracle.errors import RunFolderError
from loracle.files import read_json, write_json

LOCK_NAME = ".lock"
HOLDER_NAME = ".holder.json"

# A process that checks whether a folder is in use holds its lock for a moment.
_PATIENCE_SECONDS = 0.25
_POLL_SECONDS = 0.05


class Holder(NamedTuple):
    """The process that holds a lock, or held it when it was killed."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.host == platform.node()


class FolderLock:
    """The lock of one run folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / LOCK_NAME
        self._holder_path = root / HOLDER_NAME
        self._lock: Any = None
        self._file: tuple[int, int] | None = None

    def take(self) -> None:
        """Take the lock. Raises RunFolderError, naming the holder, if another process has it."""
        lock = _file_lock(self._path)
        try:
            lock.acquire(timeout=_PATIENCE_SECONDS, poll_interval=_POLL_SECONDS)
        except Timeout as error:
            raise RunFolderError(
                f"{self._root} is in use by {self.holder() or 'another process'}; wait until it "
                "ends, or choose another folder with --out"
            ) from error
        self._lock = lock
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = Holder(platform.node(), os.getpid(), since)
        write_json(self._holder_path, holder._asdict())
        self._file = _identity(self._holder_path)

    def is_lost(self) -> bool:
        """Whether the folder of a lock that was taken has been removed or moved since: what is
        there now is another one, which another process may lock."""
        return self._lock is not None and _identity(self._holder_path) != self._file

    def release(self) -> None:
        """Release the folder for other processes. A second call does nothing."""
        if self._lock is None:
            return
        # A name left behind belongs to a process that no longer holds the lock. In a folder that
        # took this one's place, it is another process's.
        if not self.is_lost():
            with suppress(OSError):
                self._holder_path.unlink(missing_ok=True)
        self._lock.release(force=True)
        self._lock = self._file = None

    def holder(self) -> Holder | None:
        """Who took the lock last and did not release it properly."""
        try:
            record = read_json(self._holder_path)
            return Holder(str(record["host"]), int(record["pid"]), str(record["since"]))
        # Nobody, or a name made unreadable by a kill or by the disk.
        except (RunFolderError, OSError, LookupError, TypeError, ValueError):
            return None

    def is_held(self) -> bool | None:
        """Whether a process holds the lock. None if that is unknown, for example because the last
        one ran on another machine."""
        if not self._path.exists():
            return None
        lock = _file_lock(self._path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:
            return None
        holder = self.holder()
        lock.release(force=True)
        return False if holder is None or holder.is_here else None


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at a path, whatever its name was before; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _file_lock(path: Path) -> Any:
    return FileLock(path, thread_local=False)
