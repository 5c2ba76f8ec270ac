from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from loracle.files import read_json_lines
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter
from loracle.run_folder.views import PlainView, QuietView, RichView, _Console, choose_view
from tests.run_events import A_RUN, LINES, STARTED, STEP, Clock, emit_all, log_lines

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
    assert stream.getvalue().splitlines() == LINES[13:15]


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
    assert LINES[8] in output
    for kept in (LINES[0], LINES[5], *LINES[11:15], LINES[16]):
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
