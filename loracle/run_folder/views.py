"""The views of a run's progress for people: bars on a terminal (`bars`), else plain lines.

Everything goes to the standard error stream: standard output is for the result.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TextIO

from loracle.language import Language
from loracle.run_folder.bars import RichView, SafeConsole
from loracle.run_folder.events import Narrator
from loracle.run_folder.reporter import View

Progress = Literal["auto", "plain", "quiet", "verbose"]
"""`auto`: bars on a terminal, else lines. `plain`: lines. `quiet`: only warnings and failures.
`verbose`: a line for every event."""


def choose_view(progress: Progress = "auto", language: Language = "en") -> View:
    """The requested view; bars only on a terminal."""
    if progress == "auto" and _is_for_bars():
        return _translated(RichView(language=language), language)
    if progress == "quiet":
        return _translated(QuietView(), language)
    return _translated(PlainView(every_event=progress == "verbose"), language)


def _is_for_bars() -> bool:
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    return on_terminal and not SafeConsole(stderr=True).is_dumb_terminal


def _translated(view: View, language: Language) -> View:
    return view if language == "en" else TranslatedView(view, language)


class TranslatedView:
    """Another view, with lines in a different language from the logs'."""

    def __init__(self, view: View, language: Language) -> None:
        self.view = view
        self._narrator = Narrator(language)

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        self.view.show(kind, fields, self._narrator.line(kind, fields))

    def close(self) -> None:
        self.view.close()


class PlainView:
    """One line for each event, for logs and pipes.

    Steps and answered questions are frequent: only the first and the last are shown, and between
    them one after every 5 seconds or tenth of the work.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        every_event: bool = False,
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._throttle = _Throttle(5.0)
        self._every_event = every_event

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        work = None if self._every_event else _work(kind, fields)
        if work is None or self._throttle.lets_through(work, self._clock()):
            _write_line(self._stream, line)

    def close(self) -> None:
        """Every line is already printed."""


class QuietView:
    """Warnings and failures, nothing else."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        if kind in ("warning", "trial_failed"):
            _write_line(self._stream, line)

    def close(self) -> None:
        """Every line is already printed."""


def _write_line(stream: TextIO | None, line: str) -> None:
    # None: the process was started without a standard error stream.
    if stream is not None:
        stream.write(f"{line}\n")
        stream.flush()


class _Work(NamedTuple):
    """The progress of a stage: steps of a training, or questions of an evaluation."""

    stage: tuple[str, ...]
    num_done: int
    total: int

    @property
    def is_last(self) -> bool:
        return self.num_done >= self.total


def _work(kind: str, fields: Mapping[str, Any]) -> _Work | None:
    """The progress reported by the event, or None for other events."""
    if kind == "step":
        return _Work((fields["trial"],), fields["step"], fields["num_steps"])
    if kind == "evaluated":
        stage = (fields["trial"], fields["evaluation"])
        return _Work(stage, fields["num_done"], fields["num_examples"])
    return None


class _Throttle:
    """Lets a stage's first and last event through, and one for each interval or tenth between."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._last: _Work | None = None
        self._last_time = 0.0

    def lets_through(self, work: _Work, now: float) -> bool:
        last = self._last
        passes = (
            last is None
            or work.stage != last.stage
            or work.num_done <= last.num_done  # the same stage again, with another seed
            or work.is_last
            or now - self._last_time >= self._interval_seconds
            or (work.num_done - last.num_done) * 10 >= work.total
        )
        if passes:
            self._last, self._last_time = work, now
        return passes
