"""A run folder at a URL is worked on in a local copy, and every change is copied to the URL.

    URL/.loracle-index.json   {"version": 1, "token": "ab..", "files": {"plan.json": {...}}}

Files go in an order that leaves at the URL, whenever the process is killed, what a kill could have
left in a folder here: records of what is finished (a checkpoint's state.json, DONE) follow the
files that they list, and what was started over is removed first. A new token is written after each
pass; what it is for, local_copies.py says.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from typing import Any

from loracle.errors import RunFolderError, StorageError
from loracle.files import (
    Seal,
    json_bytes,
    json_object_at,
    seal,
)
from loracle.run_folder.local_copies import (
    INDEX_NAME,
    LocalCopy,
    local_files,
    pull,
    seals_of,
    store_state,
    url_of_copy,
)
from loracle.run_folder.manifest import MANIFEST_NAME
from loracle.run_folder.remote import RemoteFolder, url_of
from loracle.run_folder.remote_lock import BEAT_SECONDS, RemoteLock
from loracle.run_folder.reporter import View
from loracle.safety.secrecy import without_secrets
from loracle.safety.storage_errors import writing

_VERSION = 1
_IN_MEMORY_BYTES = 32 << 20
# A pass over a folder of thousands of trials may take at most this share of the time.
_LARGEST_SHARE = 0.02
_LAST_ATTEMPTS = 3


class Mirror:
    """Copies a run folder to its URL while a run works in it. Use it as a context manager.

    notes: gets what the user should know, in sentences. tell: given one at once, if it takes a
    while to start.

    Raises:
        UserError: another process works on the run, or the URL cannot be read.
    """

    def __init__(self, url: str, notes: SimpleQueue[str], tell: Callable[[str], None]) -> None:
        self._copy, self._remote = LocalCopy.of(url), RemoteFolder(url)
        self.notes = notes
        self._lock = RemoteLock(self._remote, tell)
        self._files: dict[str, Seal] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._tokens: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="loracle-mirror", daemon=True)
        self._has_failed = self._was_taken = self._is_index_due = False

    @property
    def root(self) -> Path:
        """The run folder, here."""
        return self._copy.root

    def __enter__(self) -> Mirror:
        self._lock.take()
        try:
            with writing(self.root.parent), self._copy.busy():
                for note in pull(self._copy, self._remote):
                    self.notes.put(note)
            state = json_object_at(self._copy.state)
            self._files, self._tokens = seals_of(state.get("files")), state.get("tokens", [])
        except BaseException:
            self._lock.release()
            raise
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        try:
            # What ends early has no time for a connection that fails.
            self._copy_the_rest(1 if kind is not None else _LAST_ATTEMPTS)
            self._lock.release()
        except StorageError as error:
            if kind is None:
                raise
            self.notes.put(str(error))

    def sync(self) -> None:
        """Copy what changed since the last time. Raises StorageError."""
        here = local_files(self.root)
        self._drop_restarted(here)
        changed = sorted((n for n, stamp in here.items() if self._seen.get(n) != stamp), key=_rank)
        gone = {name for name in self._files if name not in here}
        later = sorted(name for name in gone if "/checkpoint/" in name)
        # Until an index is written, also if a request in between fails.
        self._is_index_due |= bool(gone)
        self._remove(sorted(gone.difference(later), key=_rank, reverse=True))
        for name in changed:
            self._is_index_due |= self._copied(name, here[name])
        self._remove(later)
        if self._is_index_due:
            token = secrets.token_hex(16)
            # Before it is at the URL: a kill in between must not make this copy look outdated.
            self._tokens = [*self._tokens[-1:], token]
            store_state(self._copy, self._tokens, self._files)
            files = {name: known._asdict() for name, known in sorted(self._files.items())}
            index = {"version": _VERSION, "token": token, "files": files}
            self._remote.write(INDEX_NAME, json_bytes(index))
            self._is_index_due = False

    def _drop_restarted(self, here: Mapping[str, tuple[int, int]]) -> None:
        """Remove at the URL what trials that start over had there: nothing of the last attempt may
        stay beside a new attempt.json."""
        for attempt in [name for name in self._files if name.endswith("/attempt.json")]:
            if attempt not in here or here[attempt] == self._seen.get(attempt):
                continue
            if seal(self.root / attempt) != self._files[attempt]:
                trial = attempt.removesuffix("attempt.json")
                names = [name for name in self._files if name.startswith(trial)]
                self._remove(sorted(names, key=_rank, reverse=True))

    def _copied(self, name: str, stamp: tuple[int, int]) -> bool:
        path = self.root / name
        try:
            content = path.read_bytes() if stamp[0] <= _IN_MEMORY_BYTES else None
            found = seal(path) if content is None else Seal.of(content)
        # Replaced or removed by the run in the meantime: the next pass sees to it.
        except (FileNotFoundError, StorageError):
            return False
        is_new = self._files.get(name) != found
        if is_new:
            if content is None:
                self._remote.upload(name, path)
            else:
                self._remote.write(name, content)
            self._files[name] = found
        self._seen[name] = stamp
        return is_new

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._remote.remove([name])
            self._files.pop(name, None)
            self._seen.pop(name, None)

    def _follow(self) -> None:
        """Copy again and again, until the run ends or the lock is lost."""
        pause = BEAT_SECONDS / 10
        while not self._stop.wait(pause):
            started = time.monotonic()
            try:
                if not self._lock.beat():
                    self._was_taken = True
                    self.notes.put(_taken_over(self._remote.shown, self.root))
                    return
                self.sync()
                if self._has_failed:
                    self.notes.put(f"{self._remote.shown} can be written again; all is copied")
                self._has_failed = False
            except StorageError as error:
                if not self._has_failed:
                    self.notes.put(
                        f"{error}. The run continues in {self.root}, and copying is tried again"
                    )
                self._has_failed = True
            pause = max(BEAT_SECONDS, (time.monotonic() - started) / _LARGEST_SHARE)

    def _copy_the_rest(self, num_attempts: int) -> None:
        if self._was_taken or not self._lock.is_ours():
            raise StorageError(_taken_over(self._remote.shown, self.root))
        for attempt in range(num_attempts):
            try:
                self.sync()
                # A row or a record may have been written during the pass.
                self.sync()
                return
            except StorageError as error:
                if attempt + 1 == num_attempts:
                    raise StorageError(
                        f"{error}. Not everything is copied; the run is in {self.root}, and "
                        f"`loracle resume {self._remote.shown}` copies the rest from there",
                        is_passing=True,
                    ) from error


class _MirroredView:
    """A view that also shows what the mirror has to say."""

    def __init__(self, view: View, notes: SimpleQueue[str]) -> None:
        self._view, self._notes = view, notes

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        self.show_notes()
        self._view.show(kind, fields, line)

    def show_notes(self) -> None:
        while True:
            try:
                message = self._notes.get_nowait()
            except Empty:
                return
            self.warn(message)

    def warn(self, message: str) -> None:
        self._view.show("warning", {"message": message}, f"warning: {message}")

    def close(self) -> None:
        self.show_notes()
        self._view.close()


@contextmanager
def mirrored(
    out: Path | None, view: View, *, must_exist: bool = False
) -> Iterator[tuple[Path | None, View]]:
    """The folder that a run works in, and its view: those given, unless `out` is a URL.

    must_exist: there has to be a run at the URL.

    Raises:
        UserError: another process works on the run, or not everything could be copied.
    """
    # A local copy, named by its path, belongs to its URL as well.
    url = url_of(out) or (None if out is None else url_of_copy(out))
    if url is None:
        yield out, view
        return
    notes: SimpleQueue[str] = SimpleQueue()
    shown = _MirroredView(view, notes)
    mirror = Mirror(url, notes, shown.warn)
    try:
        with mirror:
            if must_exist and not (mirror.root / "plan.json").is_file():
                raise RunFolderError(f"{without_secrets(url)} is not a run folder: no plan.json")
            yield mirror.root, shown
    finally:
        shown.show_notes()


def _taken_over(url: str, root: Path) -> str:
    return (
        f"{url}: another process has taken the run over, because this one could not show for a "
        f"while that it lives; nothing more is copied there. This run's files are in {root}"
    )


def _rank(name: str) -> tuple[int, str]:
    """Where a file comes in a pass: a record after the files it lists."""
    last = PurePosixPath(name).name
    # MANIFEST.json knows a file's content before the file has it. With a plan it is a run.
    first = {MANIFEST_NAME: -3, "plan.json": -2}
    if name in first or last == "attempt.json":
        return first.get(name, -1), name
    order = {"state.json": 3, "training.json": 4, "DONE": 5, "FAILED.json": 5}
    if last in order:
        return order[last], name
    if name in ("results.json", "report.html"):
        return 6, name
    return (2 if "/checkpoint/" in name else 1), name
