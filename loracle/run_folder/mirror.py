"""A run folder at a URL is worked on in a local copy, and every change is copied to the URL.

    CACHE/remote-runs/NAME-1f0c9d../state.json    what the URL was last known to hold
    CACHE/remote-runs/NAME-1f0c9d../NAME/         the run folder, here
    URL/.loracle-index.json   {"version": 1, "token": "ab..", "files": {"plan.json": {...}}}

Files go in an order that leaves at the URL, whenever the process is killed, what a kill could have
left in a folder here: records of what is finished (a checkpoint's state.json, DONE) follow the
files that they list, and what was started over is removed first. A new token is written after each
pass. While it is the one that state.json has, nobody else has worked on the run, and the local copy
is the newest; otherwise the URL's files replace it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from filelock import FileLock

from loracle.errors import RunFolderError, StorageError
from loracle.files import (
    UNFINISHED_PREFIX,
    Seal,
    cache_folder,
    json_bytes,
    json_object_at,
    seal,
    write_json,
)
from loracle.run_folder.lock import HOLDER_NAME, LOCK_NAME, FolderLock
from loracle.run_folder.manifest import MANIFEST_NAME
from loracle.run_folder.remote import RemoteFolder, url_of
from loracle.run_folder.remote_lock import BEAT_SECONDS, REMOTE_LOCK_NAME, RemoteLock, holder_of
from loracle.run_folder.reporter import View
from loracle.safety.secrecy import without_secrets
from loracle.safety.storage_errors import writing
from loracle.text import first_few

INDEX_NAME = ".loracle-index.json"
_VERSION = 1
_COPIES = "remote-runs"
_OWN_NAMES = frozenset({INDEX_NAME, REMOTE_LOCK_NAME})
_LEFT_HERE = frozenset({LOCK_NAME, HOLDER_NAME, "workers"})
_IN_MEMORY_BYTES = 32 << 20
# A pass over a folder of thousands of trials may take at most this share of the time.
_LARGEST_SHARE = 0.02
_LAST_ATTEMPTS = 3


class LocalCopy(NamedTuple):
    """Where the copy of a URL is, and what the URL was last known to hold."""

    url: str
    root: Path

    @classmethod
    def of(cls, url: str) -> LocalCopy:
        name = PurePosixPath(url.partition("://")[2]).name
        key = hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()[:16]
        return cls(url, cache_folder() / _COPIES / f"{name[:40]}-{key}" / name)

    @property
    def state(self) -> Path:
        return self.root.parent / "state.json"

    def busy(self) -> FileLock:
        """Held while the copy is brought up to date."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root.parent / "copying.lock")


def url_of_copy(root: Path) -> str | None:
    """The URL that a folder here is the copy of; None for any other folder."""
    if root.absolute().parent.parent != cache_folder() / _COPIES:
        return None
    url = json_object_at(root.absolute().parent / "state.json").get("url")
    return None if url is None else str(url)


def local_copy(folder: str | os.PathLike[str]) -> Path:
    """The folder itself, or, for a URL, an up-to-date copy of it here.

    Raises:
        UserError: there is no run at the URL, or it cannot be read.
    """
    url = url_of(folder)
    if url is None:
        return Path(folder)
    copy, remote = LocalCopy.of(url), RemoteFolder(url)
    with writing(copy.root.parent), copy.busy():
        # While a process here works in it, it is newer than what is at the URL.
        if not FolderLock(copy.root).is_held():
            pull(copy, remote)
            _note_holder(copy, remote)
    if not (copy.root / "plan.json").is_file():
        raise RunFolderError(f"{remote.shown} is not a run folder: it has no plan.json")
    return copy.root


def _note_holder(copy: LocalCopy, remote: RemoteFolder) -> None:
    """Let the copy say who works on the run, as a folder here does."""
    holder = holder_of(remote)
    if holder is None or not copy.root.is_dir():
        (copy.root / HOLDER_NAME).unlink(missing_ok=True)
        return
    (copy.root / LOCK_NAME).touch()
    write_json(copy.root / HOLDER_NAME, holder._asdict())


def copy_up(folder: str | os.PathLike[str], path: Path) -> None:
    """Copy one file of a local copy to the URL it belongs to; does nothing for other folders."""
    if url := url_of(folder):
        name = path.relative_to(LocalCopy.of(url).root).as_posix()
        RemoteFolder(url).upload(name, path)


def pull(copy: LocalCopy, remote: RemoteFolder) -> list[str]:
    """Make the local copy the newest state of the run; returns what the user should know.

    Raises:
        RunFolderError: the URL has files that are no run's.
        StorageError: the URL cannot be read, or the copy not written.
    """
    state = json_object_at(copy.state)
    index = remote.read_json(INDEX_NAME)
    is_ours = index is not None and index.get("token") in state.get("tokens", ())
    if is_ours and copy.root.is_dir():
        return []
    there = {name: size for name, size in remote.sizes().items() if name not in _OWN_NAMES}
    if index is None and there and "plan.json" not in there:
        raise RunFolderError(
            f"{remote.shown} is not a run folder, and is not empty (it has "
            f"{first_few(sorted(there), 1)}); choose another folder with --out"
        )
    if not there:
        # New, or emptied: everything that is here has to be copied.
        _store_state(copy, [], {})
        return []
    notes = _set_aside(copy, remote, state)
    listed = _seals((index or {}).get("files"))
    found = {name: _fetched(copy, remote, name, size, listed) for name, size in there.items()}
    for name in _local_files(copy.root):
        if name not in found:
            (copy.root / name).unlink(missing_ok=True)
    token = (index or {}).get("token")
    _store_state(copy, [token] if token else [], found)
    return notes


def _fetched(
    copy: LocalCopy, remote: RemoteFolder, name: str, size: int, listed: Mapping[str, Seal]
) -> Seal:
    """Bring one file here, unless it is the same. Returns its seal."""
    path = copy.root / name
    if not path.resolve().is_relative_to(copy.root.resolve()):
        raise RunFolderError(f"{remote.shown} has a file with the name {name}; remove it")
    known = listed.get(name)
    if path.is_file() and path.stat().st_size == size and known is not None:
        here = seal(path)
        if here == known:
            return here
    unfinished = path.with_name(f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}")
    with writing(path, needed_bytes=size):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not remote.download(name, unfinished):
                raise RunFolderError(
                    f"{remote.shown}/{name} was removed while it was read: another process works "
                    "on the run; try again"
                )
            found = seal(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    # A file newer than the index is judged by the run's own records, as after any kill.
    return found


def _set_aside(copy: LocalCopy, remote: RemoteFolder, state: Mapping[str, Any]) -> list[str]:
    """Keep a local copy with work that never reached the URL, which another machine continued."""
    before = _seals(state.get("files"))
    if not (copy.root / "plan.json").is_file() or all(
        seal(copy.root / name) == before.get(name) for name in _local_files(copy.root)
    ):
        return []
    number = 1
    while (aside := copy.root.parent / f"not-copied-{number}").exists():
        number += 1
    copy.root.rename(aside)
    return [
        f"{remote.shown} was continued by another process since this machine last worked on it; "
        f"work from here that had not been copied there is in {aside}"
    ]


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
        self._has_failed = self._was_taken = False

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
            self._files, self._tokens = _seals(state.get("files")), state.get("tokens", [])
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
        here = _local_files(self.root)
        self._drop_restarted(here)
        changed = sorted((n for n, stamp in here.items() if self._seen.get(n) != stamp), key=_rank)
        gone = {name for name in self._files if name not in here}
        later = sorted(name for name in gone if "/checkpoint/" in name)
        self._remove(sorted(gone.difference(later), key=_rank, reverse=True))
        num_copied = sum(self._copied(name, here[name]) for name in changed)
        self._remove(later)
        if num_copied or gone:
            token = secrets.token_hex(16)
            # Before it is at the URL: a kill in between must not make this copy look outdated.
            self._tokens = [*self._tokens[-1:], token]
            _store_state(self._copy, self._tokens, self._files)
            files = {name: known._asdict() for name, known in sorted(self._files.items())}
            index = {"version": _VERSION, "token": token, "files": files}
            self._remote.write(INDEX_NAME, json_bytes(index))

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
    url = url_of(out)
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
    if name == MANIFEST_NAME or last == "attempt.json":
        # MANIFEST.json knows a file's content before the file has it.
        return 0, name
    order = {"state.json": 3, "training.json": 4, "DONE": 5, "FAILED.json": 5}
    if last in order:
        return order[last], name
    if name in ("results.json", "report.html"):
        return 6, name
    return (2 if "/checkpoint/" in name else 1), name


def _local_files(root: Path) -> dict[str, tuple[int, int]]:
    """By path within the folder: size and time of every file that belongs at the URL."""
    found: dict[str, tuple[int, int]] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [n for n in folders if not n.startswith(UNFINISHED_PREFIX)]
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in _LEFT_HERE]
            names = [name for name in names if name not in _LEFT_HERE]
        for name in names:
            path = Path(folder, name)
            try:
                status = path.stat()
            # Removed by the run in the meantime.
            except FileNotFoundError:
                continue
            if not name.startswith(UNFINISHED_PREFIX):
                stamp = (status.st_size, status.st_mtime_ns)
                found[path.relative_to(root).as_posix()] = stamp
    return found


def _seals(files: Any) -> dict[str, Seal]:
    return {name: Seal(**known) for name, known in (files or {}).items()}


def _store_state(copy: LocalCopy, tokens: list[str], files: Mapping[str, Seal]) -> None:
    known = {name: found._asdict() for name, found in files.items()}
    write_json(copy.state, {"url": copy.url, "tokens": tokens, "files": known})
