"""One place for file errors from the system: which file, why, and what to do.

    with writing(path, needed_bytes=len(data)):
        ...     # an OSError in here becomes a StorageError

A disk that is temporarily full or failing is distinguished from a permanent problem: `is_passing`
says whether the same attempt may succeed later.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loracle.errors import StorageError
from loracle.text import size

_AGAIN = "then run the same command again: finished work is kept"
_ADVICE = {
    errno.ENOSPC: f"free space on that disk, or choose another folder; {_AGAIN}",
    errno.EDQUOT: f"your quota there is used up: remove files, or ask for a larger quota; {_AGAIN}",
    errno.EIO: f"the disk or its network is failing: check the system log (dmesg), {_AGAIN}",
    errno.EACCES: f"change the owner or mode of it and of its folder, {_AGAIN}",
    errno.EPERM: f"change the owner or mode of it and of its folder, {_AGAIN}",
    errno.EROFS: "that file system is mounted read-only: choose another folder",
    errno.EMFILE: f"raise the limit on open files (ulimit -n), {_AGAIN}",
    errno.ENFILE: f"raise the system's limit on open files, {_AGAIN}",
    errno.EFBIG: "raise the limit on file size (ulimit -f), or choose another disk",
    errno.ENAMETOOLONG: "choose shorter names",
    errno.ENOENT: "it or its folder was removed in the meantime: run the same command again",
    errno.ESTALE: f"the network disk lost it: mount it again, {_AGAIN}",
    errno.ENOMEM: f"the system has no memory left: close other programs, {_AGAIN}",
}
_OTHER_ADVICE = f"check the system log, {_AGAIN}"
# Errors that may be gone at the next attempt. A network disk also refuses briefly while its login
# is renewed.
_PASSING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EACCES,
        errno.EPERM,
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOENT,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
# Rust libraries report the system's error number only in their text.
_NUMBER_IN_TEXT = re.compile(r"\(os error (\d+)\)")


@contextmanager
def writing(path: Path, *, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn errors while `path` is written into a StorageError.

    needed_bytes: its final size, if known, for the message.
    """
    try:
        yield
    except StorageError:
        raise
    # Exception: safetensors and pyarrow raise errors of their own, with the system's number.
    except Exception as error:
        number = _system_number(error)
        if number is None:
            raise
        raise storage_error(path, "written", number, needed_bytes=needed_bytes) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors while `path` is read into a StorageError."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(path, "read", error.errno or errno.EIO) from error


def storage_error(
    path: Path | str, what: str, number: int, *, needed_bytes: int | None = None
) -> StorageError:
    """The error for one file. what: "written" or "read"; number: the system's, as errno.ENOSPC."""
    name = errno.errorcode.get(number, str(number))
    text = f"{path} cannot be {what}: {os.strerror(number)} ({name})"
    figures = [] if needed_bytes is None else [f"it needs {size(needed_bytes)}"]
    free = free_bytes(Path(path)) if number in (errno.ENOSPC, errno.EDQUOT) else None
    if free is not None:
        figures.append(f"{size(free)} are free there")
    if figures:
        text += f"; {', '.join(figures)}"
    return StorageError(
        f"{text}; {_ADVICE.get(number, _OTHER_ADVICE)}", is_passing=number in _PASSING
    )


def free_bytes(path: Path) -> int | None:
    """Free space for this user on a path's disk; the path need not exist yet."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def _system_number(error: Exception) -> int | None:
    """The system's error number, or None for other kinds of errors."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    if type(error).__module__.partition(".")[0] in ("safetensors", "pyarrow", "builtins"):
        found = _NUMBER_IN_TEXT.search(str(error))
        return int(found[1]) if found else None
    return None
