"""Files that are never corrupted by a kill.

A file either grows row by row or is replaced as a whole, never partly.
File errors from the system become a StorageError that names the file (storage_errors.py).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from loracle.errors import RunFolderError, StorageError
from loracle.safety.storage_errors import reading, writing

# Temporary files. The name is our own, so that leftovers of a killed process can be removed.
UNFINISHED_PREFIX = ".loracle-unfinished-"


def cache_folder() -> Path:
    """Where Loracle keeps files that it can create again."""
    own = os.environ.get("LORACLE_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a path that is not absolute must be ignored.
    parent = Path(shared) if Path(shared).is_absolute() else Path.home() / ".cache"
    return parent / "loracle"


def sync_file(path: Path) -> None:
    """Flush a file's content to disk."""
    with writing(path), path.open("rb") as file:
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`: readers see the old file or the complete new one.

    Parent folders are created. The file is on disk when this returns.
    """
    content = data.encode() if isinstance(data, str) else data
    with writing(path, needed_bytes=len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A short random name: the final one may be as long as the file system allows.
        unfinished = path.with_name(f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}")
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            # A disk that refused the file may refuse this too: the next start removes it.
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, keys in their own order.

    Raises ValueError if the value contains NaN or infinity, which JSON does not have.
    """
    write_atomically(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A JSON file's content. Raises ValueError if the value contains NaN or infinity."""
    return _json_bytes(value, indent=2) + b"\n"


def json_lines_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A JSONL file's content. Raises ValueError if a row contains NaN or infinity."""
    return b"".join(_json_bytes(row, indent=None) + b"\n" for row in rows)


def read_json(path: Path) -> Any:
    """Read a JSON file of the run folder. Raises RunFolderError if it is missing or damaged."""
    content = _content(path)
    try:
        return json.loads(content)
    # RecursionError: endlessly nested brackets.
    except (ValueError, RecursionError) as error:
        raise RunFolderError(
            f"{path} is not valid JSON ({error}): it was damaged or changed by hand"
        ) from error


def json_object_at(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one if there is no file, or it holds something else."""
    try:
        found = read_json(path)
    except RunFolderError:
        return {}
    return found if isinstance(found, dict) else {}


def _content(path: Path) -> bytes:
    """The file's bytes. Raises RunFolderError if there is none, StorageError if it cannot be
    read."""
    try:
        with reading(path):
            return path.read_bytes()
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            reason = error.__cause__.strerror
            raise RunFolderError(f"{path} cannot be read: {reason}") from error
        raise


class JsonLines(NamedTuple):
    """The rows of a JSONL file; `torn_end` is what a killed writer left of a last row, or None."""

    rows: list[dict[str, Any]]
    torn_end: str | None


def read_json_lines(path: Path, *, allow_torn_end: bool = False) -> JsonLines:
    """Read the rows that a JsonLinesWriter wrote.

    With `allow_torn_end` an incomplete last row is returned with the rows, for the caller to
    report. Raises RunFolderError for it otherwise, and for any other damage, with its line.
    """
    *lines, end = _content(path).split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _parsed_row(line)
        if row is None:
            raise RunFolderError(f"{path}:{number}: not a JSON object; the file is damaged")
        rows.append(row)
    if not end:
        return JsonLines(rows, None)
    last = _parsed_row(end)
    if last is not None:
        return JsonLines([*rows, last], None)
    if not allow_torn_end:
        raise RunFolderError(
            f"{path}:{len(lines) + 1}: the last row is incomplete: its writer was stopped"
        )
    return JsonLines(rows, end.decode(errors="replace"))


class AppendedFile:
    """A growing file. Each piece is handed to the system completely before `append` returns:
    nothing remains of a piece that the system refuses."""

    def __init__(self, path: Path, *, resume: bool = True) -> None:
        self._path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: refused data must not be written again when the file is closed.
            self._file = path.open("ab" if resume else "wb", buffering=0)

    def append(self, data: bytes) -> None:
        """Add to the file's end. Raises StorageError if the system refuses."""
        with writing(self._path, needed_bytes=len(data)):
            end = self._file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
            except BaseException:
                # Best effort: any remainder is cut off by the next start, as after a kill.
                with suppress(OSError):
                    self._file.truncate(end)
                raise

    def close(self) -> None:
        """Flush the file to disk and close it. A second call does nothing."""
        if not self._file.closed:
            with writing(self._path), self._file:
                os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JsonLinesWriter(AppendedFile):
    """Appends rows to a JSONL file, each handed to the system before `write` returns.

    resume: keep the existing rows, else start again. An incomplete last row left by a killed
    writer is then cut off; `torn_end` holds it, for the caller to report.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        with writing(path):
            self.torn_end = _mend_end(path) if resume and path.exists() else None
        super().__init__(path, resume=resume)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. Raises ValueError if it contains NaN or infinity."""
        self.append(_json_bytes(row, indent=None) + b"\n")


class Seal(NamedTuple):
    """A file's state when it was written: its hash in hex, and its size."""

    sha256: str
    num_bytes: int

    @classmethod
    def of(cls, content: bytes) -> Seal:
        return cls(hashlib.sha256(content).hexdigest(), len(content))


def sha256(path: Path) -> str:
    """The file's hash in hex."""
    return seal(path).sha256


def seal(path: Path, *, sync: bool = False) -> Seal:
    """The file's hash and size. sync: put it on disk first."""
    with reading(path), path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Seal(digest, file.tell())


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk; otherwise a rename may be lost in a power failure."""
    with writing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the hash of all its values as `seal`, so that any change is detected."""
    return {**record, "seal": _hash_of_values(record)}


def seal_is_whole(record: Mapping[str, Any]) -> bool:
    """Whether a record made by `sealed` is unchanged."""
    rest = {key: value for key, value in record.items() if key != "seal"}
    return record.get("seal") == _hash_of_values(rest)


def _hash_of_values(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _json_bytes(value: Any, indent: int | None) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can write as \ud83d but UTF-8 cannot encode.
        return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent).encode()


def _parsed_row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _mend_end(path: Path) -> str | None:
    """Make the file end with a complete line; return the incomplete row that was cut off."""
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.rfind(b"\n") + 1
            end = content[start:]
        if not end:
            return None
        if _parsed_row(end) is not None:
            file.write(b"\n")
            return None
        file.truncate(start)
        return end.decode(errors="replace")
