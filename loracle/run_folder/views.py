"""The views of a run's progress for people: bars on a terminal, else plain lines.

Everything goes to the standard error stream: standard output is for the result.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from loracle.run_folder.reporter import View


def choose_view(json_output: bool) -> View:
    """Bars where a person looks on, plain lines else. With JSON output a program does: lines."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if json_output or not on_terminal or _Console(stderr=True).is_dumb_terminal:
        return PlainView()
    return RichView()


class PlainView:
    """One line for each event, for logs and pipes.

    Steps and answered questions come often: of these the first and the last are shown, and
    between them one whenever 5 seconds or a tenth of the work went by.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._throttle = _Throttle(5.0)

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        work = _work(kind, fields)
        if work is None or self._throttle.lets_through(work, self._clock()):
            _write_line(self._stream, line)

    def close(self) -> None:
        """Every line is out already."""


class QuietView:
    """Warnings and failures, nothing else."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        if kind in ("warning", "trial_failed"):
            _write_line(self._stream, line)

    def close(self) -> None:
        """Every line is out already."""


def _write_line(stream: TextIO | None, line: str) -> None:
    # None: the process was started without a standard error stream.
    if stream is not None:
        stream.write(f"{line}\n")
        stream.flush()


class RichView:
    """Two bars, one for the trials and one for the stage under way; results stay above them."""

    _MIN_SECONDS_BETWEEN_FRAMES = 0.1

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or _Console(stderr=True)
        self._clock = clock
        self._last_frame = -float("inf")
        self._progress = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            # Frames are drawn by `show`: a thread of its own would meet a closed terminal where
            # nobody can catch the error.
            auto_refresh=False,
            transient=True,
            # Standard output belongs to the result.
            redirect_stdout=False,
        )
        self._trials = self._progress.add_task("", visible=False)
        self._stage = self._progress.add_task("", visible=False)

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        self._progress.start()
        if work := _work(kind, fields):
            self._show_stage(line, work.num_done, work.total)
            self._draw(at_once=work.is_last)
            return
        if kind in _STAGE_STARTS:
            self._show_stage(line, 0, fields.get(_STAGE_STARTS[kind]))
        else:
            self._console.print(Text(line, style=_LINE_STYLES.get(kind, "")), soft_wrap=True)
        if "index" in fields:
            self._show_trials(fields["index"] - (kind == "trial_started"), fields["num_trials"])
        if kind in ("trial_finished", "trial_failed", "trial_skipped", "run_finished"):
            self._progress.update(self._stage, visible=False)
        self._draw(at_once=True)

    def close(self) -> None:
        self._progress.stop()

    def _show_trials(self, num_done: int, num_trials: int) -> None:
        text = f"{num_done} of {num_trials} trials"
        self._progress.update(
            self._trials, description=text, completed=num_done, total=num_trials, visible=True
        )

    def _show_stage(self, line: str, num_done: int, total: int | None) -> None:
        self._progress.update(
            self._stage, description=line, completed=num_done, total=total, visible=True
        )

    def _draw(self, *, at_once: bool) -> None:
        now = self._clock()
        if at_once or now - self._last_frame >= self._MIN_SECONDS_BETWEEN_FRAMES:
            self._last_frame = now
            self._progress.refresh()


# By the event that starts a stage: the field that says how much there is to do. The base's first
# stage is loading, of which nobody knows how long it takes.
_STAGE_STARTS = {
    "base_started": "",
    "trial_started": "num_steps",
    "evaluation_started": "num_examples",
}
_LINE_STYLES = {"warning": "yellow", "trial_failed": "red", "scored": "bold"}


class _Console(Console):
    """A console that lets a closed pipe be an error like others; Rich's own ends the program."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that is being handled


class _Work(NamedTuple):
    """How far a stage is: steps of a training, or questions of an evaluation."""

    stage: tuple[str, ...]
    num_done: int
    total: int

    @property
    def is_last(self) -> bool:
        return self.num_done >= self.total


def _work(kind: str, fields: Mapping[str, Any]) -> _Work | None:
    """The progress that the event tells of, or None where it is no such event."""
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
            or work.num_done <= last.num_done  # the same stage anew, with another seed
            or work.is_last
            or now - self._last_time >= self._interval_seconds
            or (work.num_done - last.num_done) * 10 >= work.total
        )
        if passes:
            self._last, self._last_time = work, now
        return passes
