"""What SIGINT, SIGTERM and SIGHUP do: end the process at once, or where nothing is lost.

    anywhere                        at once: exit code 130, 143 or 129
    inside `held` (training,        SIGINT: after the current step or batch; twice: at once
    answering)                      SIGTERM: the same, or sooner if that takes long
                                    SIGHUP (the terminal was closed): as SIGTERM, unless the
                                    process was started to ignore it (nohup)
    inside `unbroken`               after it, however often

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
# How long a process that is ending may take to clean up before a further signal ends it at once.
_ENDING_SECONDS = 5.0
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
        self.unbroken = False
        self.what = ""
        self.number: int | None = None
        self.since = 0.0
        self.ending_since: float | None = None
        self.stopped = "{signal}: stopped. Run the same command again to resume."


_request = _Request()


def install(stopped: str | None = None) -> None:
    """Take over SIGINT, SIGTERM and SIGHUP. Only a program's main thread may do that.

    stopped: the final message, with {signal} in it; None means the English one.
    """
    _request.stopped, _request.ending_since = stopped or _Request().stopped, None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _receive)
    # nohup starts a program with SIGHUP ignored, so that it outlives the terminal.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _receive)


def finish() -> None:
    """Note that the process has done its work: a signal while it ends interrupts nothing."""
    _request.ending_since = time.monotonic()


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


@contextmanager
def unbroken(what_is_finished: str) -> Iterator[None]:
    """As `held`, and a second SIGINT waits too: for a few seconds of work in which C++ calls Python
    and cannot pass on an exception, so that raising one there would abort the process."""
    with held(what_is_finished):
        before, _request.unbroken = _request.unbroken, True
        try:
            yield
        finally:
            _request.unbroken = before


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
    """Raises Stopped if SIGTERM or SIGHUP has been pending for so long that the current work must
    be dropped."""
    number = _request.number
    if number is None or number == signal.SIGINT:
        return
    if time.monotonic() - _request.since > _PATIENCE_SECONDS:
        raise _stopped(number, at_once=False)


def _receive(number: int, frame: FrameType | None) -> None:
    if _request.ending_since is not None:
        # Raised again here, it would break off the cleaning up, or show as a traceback.
        if time.monotonic() - _request.ending_since > _ENDING_SECONDS:
            os._exit(128 + number)
        return
    is_second = _request.number == number == signal.SIGINT
    if not _request.holding or (is_second and not _request.unbroken):
        raise _stopped(number, at_once=True)
    if _request.number != number:
        _request.number, _request.since = number, time.monotonic()
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        name = signal.Signals(number).name
        _say(f"{name}: finishing {_request.what}{again}")


def _stopped(number: int, *, at_once: bool) -> Stopped:
    _request.ending_since = time.monotonic()
    name = signal.Signals(number).name
    _say(_request.stopped.format(signal=name))
    return Stopped(number, at_once=at_once)


def _say(text: str) -> None:
    # Bypasses sys.stderr, which the interrupted code may be writing to.
    with suppress(OSError):
        os.write(_STANDARD_ERROR, f"\n{text}\n".encode())
