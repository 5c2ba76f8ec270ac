"""What SIGINT and SIGTERM do: end the process immediately, or at a point where nothing is lost.

    anywhere                        at once: exit code 130 or 143
    inside `held` (training,        SIGINT: after the current step or batch; twice: at once
    answering)                      SIGTERM: the same, or sooner if that takes long

Code inside `held` calls `stop_if_asked` where stopping loses nothing, and `stop_if_urgent` where
it costs only the current work. The process exits through SystemExit, so that every `with` and
`finally` block runs.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# SIGTERM is often followed by SIGKILL 10 seconds later. The rest of that time is for a checkpoint.
_PATIENCE_SECONDS = 4.0
_STANDARD_ERROR = 2


class Stopped(SystemExit):
    """The process was asked to stop. `code` is 128 plus the signal's number.

    at_once: without finishing anything first.
    """

    def __init__(self, number: int, *, at_once: bool) -> None:
        super().__init__(128 + number)
        self.at_once = at_once


class _Request:
    """The pending signal. A process has only one, as it has one set of handlers."""

    def __init__(self) -> None:
        self.holding = False
        self.what = ""
        self.number: int | None = None
        self.since = 0.0
        self.stopped = "{signal}: stopped. Run the same command again to resume."


_request = _Request()


def install(stopped: str | None = None) -> None:
    """Take over SIGINT and SIGTERM. Only a program's main thread may do that.

    stopped: the final message, with {signal} in it; None means the English one.
    """
    _request.stopped = stopped or _Request().stopped
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _receive)


@contextmanager
def held(what_is_finished: str) -> Iterator[None]:
    """Inside, a first signal waits for `stop_if_asked`. On leaving, a pending signal stops the run.

    what_is_finished: shown to the user when the signal arrives: "the step under way, then a
    checkpoint".
    """
    if threading.current_thread() is not threading.main_thread() or _request.holding:
        yield
        return
    _request.holding, _request.what = True, what_is_finished
    try:
        yield
        stop_if_asked()
    except Exception:
        # A failure will happen again on resuming; the request to stop is not forgotten.
        stop_if_asked()
        raise
    finally:
        _request.holding, _request.number = False, None


def asked_to_stop() -> bool:
    """Whether a signal is pending."""
    return _request.number is not None


def asked_signal() -> int | None:
    """The number of the signal that waits; None if none does."""
    return _request.number


def stop_if_asked() -> None:
    """Raises Stopped if a signal is pending."""
    if _request.number is not None:
        raise _stopped(_request.number, at_once=False)


def stop_if_urgent() -> None:
    """Raises Stopped if SIGTERM has been pending for so long that the current work must be
    dropped."""
    if _request.number == signal.SIGTERM and time.monotonic() - _request.since > _PATIENCE_SECONDS:
        raise _stopped(_request.number, at_once=False)


def _receive(number: int, frame: FrameType | None) -> None:
    if not _request.holding or (_request.number == number == signal.SIGINT):
        raise _stopped(number, at_once=True)
    if _request.number != number:
        _request.number, _request.since = number, time.monotonic()
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        name = signal.Signals(number).name
        _say(f"{name}: finishing {_request.what}{again}")


def _stopped(number: int, *, at_once: bool) -> Stopped:
    name = signal.Signals(number).name
    _say(_request.stopped.format(signal=name))
    return Stopped(number, at_once=at_once)


def _say(text: str) -> None:
    # Bypasses sys.stderr, which the interrupted code may be writing to.
    with suppress(OSError):
        os.write(_STANDARD_ERROR, f"\n{text}\n".encode())
