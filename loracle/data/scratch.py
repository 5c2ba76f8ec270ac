"""Nameless files that hold what does not fit in memory while large data is checked.

They are in memory while they are small, then in the system's folder for temporary files (TMPDIR);
nothing of them outlives the process, even if it is killed.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loracle.errors import StorageError
from loracle.safety.storage_errors import free_bytes
from loracle.text import size

MAX_BYTES_IN_MEMORY = 1 << 24
DISK_BYTES_A_DATA_BYTE = 4
"""What all files of a check take together, at most about, for each byte of data: rows as they are
read, what is compared of them, their texts, and their signatures."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class ScratchFile:
    """Bytes at positions. data_bytes: about how much data is checked, for messages."""

    def __init__(self, data_bytes: int) -> None:
        self._data_bytes = data_bytes
        with self._told():
            self._file = tempfile.SpooledTemporaryFile(MAX_BYTES_IN_MEMORY)  # noqa: SIM115

    def append(self, *contents: bytes) -> None:
        """Write at the end."""
        with self._told():
            self._file.seek(0, os.SEEK_END)
            for content in contents:
                self._file.write(content)

    def read(self, position: int, num_bytes: int) -> bytes:
        """At most so many bytes from a position on."""
        with self._told():
            self._file.seek(position)
            return self._file.read(num_bytes)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _storage_error(error, self._data_bytes) from error


def _storage_error(error: OSError, data_bytes: int) -> StorageError:
    try:
        folder = tempfile.gettempdir()
    except OSError as missing:
        return StorageError(
            f"there is no folder for temporary files ({missing}); a check of large data needs "
            f"about {_needed(data_bytes)} in one: set TMPDIR=FOLDER to a folder that you may write "
            "to, and run the same command again"
        )
    if error.errno not in _FULL:
        cause = f"cannot be used: {error}"
    else:
        free = free_bytes(Path(folder))
        cause = "is full" if free is None else f"is full ({size(free)} are free)"
    return StorageError(
        f"the folder for temporary files, {folder}, {cause}; a check of large data needs about "
        f"{_needed(data_bytes)} there: free space, or set TMPDIR=FOLDER to a folder on a larger "
        "disk, and run the same command again",
        is_passing=True,
    )


def _needed(data_bytes: int) -> str:
    return size(DISK_BYTES_A_DATA_BYTE * data_bytes)
