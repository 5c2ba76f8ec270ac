"""The local copies of runs at URLs: where they are, and how they come to hold the newest state.

    CACHE/remote-runs/NAME-1f0c9d../state.json    what the URL was last known to hold
    CACHE/remote-runs/NAME-1f0c9d../NAME/         the run folder, here

URL/.loracle-index.json has a token that each pass of copying replaces (mirror.py). While it is the
one that state.json has, nobody else has worked on the run, and the local copy is the newest;
otherwise the URL's files replace it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from filelock import FileLock

from loracle.errors import RunFolderError
from loracle.files import UNFINISHED_PREFIX, Seal, cache_folder, json_object_at, seal, write_json
from loracle.run_folder.lock import HOLDER_NAME, LOCK_NAME, FolderLock
from loracle.run_folder.manifest import MANIFEST_NAME
from loracle.run_folder.remote import RemoteFolder, url_of
from loracle.run_folder.remote_lock import REMOTE_LOCK_NAME, holder_of
from loracle.safety.storage_errors import writing
from loracle.text import first_few

INDEX_NAME = ".loracle-index.json"
_COPIES = "remote-runs"
_OWN_NAMES = frozenset({INDEX_NAME, REMOTE_LOCK_NAME})
_LEFT_HERE = frozenset({LOCK_NAME, HOLDER_NAME, "workers"})


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
    # A run that is killed while it is copied for the first time leaves MANIFEST.json alone.
    if index is None and there.keys() - {MANIFEST_NAME} and "plan.json" not in there:
        raise RunFolderError(
            f"{remote.shown} is not a run folder, and is not empty (it has "
            f"{first_few(sorted(there), 1)}); choose another folder with --out"
        )
    if not there:
        # New, or emptied: everything that is here has to be copied.
        store_state(copy, [], {})
        return []
    notes = _set_aside(copy, remote, state)
    listed = seals_of((index or {}).get("files"))
    found = {name: _fetched(copy, remote, name, size, listed) for name, size in there.items()}
    for name in local_files(copy.root):
        if name not in found:
            (copy.root / name).unlink(missing_ok=True)
    token = (index or {}).get("token")
    store_state(copy, [token] if token else [], found)
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
    before = seals_of(state.get("files"))
    if not (copy.root / "plan.json").is_file() or all(
        seal(copy.root / name) == before.get(name) for name in local_files(copy.root)
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


def local_files(root: Path) -> dict[str, tuple[int, int]]:
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


def seals_of(files: Any) -> dict[str, Seal]:
    return {name: Seal(**known) for name, known in (files or {}).items()}


def store_state(copy: LocalCopy, tokens: list[str], files: Mapping[str, Seal]) -> None:
    known = {name: found._asdict() for name, found in files.items()}
    write_json(copy.state, {"url": copy.url, "tokens": tokens, "files": known})
