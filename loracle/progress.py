"""What the run is doing: for people on the terminal and in logs, for programs in events.jsonl.

    emit(kind, fields) ─┬─> events.jsonl     {"time": "...", "event": "step", "step": 14, ...}
                        ├─> the three logs   2026-01-02T10:00:00+00:00 [2/5 noisy] step 14/56 · ...
                        ├─> the view         bars on a terminal, else plain lines
                        └─> listeners        experiment trackers, where the plan names some

Everything goes to the standard error stream: standard output is for the result. A view that
cannot write (its terminal was closed) is dropped, with a note in the log; so is a listener that
fails. The run goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from loracle.report.results import shown_score
from loracle.report.table import visible
from loracle.store import JsonLinesWriter, RunFolder

_PIPELINE, _TRAINING, _EVALUATION = "pipeline", "training", "evaluation"
_EVERY_LOG = (_PIPELINE, _TRAINING, _EVALUATION)


class Event(NamedTuple):
    """A kind of event: its fields, the logs it goes to, and its line there.

    The line may use the fields and what `Narrator` makes of them: place, scores, duration,
    tokens_per_second, remaining, names, failures.
    """

    fields: tuple[str, ...]
    logs: tuple[str, ...]
    line: str


# A line of steps.jsonl.
_STEP_RECORD_FIELDS = (
    "step",
    "epoch",
    "loss",
    "gradient_norm",
    "learning_rate",
    "tokens_read",
    "tokens_computed",
    "seconds",
)

# `index` counts the trials from 1.
EVENTS: Mapping[str, Event] = {
    "run_started": Event(
        ("run", "num_trials", "candidates"),
        (_PIPELINE,),
        "{run} started: {num_trials} trials of {names}",
    ),
    "dataset_read": Event(("name", "description"), (_PIPELINE,), "{name}: {description}"),
    "warning": Event(("message",), _EVERY_LOG, "warning: {message}"),
    "checked": Event(("message",), (_PIPELINE,), "{message}"),
    "base_started": Event((), (_PIPELINE,), "[base] the untrained model"),
    "base_finished": Event(("seconds",), (_PIPELINE,), "[base] done in {duration}"),
    "trial_started": Event(
        ("trial", "index", "num_trials", "candidate", "seed", "num_examples", "num_steps"),
        (_PIPELINE, _TRAINING),
        "{place} started: {num_examples:,} examples, {num_steps:,} steps",
    ),
    "trial_skipped": Event(
        ("trial", "index", "num_trials", "reason"), (_PIPELINE,), "{place} skipped: {reason}"
    ),
    "step": Event(
        ("trial", "num_steps", *_STEP_RECORD_FIELDS),
        (_TRAINING,),
        "{place} step {step}/{num_steps} · loss {loss:.3f} · {tokens_per_second} tokens/s"
        " · ETA {remaining}",
    ),
    "evaluation_started": Event(
        ("trial", "evaluation", "num_examples"),
        (_EVALUATION,),
        "{place} {evaluation}: {num_examples:,} questions",
    ),
    "evaluated": Event(
        ("trial", "evaluation", "num_done", "num_examples"),
        (_EVALUATION,),
        "{place} {evaluation}: {num_done}/{num_examples} answered",
    ),
    "scored": Event(
        ("trial", "evaluation", "means"),
        (_PIPELINE, _EVALUATION),
        "{place} {evaluation}: {scores}",
    ),
    "trial_finished": Event(
        ("trial", "index", "num_trials", "seconds"), (_PIPELINE,), "{place} done in {duration}"
    ),
    "trial_failed": Event(
        ("trial", "index", "num_trials", "reason"), _EVERY_LOG, "{place} failed: {reason}"
    ),
    # The overall one first, with None for `evaluation` where it is over several sets.
    "decided": Event(("evaluation", "sentence"), (_PIPELINE,), "{sentence}"),
    "run_finished": Event(
        ("run", "num_failed", "seconds"), (_PIPELINE,), "{run} finished in {duration}{failures}"
    ),
}


# What the run prints at its end.
_SHOWN_BY_THE_RESULT = frozenset({"decided"})


class View(Protocol):
    """Shows events to a person. `line` is the event in words."""

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None: ...

    def close(self) -> None: ...


class Listener(Protocol):
    """Follows events for another program. What it raises ends it, never the run."""

    name: str
    """As a warning names it."""

    def hear(self, kind: str, fields: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Reporter:
    """Takes every event of a run. Use it as a context manager."""

    def __init__(
        self, run_folder: RunFolder | None, view: View, listeners: Sequence[Listener] = ()
    ) -> None:
        self._run_folder = run_folder
        self._view: View | None = view
        self._listeners = list(listeners)
        self._narrator = Narrator()
        self._open = ExitStack()
        self._events: JsonLinesWriter | None = None
        self._logs: dict[str, TextIO] = {}

    def emit(self, kind: str, **fields: Any) -> None:
        """Record and show one event; its fields are those of EVENTS."""
        assert kind in EVENTS, f"unknown event {kind}"
        expected = set(EVENTS[kind].fields)
        assert set(fields) == expected, f"{kind}: fields {sorted(fields)}, not {sorted(expected)}"
        line = self._narrator.line(kind, fields)
        self._record(kind, fields, line)
        if self._view is not None and kind not in _SHOWN_BY_THE_RESULT:
            try:
                self._view.show(kind, fields, line)
            # ValueError: the stream was closed in this process.
            except (OSError, ValueError) as error:
                self._drop_view(error)
        for listener in list(self._listeners):
            try:
                listener.hear(kind, fields)
            # Whatever a foreign client throws, a network or a bug: the record is complete here.
            except Exception as error:  # noqa: BLE001
                self._drop_listener(listener, error)

    def __enter__(self) -> Self:
        folder = self._run_folder
        if folder is None:
            return self
        self._events = self._open.enter_context(JsonLinesWriter(folder.events, resume=True))
        paths = (folder.pipeline_log, folder.training_log, folder.evaluation_log)
        for name, path in zip(_EVERY_LOG, paths, strict=True):
            # Names of files may hold bytes that are no UTF-8; a log line must not fail by them.
            file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
            self._logs[name] = self._open.enter_context(file)
        if self._events.torn_end is not None:
            self.emit(
                "warning",
                message=f"{folder.events.name}: a row that a stopped process left incomplete was "
                f"cut off: {self._events.torn_end!r}",
            )
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._open:
            for listener in list(self._listeners):
                try:
                    listener.close()
                except Exception as failure:  # noqa: BLE001
                    self._drop_listener(listener, failure)
            if self._view is not None:
                try:
                    self._view.close()
                except (OSError, ValueError) as failure:
                    self._drop_view(failure)

    def _record(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        if self._run_folder is None:
            return
        assert self._events is not None, "a Reporter records between `with` and its end"
        now = datetime.now(UTC)
        stamp = now.isoformat(timespec="milliseconds")
        self._events.write({"time": stamp, "event": kind, **fields})
        for name in EVENTS[kind].logs:
            self._logs[name].write(f"{now.isoformat(timespec='seconds')} {line}\n")

    def _drop_view(self, error: Exception) -> None:
        """Stop displaying. What is lost by it is on record."""
        view, self._view = self._view, None
        self.emit("warning", message=f"nothing is displayed from here on: {error}")
        if view is not None:
            # It gives the terminal back where that still works; that it may not is noted above.
            with suppress(OSError, ValueError):
                view.close()

    def _drop_listener(self, listener: Listener, error: Exception) -> None:
        self._listeners.remove(listener)
        self.emit(
            "warning",
            message=f"{listener.name} failed and gets nothing from here on "
            f"({type(error).__name__}: {error}); the run goes on, its folder holds everything",
        )


class Narrator:
    """Puts events into words. Remembers the trial under way: its place and its steps' times."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}
        self._num_timed_steps = 0
        self._timed_seconds = 0.0

    def line(self, kind: str, fields: Mapping[str, Any]) -> str:
        """The event's line. Control characters in names and reasons are spelled out."""
        self._follow(kind, fields)
        known = dict(fields)
        if "trial" in fields:
            known["place"] = self._places.get(fields["trial"], f"[{fields['trial']}]")
        if "seconds" in fields:
            known["duration"] = duration(fields["seconds"])
        if kind == "step":
            known["tokens_per_second"] = _rate(fields["tokens_read"], fields["seconds"])
            known["remaining"] = self._remaining(fields["num_steps"] - fields["step"])
        elif kind == "scored":
            known["scores"] = _scores_in_words(fields["means"])
        elif kind == "run_started":
            known["names"] = ", ".join(fields["candidates"])
        elif kind == "run_finished":
            num_failed = fields["num_failed"]
            known["failures"] = f"; {num_failed} failed" if num_failed else ""
        text = EVENTS[kind].line.format_map(known)
        # An error may come in several lines; a log has one for each event.
        return visible("; ".join(part.strip() for part in text.split("\n") if part.strip()))

    def _follow(self, kind: str, fields: Mapping[str, Any]) -> None:
        if "index" in fields:
            trial = fields["trial"]
            self._places[trial] = f"[{fields['index']}/{fields['num_trials']} {trial}]"
        if kind == "trial_started":
            self._num_timed_steps, self._timed_seconds = 0, 0.0
        elif kind == "step":
            self._num_timed_steps += 1
            self._timed_seconds += fields["seconds"]

    def _remaining(self, num_steps: int) -> str:
        return duration(self._timed_seconds / self._num_timed_steps * num_steps)


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


def choose_view(json_output: bool) -> View:
    """Bars where a person looks on, plain lines else. With JSON output a program does: lines."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if json_output or not on_terminal or _Console(stderr=True).is_dumb_terminal:
        return PlainView()
    return RichView()


def duration(seconds: float) -> str:
    """A time as people say it: "4.2 s", "1 min 20 s", "2 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole_seconds = round(seconds)
    if whole_seconds < 60:
        return f"{whole_seconds} s"
    if whole_seconds < 3600:
        return f"{whole_seconds // 60} min {whole_seconds % 60:02d} s"
    whole_minutes = round(seconds / 60)
    return f"{whole_minutes // 60} h {whole_minutes % 60:02d} min"


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


def _rate(num_tokens: int, seconds: float) -> str:
    return f"{num_tokens / seconds:,.0f}" if seconds > 0 else "–"


def _scores_in_words(means: Mapping[str, float]) -> str:
    return " · ".join(f"{metric} {shown_score(metric, mean)}" for metric, mean in means.items())
