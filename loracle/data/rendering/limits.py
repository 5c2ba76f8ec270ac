"""A chat template is a program written by the model's makers, so its time and memory are limited.

transformers runs it in a sandbox, which keeps it from files and other programs, but not from
infinite loops or texts that fill the memory. Here a timer ends the first, and a limit on the
process's memory makes the second an error; both are removed after each row.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# A row takes well under a millisecond.
MAX_SECONDS = 5.0
# The memory one rendering may use on top of the process's own; a row's text needs far less.
MAX_MEMORY_BYTES = 1 << 30
# The template's own text around the row's: system prompt, tools, markers.
MAX_ADDED_CHARACTERS = 4_000_000
_MAX_TIMES = 16

_SECONDS_BETWEEN_LOOKS = 1.0
_PAGES = Path("/proc/self/statm")


class TemplateLimitError(ValueError):
    """The template took too long, used too much memory, or wrote too much."""


def check_output(text: str, num_characters: int) -> None:
    """Raise TemplateLimitError if the template wrote far more than the row contains."""
    limit = MAX_ADDED_CHARACTERS + _MAX_TIMES * num_characters
    if len(text) > limit:
        raise TemplateLimitError(
            f"it wrote {len(text):,} characters for a row of {num_characters:,}"
        )


@contextmanager
def limited() -> Iterator[None]:
    """Limit the time and memory of the code inside. Outside the main thread, which has no
    timer, only its output is checked (`check_output`)."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    try:
        with _timed(), _memory_limited():
            yield
    except MemoryError as error:
        raise TemplateLimitError("it needs more than 1 GiB for one row") from error


@contextmanager
def _timed() -> Iterator[None]:
    def end(_: int, __: FrameType | None) -> None:
        raise TemplateLimitError(f"it runs for more than {MAX_SECONDS:.0f} seconds on one row")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Size:
    """The process's address space, measured once a second."""

    num_bytes: int | None = None
    looked_at = -_SECONDS_BETWEEN_LOOKS


def _own_bytes() -> int | None:
    now = time.monotonic()
    if now - _Size.looked_at >= _SECONDS_BETWEEN_LOOKS:
        import resource

        _Size.looked_at = now
        try:
            _Size.num_bytes = int(_PAGES.read_text().split()[0]) * resource.getpagesize()
        # Not Linux: only the timer is used.
        except OSError:
            _Size.num_bytes = None
    return _Size.num_bytes


@contextmanager
def _memory_limited() -> Iterator[None]:
    import resource

    own = _own_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if own is None:
        yield
        return
    wanted = own + MAX_MEMORY_BYTES
    bounds = [bound for bound in (wanted, soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
