"""Files that a kill never spoils.

A file is either rows that are appended one by one, or it is replaced as a whole, never half.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from loracle.errors import RunFolderError

# Files under way. The name is our own, so that remains of a killed process can be removed.
UNFINISHED_PREFIX = ".loracle-unfinished-"


def sync_file(path: Path) -> None:
    """Put on disk what was written to a file so far."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes | str) -> None:
    """Put `data` (text as UTF-8) at `path`: whoever reads sees the old file or the whole new one.

    Folders above are made. The file is on disk when this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A short random name: the final one may be as long as the file system allows.
    unfinished = path.with_name(f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}")
    try:
        with unfinished.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, keys in their own order.

    Raises ValueError where the value holds NaN or infinity, which JSON does not have.
    """
    write_atomically(path, _json_bytes(value, indent=2) + b"\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file atomically. Raises ValueError where a row holds NaN or infinity."""
    write_atomically(path, b"".join(_json_bytes(row, indent=None) + b"\n" for row in rows))


def read_json(path: Path) -> Any:
    """Read a JSON file of the run folder. Raises RunFolderError where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunFolderError(
            f"{path} is not valid JSON ({error}): it was damaged or changed by hand"
        ) from error


class JsonLines(NamedTuple):
    """The rows of a JSONL file; `torn_end` is what a killed writer left of a last row, or None."""

    rows: list[dict[str, Any]]
    torn_end: str | None


def read_json_lines(path: Path, *, allow_torn_end: bool = False) -> JsonLines:
    """Read the rows that a JsonLinesWriter wrote.

    With `allow_torn_end` an incomplete last row is handed back beside the rows, for the caller to
    report. Raises RunFolderError for it otherwise, and for any other damage, with its line.
    """
    try:
        *lines, end = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from error
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


class JsonLinesWriter:
    """Appends rows to a JSONL file, each handed to the system before `write` returns.

    resume: keep the rows that are there, else start anew. A last row that a killed writer left
    incomplete is cut off then; `torn_end` holds it, for the caller to report.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.torn_end = _mend_end(path) if resume and path.exists() else None
        self._file = path.open("ab" if resume else "wb")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. Raises ValueError where it holds NaN or infinity."""
        self._file.write(_json_bytes(row, indent=None) + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Put the rows on disk and close the file. A second call does nothing."""
        if not self._file.closed:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def synced_sha256(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names on disk, without which a rename may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _json_bytes(value: Any, indent: int | None) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can spell as \ud83d and UTF-8 cannot.
        return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent).encode()


def _parsed_row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _mend_end(path: Path) -> str | None:
    """Make the file end with a whole line; return an incomplete row that was cut off."""
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
