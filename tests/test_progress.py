from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loracle.progress import (
    EVENTS,
    PlainView,
    QuietView,
    Reporter,
    RichView,
    _Console,
    choose_view,
    duration,
)
from loracle.store import RunFolder, read_json_lines

STEP = {
    "trial": "noisy",
    "step": 14,
    "num_steps": 56,
    "epoch": 0.5,
    "loss": 0.8123,
    "gradient_norm": 0.2,
    "learning_rate": 1e-3,
    "tokens_read": 8620,
    "tokens_computed": 2300,
    "seconds": 2.0,
}
STARTED = {
    "trial": "noisy",
    "index": 2,
    "num_trials": 5,
    "candidate": "noisy",
    "seed": 0,
    "num_examples": 1200,
    "num_steps": 56,
}

# One event of each kind, in the order of a run.
A_RUN: list[tuple[str, dict[str, Any]]] = [
    ("run_started", {"run": "demo", "num_trials": 5, "candidates": ["clean", "noisy"]}),
    ("dataset_read", {"name": "clean", "description": "889 rows of messages, JSON"}),
    ("checked", {"message": "clean: 889 read · 889 kept · 0 dropped · 0 shortened"}),
    ("base_started", {}),
    ("base_finished", {"seconds": 4.2}),
    ("trial_skipped", {"trial": "clean", "index": 1, "num_trials": 5, "reason": "it is done"}),
    ("trial_started", STARTED),
    ("step", STEP),
    ("evaluation_started", {"trial": "noisy", "evaluation": "test", "num_examples": 301}),
    ("evaluated", {"trial": "noisy", "evaluation": "test", "num_done": 64, "num_examples": 301}),
    ("scored", {"trial": "noisy", "evaluation": "test", "means": {"f1": 0.61, "answer_nll": 2.5}}),
    ("trial_finished", {"trial": "noisy", "index": 2, "num_trials": 5, "seconds": 80.0}),
    ("warning", {"message": "memory ran out at step 3"}),
    ("trial_failed", {"trial": "odd", "index": 3, "num_trials": 5, "reason": "loss is nan"}),
    ("decided", {"evaluation": "test", "sentence": "Use noisy."}),
    ("run_finished", {"run": "demo", "num_failed": 1, "seconds": 3725.0}),
]
LINES = [
    "demo started: 5 trials of clean, noisy",
    "clean: 889 rows of messages, JSON",
    "clean: 889 read · 889 kept · 0 dropped · 0 shortened",
    "[base] the untrained model",
    "[base] done in 4.2 s",
    "[1/5 clean] skipped: it is done",
    "[2/5 noisy] started: 1,200 examples, 56 steps",
    "[2/5 noisy] step 14/56 · loss 0.812 · 4,310 tokens/s · ETA 1 min 24 s",
    "[2/5 noisy] test: 301 questions",
    "[2/5 noisy] test: 64/301 answered",
    "[2/5 noisy] test: f1 61.0 · answer_nll 2.500",
    "[2/5 noisy] done in 1 min 20 s",
    "warning: memory ran out at step 3",
    "[3/5 odd] failed: loss is nan",
    "Use noisy.",
    "demo finished in 1 h 02 min; 1 failed",
]


def emit_all(reporter: Reporter) -> None:
    for kind, fields in A_RUN:
        reporter.emit(kind, **fields)


def log_lines(path: Path) -> list[str]:
    """The lines of a log without their times."""
    return [line.partition(" ")[2] for line in path.read_text(encoding="utf-8").splitlines()]


class BrokenView:
    """A view whose terminal was closed, from the second event on."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.num_shown = 0

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        self.num_shown += 1
        if self.num_shown > 1:
            raise self.error

    def close(self) -> None:
        raise self.error


class ClosingFails:
    """A view that shows everything and cannot be closed."""

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        assert line

    def close(self) -> None:
        raise OSError(5, "Input/output error")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# Records


def test_every_kind_of_event_becomes_a_line() -> None:
    assert {kind for kind, _ in A_RUN} == set(EVENTS)
    stream = io.StringIO()
    with Reporter(None, PlainView(stream)) as reporter:
        emit_all(reporter)
    # The decision is shown with the table.
    assert stream.getvalue().splitlines() == [line for line in LINES if line != "Use noisy."]


def test_every_event_is_a_row_with_its_time_and_fields(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with Reporter(run, QuietView(io.StringIO())) as reporter:
        emit_all(reporter)
    rows = read_json_lines(run.events).rows
    assert [row.pop("event") for row in rows] == [kind for kind, _ in A_RUN]
    assert all(row.pop("time").endswith("+00:00") for row in rows)
    assert rows == [fields for _, fields in A_RUN]


def test_each_log_gets_its_events_and_all_get_warnings_and_failures(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with Reporter(run, QuietView(io.StringIO())) as reporter:
        emit_all(reporter)
    troubles = LINES[12:14]
    assert log_lines(run.training_log) == [*LINES[6:8], *troubles]
    assert log_lines(run.evaluation_log) == [*LINES[8:11], *troubles]
    assert log_lines(run.pipeline_log) == [*LINES[:7], *LINES[10:12], *troubles, *LINES[14:]]


def test_a_second_process_appends_to_the_records(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for message in ("one", "two"):
        with Reporter(run, QuietView(io.StringIO())) as reporter:
            reporter.emit("warning", message=message)
    assert [row["message"] for row in read_json_lines(run.events).rows] == ["one", "two"]
    assert log_lines(run.pipeline_log) == ["warning: one", "warning: two"]


def test_an_event_that_a_kill_left_incomplete_is_cut_off_and_reported(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.events.write_text('{"event": "step"}\n{"event": "st')
    with Reporter(run, QuietView(io.StringIO())) as reporter:
        reporter.emit("base_started")
    rows = read_json_lines(run.events).rows
    assert [row["event"] for row in rows] == ["step", "warning", "base_started"]
    assert '{"event": "st' in rows[1]["message"]


def test_an_unknown_event_or_field_is_a_mistake_of_ours() -> None:
    with Reporter(None, QuietView(io.StringIO())) as reporter:
        with pytest.raises(AssertionError, match="unknown event lunch"):
            reporter.emit("lunch")
        with pytest.raises(AssertionError, match="warning: fields"):
            reporter.emit("warning", text="x")
        with pytest.raises(AssertionError, match="step: fields"):
            reporter.emit("step", trial="a")


def test_names_and_reasons_command_no_terminal() -> None:
    stream = io.StringIO()
    with Reporter(None, PlainView(stream)) as reporter:
        reporter.emit("warning", message="\x1b[2J\x07 and 中文 {brace} 100%\u202egpj.exe")
    assert stream.getvalue() == ("warning: \\x1b[2J\\x07 and 中文 {brace} 100%\\u202egpj.exe\n")


def test_a_reason_of_several_lines_becomes_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    reason = "first problem\n  second problem\n\n"
    with Reporter(run, QuietView(io.StringIO())) as reporter:
        reporter.emit("trial_failed", trial="a", index=1, num_trials=2, reason=reason)
    assert log_lines(run.pipeline_log) == ["[1/2 a] failed: first problem; second problem"]
    assert read_json_lines(run.events).rows[0]["reason"] == reason


def test_a_file_name_that_is_no_utf_8_does_not_stop_the_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with Reporter(run, QuietView(io.StringIO())) as reporter:
        reporter.emit("warning", message="cannot read \udcff.jsonl")
    assert log_lines(run.pipeline_log) == ["warning: cannot read \\udcff.jsonl"]
    assert read_json_lines(run.events).rows[0]["message"] == "cannot read \udcff.jsonl"


# Times and rates


def test_the_remaining_time_is_that_of_the_trials_own_steps_so_far() -> None:
    stream = io.StringIO()
    with Reporter(None, PlainView(stream)) as reporter:
        for index, seconds in ((1, (1.0, 3.0)), (2, (10.0, 20.0))):
            reporter.emit("trial_started", **(STARTED | {"index": index, "num_steps": 3}))
            for step, spent in enumerate(seconds, start=1):
                fields = {"step": step, "num_steps": 3, "seconds": spent}
                reporter.emit("step", **(STEP | fields))
    remaining = [line.partition("ETA ")[2] for line in stream.getvalue().splitlines()]
    assert [text for text in remaining if text] == ["2.0 s", "2.0 s", "20 s", "15 s"]


def test_a_step_that_took_no_time_has_no_rate() -> None:
    stream = io.StringIO()
    with Reporter(None, PlainView(stream)) as reporter:
        reporter.emit("step", **(STEP | {"seconds": 0.0}))
    assert "· – tokens/s · ETA 0.0 s" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.23, "4.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (80, "1 min 20 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_times_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# Plain lines


def steps_shown(num_steps: int, seconds_per_step: float) -> list[int]:
    stream, clock = io.StringIO(), Clock()
    view = PlainView(stream, clock)
    for step in range(1, num_steps + 1):
        clock.now += seconds_per_step
        view.show("step", STEP | {"step": step, "num_steps": num_steps}, str(step))
    return [int(line) for line in stream.getvalue().split()]


def test_of_fast_steps_the_first_the_last_and_every_tenth_part_are_shown() -> None:
    shown = steps_shown(num_steps=1000, seconds_per_step=0.001)
    assert shown == [1, 101, 201, 301, 401, 501, 601, 701, 801, 901, 1000]


def test_of_slow_steps_one_in_five_seconds_is_shown() -> None:
    shown = steps_shown(num_steps=1000, seconds_per_step=1.0)
    assert shown[:3] == [1, 6, 11]
    assert shown[-1] == 1000


def test_each_evaluation_shows_its_first_and_last_count() -> None:
    stream = io.StringIO()
    view = PlainView(stream, Clock())
    for evaluation in ("a", "b"):
        for num_done in range(1, 101):
            fields = {
                "trial": "t",
                "evaluation": evaluation,
                "num_done": num_done,
                "num_examples": 100,
            }
            view.show("evaluated", fields, f"{evaluation}{num_done}")
    shown = stream.getvalue().split()
    assert shown[0] == "a1"
    assert shown[shown.index("a100") + 1] == "b1"
    assert shown[-1] == "b100"


def test_the_quiet_view_shows_warnings_and_failures_alone() -> None:
    stream = io.StringIO()
    with Reporter(None, QuietView(stream)) as reporter:
        emit_all(reporter)
    assert stream.getvalue().splitlines() == LINES[12:14]


# Bars


def rich_output(
    events: Callable[[Reporter], None], width: int = 100, clock: Callable[[], float] = lambda: 0.0
) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    with Reporter(None, RichView(console, clock)) as reporter:
        events(reporter)
    return stream.getvalue()


def test_the_bars_show_the_trials_and_the_stage_and_results_stay() -> None:
    output = rich_output(emit_all, clock=itertools.count().__next__)
    assert "1 of 5 trials" in output
    assert LINES[7] in output
    for kept in (LINES[0], LINES[5], *LINES[10:14], LINES[15]):
        assert f"{kept}\n" in output


def test_names_in_the_bars_are_text_and_not_markup() -> None:
    def events(reporter: Reporter) -> None:
        reporter.emit("trial_started", **(STARTED | {"trial": "[red]噪声[/red]"}))
        reporter.emit("warning", message="[bold]x[/nothing]")

    output = rich_output(events)
    assert "[2/5 [red]噪声[/red]] started" in output
    assert "warning: [bold]x[/nothing]" in output


def test_a_long_line_does_not_break_the_bars() -> None:
    output = rich_output(lambda r: r.emit("trial_started", **(STARTED | {"trial": "n" * 99})), 60)
    assert max(len(line) for line in output.splitlines()) < 100


def test_many_fast_steps_draw_few_frames() -> None:
    def events(reporter: Reporter) -> None:
        for step in range(1, 1000):
            reporter.emit("step", **(STEP | {"step": step, "num_steps": 1000}))

    assert rich_output(events).count("step ") < 5


def test_the_bars_leave_standard_output_to_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    rich_output(lambda reporter: print("the result"))  # noqa: T201
    console = Console(file=io.StringIO(), force_terminal=True)
    with Reporter(None, RichView(console)) as reporter:
        reporter.emit("base_started")
        print("the result while the bars are on")  # noqa: T201
    assert capsys.readouterr().out == "the result\nthe result while the bars are on\n"


# A terminal that goes away


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(32, "Broken pipe"), OSError(5, "Input/output error"), ValueError("closed")],
)
def test_a_closed_terminal_ends_the_display_and_not_the_run(
    tmp_path: Path, error: Exception
) -> None:
    run = RunFolder(tmp_path)
    view = BrokenView(error)
    with Reporter(run, view) as reporter:
        emit_all(reporter)
    assert view.num_shown == 2
    assert len(read_json_lines(run.events).rows) == len(A_RUN) + 1
    notes = [line for line in log_lines(run.pipeline_log) if "nothing is displayed" in line]
    assert notes == [f"warning: nothing is displayed from here on: {error}"]


def test_a_view_that_cannot_be_closed_is_noted(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with Reporter(run, ClosingFails()) as reporter:
        reporter.emit("base_started")
    assert "Input/output error" in log_lines(run.pipeline_log)[-1]


def test_the_bars_survive_a_broken_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    run = RunFolder(tmp_path)
    stream = io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True)
    view = RichView(_Console(file=stream, force_terminal=True), Clock())
    stderr = sys.stderr
    with Reporter(run, view) as reporter:
        reporter.emit("base_started")
        os.close(reading)
        reporter.emit("warning", message="nobody reads this")
        reporter.emit("base_started")
    assert sys.stderr is stderr
    assert "Broken pipe" in log_lines(run.pipeline_log)[2]
    assert len(read_json_lines(run.events).rows) == 4


def test_an_error_of_the_run_passes_through_and_closes_the_view() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True)

    def run_into_error() -> None:
        with Reporter(None, RichView(console)) as reporter:
            reporter.emit("base_started")
            raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        run_into_error()
    assert stream.getvalue().rstrip("\r").endswith("\x1b[2K")
    assert "\x1b[?25h" in stream.getvalue()


# The choice


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "json_output", "view"),
    [
        (Terminal(), "xterm", False, RichView),
        (Terminal(), "xterm", True, PlainView),
        (Terminal(), "dumb", False, PlainView),
        (io.StringIO(), "xterm", False, PlainView),
        (None, "xterm", False, PlainView),
    ],
)
def test_bars_are_for_people_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO | None,
    term: str,
    json_output: bool,
    view: type,
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", stream)
    assert type(choose_view(json_output)) is view


def test_without_a_standard_error_stream_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    run = RunFolder(tmp_path)
    with Reporter(run, choose_view(json_output=False)) as reporter:
        emit_all(reporter)
    assert len(read_json_lines(run.events).rows) == len(A_RUN)


# Listeners


class Listening:
    """Notes what it hears; fails at one kind of event, or when it is closed."""

    name = "tracker fake"

    def __init__(self, fails_at: str = "") -> None:
        self.heard: list[str] = []
        self._fails_at = fails_at

    def hear(self, kind: str, fields: Mapping[str, Any]) -> None:
        self.heard.append(kind)
        if kind == self._fails_at:
            raise ConnectionError("no route to host")

    def close(self) -> None:
        self.hear("close", {})


def test_a_listener_hears_every_event_and_the_end() -> None:
    listener = Listening()
    with Reporter(None, QuietView(io.StringIO()), [listener]) as reporter:
        emit_all(reporter)
    assert listener.heard == [*(kind for kind, _ in A_RUN), "close"]


@pytest.mark.parametrize("fails_at", ["step", "close"])
def test_a_listener_that_fails_is_dropped_with_one_warning(tmp_path: Path, fails_at: str) -> None:
    run = RunFolder(tmp_path)
    failing, sound = Listening(fails_at), Listening()
    with Reporter(run, QuietView(io.StringIO()), [failing, sound]) as reporter:
        emit_all(reporter)
    rows = read_json_lines(run.events).rows
    warnings = [row["message"] for row in rows if "tracker" in row.get("message", "")]
    assert warnings == [
        "tracker fake failed and gets nothing from here on (ConnectionError: no route to host); "
        "the run goes on, its folder holds everything"
    ]
    assert len(rows) == len(A_RUN) + 1
    assert failing.heard[-1] == fails_at
    assert sound.heard[-1] == "close"
