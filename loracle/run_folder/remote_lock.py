"""Which process works on a run folder at a URL: it holds URL/.loracle-lock.json.

    {"host": "node7", "pid": 4711, "since": "2026-01-02T10:00:00+00:00", "token": "ab..",
     "beat": 12}

The holder counts `beat` up as long as it lives. A lock whose beat stands still, or whose process
was one of this machine and is gone, is taken over. The file is created in one act where the
protocol can (remote.py); elsewhere two processes that start in the same moment may both get it,
and the one that finds the other's token stops copying.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from loracle.errors import RunFolderError
from loracle.run_folder.lock import Holder
from loracle.run_folder.remote import RemoteFolder

REMOTE_LOCK_NAME = ".loracle-lock.json"
BEAT_SECONDS = 10.0
_STALE_SECONDS = 45.0
_LOOK_SECONDS = 2.0


class RemoteLock:
    """The lock of one run folder at a URL. tell: given a sentence if taking it takes a while."""

    def __init__(self, folder: RemoteFolder, tell: Callable[[str], None]) -> None:
        self._folder, self._tell = folder, tell
        self._token = secrets.token_hex(16)
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._beat, self._is_held = 0, False

    def take(self) -> None:
        """Raises RunFolderError, naming the holder, if another process has it."""
        for _ in range(3):
            if self._folder.create(REMOTE_LOCK_NAME, self._content()) and self.is_ours():
                self._is_held = True
                return
            found = self._folder.read_json(REMOTE_LOCK_NAME)
            if found is not None and not self._has_gone(found):
                break
            now = self._folder.read_json(REMOTE_LOCK_NAME)
            # Unless another process has just taken it over. A damaged one names nobody.
            if now is None or found is None or now.get("token") == found.get("token"):
                self._folder.remove([REMOTE_LOCK_NAME])
        raise RunFolderError(
            f"{self._folder.shown} is in use by {holder_of(self._folder) or 'another process'}; "
            "wait until it ends, or choose another folder with --out"
        )

    def beat(self) -> bool:
        """Show that this process lives; False if another one has taken the lock over."""
        if not self.is_ours():
            self._is_held = False
            return False
        self._beat += 1
        self._folder.write(REMOTE_LOCK_NAME, self._content())
        return True

    def is_ours(self) -> bool:
        """Whether this process has the lock."""
        return (self._folder.read_json(REMOTE_LOCK_NAME) or {}).get("token") == self._token

    def release(self) -> None:
        """Release the folder for other processes. A second call does nothing."""
        if self._is_held and self.is_ours():
            self._folder.remove([REMOTE_LOCK_NAME])
        self._is_held = False

    def _has_gone(self, found: dict[str, Any]) -> bool:
        """Whether the lock's holder lives no more."""
        if found.get("host") == platform.node() and not _is_running(found.get("pid")):
            return True
        self._tell(
            f"{self._folder.shown} was left by {_named(found) or 'another process'}, or is in use; "
            f"waiting up to {_STALE_SECONDS:.0f} s to see whether that process lives"
        )
        end = time.monotonic() + _STALE_SECONDS
        while time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            if self._folder.read_json(REMOTE_LOCK_NAME) != found:
                return False
        return True

    def _content(self) -> bytes:
        record = {
            "host": platform.node(),
            "pid": os.getpid(),
            "since": self._since,
            "token": self._token,
            "beat": self._beat,
        }
        return json.dumps(record).encode()


def holder_of(folder: RemoteFolder) -> Holder | None:
    """Who works on the folder, or was when it was killed."""
    return _named(folder.read_json(REMOTE_LOCK_NAME) or {})


def _named(record: dict[str, Any]) -> Holder | None:
    try:
        return Holder(str(record["host"]), int(record["pid"]), str(record["since"]))
    except (LookupError, TypeError, ValueError):
        return None


def _is_running(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    # Another user's, or a number that says nothing.
    except (OSError, TypeError, ValueError, OverflowError):
        return True
    return True
