"""A run folder at a URL of fsspec (s3://bucket/run, gs://..., file:///...): its files, one by one.

What a protocol refuses becomes a StorageError that names the URL, the cause and the way out. What
may pass, such as a lost connection, is tried again first.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial
from os import fspath
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

from loracle.errors import LoracleError, MissingExtraError, RunFolderError, StorageError
from loracle.files import UNFINISHED_PREFIX
from loracle.safety.secrecy import without_secrets

REMOTE_EXTRA = "pip install 'loracle[remote]'"

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]+):/+(?P<rest>.+)")
# A file there is replaced by renaming; elsewhere, as in object stores, writing it is one act.
_FILE_PROTOCOLS = ("file", "local")
_PAUSES_SECONDS = (1.0, 5.0)
_LASTING = (PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)

_Result = TypeVar("_Result")


def url_of(folder: object) -> str | None:
    """The URL that a folder's name is; None for the path of a folder here.

    A Path joins the slashes of a URL into one: "s3:/bucket/run" is read as s3://bucket/run.
    """
    if folder is None:
        return None
    text = fspath(folder) if isinstance(folder, PurePath) else str(folder)
    found = _URL.fullmatch(text.rstrip("/"))
    if found is None:
        return None
    protocol, rest = found["protocol"], found["rest"]
    return f"{protocol}:///{rest}" if protocol in _FILE_PROTOCOLS else f"{protocol}://{rest}"


class RemoteFolder:
    """The files under a URL, by their paths within it.

    Raises:
        MissingExtraError: the protocol's package is not installed.
        RunFolderError: the protocol is unknown.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        self.shown = without_secrets(url)
        self.protocol = url.partition(":")[0]
        try:
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise MissingExtraError(
                f"{self.shown}: {without_secrets(str(error))}; for s3 run: {REMOTE_EXTRA}"
            ) from error
        except ValueError as error:
            raise RunFolderError(
                f"{self.shown}: {without_secrets(str(error))}; give a folder, or a URL such as "
                "s3://bucket/run"
            ) from error
        self._root = str(root).rstrip("/")

    def sizes(self) -> dict[str, int]:
        """The size of every file by its path within the folder; empty if there is no folder."""

        def listed() -> dict[str, int]:
            self._fs.invalidate_cache()
            found = self._fs.find(self._root, detail=True)
            inside = f"{self._root}/"
            return {
                path.removeprefix(inside): int(facts["size"])
                for path, facts in found.items()
                if path.startswith(inside) and UNFINISHED_PREFIX not in path
            }

        return self._tried("listed", listed, missing={})

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none."""
        return self._tried(f"read ({name})", lambda: bytes(self._fs.cat_file(self._path(name))))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object; None if there is none, or it is damaged."""
        content = self.read(name)
        try:
            found = None if content is None else json.loads(content)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def download(self, name: str, path: Path) -> bool:
        """Copy a file here; whether it was there."""

        def fetched() -> bool:
            self._fs.get_file(self._path(name), str(path))
            return True

        return bool(self._tried(f"read ({name})", fetched, missing=False))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it as a whole."""
        self._put(name, lambda place: self._fs.pipe_file(place, content))

    def upload(self, name: str, path: Path) -> None:
        """Copy a file there, or replace it as a whole."""
        self._put(name, lambda place: self._fs.put_file(str(path), place))

    def create(self, name: str, content: bytes) -> bool:
        """Write a file only if there is none; whether it was written.

        One act where the protocol has it (s3 with conditional writes, files, memory); elsewhere a
        look and then a write, between which another process may do the same.
        """
        place = self._path(name)

        def created() -> bool:
            self._make_parent(place)
            try:
                if self.protocol in _FILE_PROTOCOLS:
                    with Path(place).open("xb") as file:
                        file.write(content)
                else:
                    self._fs.pipe_file(place, content, mode="create")
            except FileExistsError:
                return False
            except TypeError:
                # A protocol whose package knows no such mode.
                if self._fs.exists(place):
                    return False
                self._fs.pipe_file(place, content)
            return True

        return bool(self._tried(f"written ({name})", created, raises_missing=True))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already count as removed."""
        for name in names:
            self._tried(f"removed ({name})", partial(self._fs.rm_file, self._path(name)))
            if self.protocol in _FILE_PROTOCOLS:
                self._remove_empty_folders(name)

    def _remove_empty_folders(self, name: str) -> None:
        """Remove the folders that the removal of a file left empty: a store of objects has none."""
        for folder in list(PurePosixPath(name).parents)[:-1]:
            try:
                Path(self._root, folder).rmdir()
            except OSError:
                return

    def _put(self, name: str, put: Callable[[str], object]) -> None:
        place = self._path(name)

        def done() -> None:
            self._make_parent(place)
            if self.protocol not in _FILE_PROTOCOLS:
                put(place)
                return
            parent = place.rpartition("/")[0]
            unfinished = f"{parent}/{UNFINISHED_PREFIX}{secrets.token_hex(8)}"
            try:
                put(unfinished)
                Path(unfinished).replace(place)
            finally:
                Path(unfinished).unlink(missing_ok=True)

        self._tried(f"written ({name})", done, raises_missing=True)

    def _make_parent(self, place: str) -> None:
        if self.protocol in _FILE_PROTOCOLS:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        elif self.protocol not in ("s3", "s3a", "gs", "gcs", "memory"):
            self._fs.makedirs(place.rpartition("/")[0], exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _tried(
        self,
        what: str,
        call: Callable[[], _Result],
        *,
        missing: Any = None,
        raises_missing: bool = False,
    ) -> _Result:
        """The call's result, at the latest after the last pause; `missing` if a file is not there.

        Raises StorageError.
        """
        for pause in (*_PAUSES_SECONDS, None):
            try:
                return call()
            except LoracleError:
                raise
            # Each protocol's package raises errors of its own.
            except Exception as error:
                if isinstance(error, FileNotFoundError) and not raises_missing:
                    return missing  # type: ignore[no-any-return]
                if pause is None or isinstance(error, (*_LASTING, FileNotFoundError)):
                    raise self._error(what, error) from error
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _error(self, what: str, error: Exception) -> StorageError:
        cause = without_secrets(f"{type(error).__name__}: {error}")
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        check = "free space there" if full else "check the network, the address and your access"
        return StorageError(
            f"{self.shown} cannot be {what}: {cause}; {check}, then run the same command again: "
            "finished work is kept",
            is_passing=not isinstance(error, _LASTING),
        )
