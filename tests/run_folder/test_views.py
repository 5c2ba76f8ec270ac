from __future__ import annotations

import io
import itertools
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from loracle.files import read_json_lines
from loracle.language import Language
from loracle.run_folder import bars
from loracle.run_folder.bars import RichView, SafeConsole
from loracle.run_folder.events import EVENTS, Narrator
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter
from loracle.run_folder.views import PlainView, Progress, QuietView, TranslatedView, choose_view
from loracle.text import cell_width
from tests.run_events import A_RUN, ANSWERED, LINES, STARTED, STEP, Clock, emit_all, log_lines

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
    assert stream.getvalue().splitlines() == LINES[16:18]


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
    assert "step 14/56 · loss 0.812 · 4,310 tokens/s" in output
    for kept in (LINES[0], LINES[7], *LINES[14:18], LINES[19]):
        assert f"{kept}\n" in output


def test_on_several_devices_every_trial_under_way_has_a_bar() -> None:
    def events(reporter: Reporter) -> None:
        for device, trial in enumerate(("a", "b", "c")):
            reporter.emit("trial_placed", trial=trial, device=f"node7 GPU {device}")
        for trial, step in (("a", 3), ("b", 5)):
            reporter.emit("step", **(STEP | {"trial": trial, "step": step, "num_steps": 56}))
        reporter.emit("trial_finished", trial="c", index=9, num_trials=12, seconds=1.0)

    frame = visible_lines(rich_output(events, clock=itertools.count().__next__))
    last = [line for line in frame if "step" in line or "trials" in line][-3:]
    assert [line.split()[0] for line in last[1:]] == ["a", "b"]
    assert "step 3/56" in last[1]
    assert "step 5/56" in last[2]
    assert "1 of 12 trials" in last[0]


def test_names_in_the_bars_are_text_and_not_markup() -> None:
    def events(reporter: Reporter) -> None:
        reporter.emit("trial_started", **(STARTED | {"trial": "[red]噪声[/red]"}))
        reporter.emit("trial_skipped", trial="[b]x[/b]", index=3, num_trials=5, reason="done")
        reporter.emit("warning", message="[bold]x[/nothing]")

    output = rich_output(events)
    assert "  [red]噪声[/red] " in output
    assert "[3/5 [b]x[/b]] skipped" in output
    assert "warning: [bold]x[/nothing]" in output


def test_a_long_line_does_not_break_the_bars() -> None:
    output = rich_output(lambda r: r.emit("trial_started", **(STARTED | {"trial": "n" * 99})), 60)
    assert max(len(line) for line in output.splitlines()) < 100


def visible_lines(output: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line) for line in output.splitlines()]


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", ["n" * 99, "中文数据集" * 9, "alpaca-zh-cleaned-v2-short-answers"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_names_never_push_the_bars_out(name: str, width: int, language: Language) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    with Reporter(None, RichView(console, Clock(), language)) as reporter:
        reporter.emit("trial_started", **(STARTED | {"trial": name}))
        reporter.emit("step", **(STEP | {"trial": name, "step": 56}))
        reporter.emit("evaluated", **(ANSWERED | {"trial": name, "evaluation": name}))
    lines = visible_lines(stream.getvalue())
    bars = [line for line in lines if "━" in line]
    assert bars
    assert all(cell_width(line) <= width for line in bars)
    assert any("…" in line for line in bars)


def test_lines_above_the_bars_break_between_words_and_leave_paths_whole() -> None:
    path = "runs/" + "x" * 60 + "/report.html"
    message = f"longer ones are shortened in the middle of their passage, see {path} for it"
    output = rich_output(lambda r: r.emit("warning", message=message), 60)
    [lines] = [visible_lines(output)[:3]]
    assert lines == [
        "warning: longer ones are shortened in the middle of their",
        "passage, see",
        f"{path}",
    ]


def test_parts_that_do_not_fit_are_left_out_whole() -> None:
    output = rich_output(lambda r: r.emit("step", **(STEP | {"step": 56})), 60)
    shown = [line for line in visible_lines(output) if "step 56/56" in line]
    assert shown[-1].split("━")[-1].split("─")[-1].strip() in (
        "step 56/56 · loss 0.812",
        "step 56/56",
    )


def test_answering_shows_questions_and_tokens() -> None:
    clock = Clock()

    def events(reporter: Reporter) -> None:
        reporter.emit("evaluation_started", trial="a", evaluation="test", num_examples=301)
        clock.now += 10
        reporter.emit("evaluated", **(ANSWERED | {"trial": "a", "num_done": 301}))

    output = rich_output(events, 120, clock)
    assert "test: 301/301 questions · 1,980 tokens · 198 tokens/s · 10 s" in output


@pytest.mark.parametrize(
    ("language", "few"),
    [
        (
            "en",
            "; only 3 steps for b, c: lower training.batch_size or raise training.epochs",
        ),
        ("zh", "；b, c 只训练 3 步，调小 training.batch_size 或调大 training.epochs 可增加步数"),
    ],
)
def test_a_training_of_few_steps_is_told_before_it_starts(language: Language, few: str) -> None:
    narrator = Narrator(language)
    short = narrator.line(
        "work_planned", {"num_steps": {"a": 12, "b": 3, "c": 3}, "num_questions": 8}
    )
    assert short.endswith(few)
    enough = narrator.line("work_planned", {"num_steps": {"a": 12, "b": 10}, "num_questions": 8})
    assert "training.batch_size" not in enough


def test_the_bars_tell_how_long_the_whole_run_will_take() -> None:
    clock = Clock()

    def events(reporter: Reporter) -> None:
        reporter.emit("run_started", run="r", num_trials=2, candidates=["a", "b"])
        reporter.emit("work_planned", num_steps={"a": 10, "b": 20}, num_questions=100)
        reporter.emit("evaluation_started", trial="base", evaluation="t", num_examples=100)
        clock.now += 50
        reporter.emit("evaluated", **base_answers(100))
        reporter.emit("base_finished", seconds=50.0)
        reporter.emit("trial_started", **(STARTED | {"trial": "a", "num_steps": 10}))
        reporter.emit("step", **(STEP | {"trial": "a", "step": 10, "num_steps": 10}))

    # 20 steps of 2 s and 200 answers of 0.5 s are left.
    assert "about 2 min 20 s left" in rich_output(events, 120, clock)


def base_answers(num: int) -> dict[str, object]:
    return {
        "trial": "base",
        "evaluation": "t",
        "num_done": num,
        "num_examples": num,
        "num_tokens": 9,
    }


def test_the_bars_move_by_themselves() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    with Reporter(None, RichView(console)) as reporter:
        reporter.emit("base_started")
        before = len(stream.getvalue())
        deadline = time.monotonic() + 20
        while len(stream.getvalue()) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(stream.getvalue()) > before


def test_what_the_moving_bars_meet_ends_the_display_at_the_next_event(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)

    class Closing(io.StringIO):
        closed_now = False

        def write(self, text: str) -> int:
            if self.closed_now:
                raise OSError(5, "Input/output error")
            return super().write(text)

    stream = Closing()
    view = RichView(SafeConsole(file=stream, force_terminal=True))
    with Reporter(run, view) as reporter:
        reporter.emit("base_started")
        stream.closed_now = True
        time.sleep(0.6)
        reporter.emit("base_finished", seconds=1.0)
    assert any("nothing more is displayed" in line for line in log_lines(run.pipeline_log))


def test_a_view_can_speak_chinese_while_the_logs_stay_english(tmp_path: Path) -> None:
    run, stream = RunFolder(tmp_path), io.StringIO()
    with Reporter(run, TranslatedView(PlainView(stream), "zh")) as reporter:
        emit_all(reporter)
    shown = stream.getvalue().splitlines()
    assert shown[0] == "demo 开始：共 5 次训练，候选数据集 clean, noisy"
    assert "[2/5 noisy] 第 14/56 步 · 损失 0.812 · 4,310 token/秒 · 剩余 1 分 24 秒" in shown
    assert shown[-1] == "demo 已结束，用时 1 小时 02 分；1 次失败；报告 demo/report.html"
    assert log_lines(run.pipeline_log)[0] == LINES[0]
    assert type(choose_view("plain", "zh")) is TranslatedView


def test_every_event_has_words_in_both_languages() -> None:
    placeholder = re.compile(r"{(\w+)")
    for kind, event in EVENTS.items():
        assert set(placeholder.findall(event.line)) == set(placeholder.findall(event.line_zh)), kind


def test_many_fast_steps_draw_few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine the steps take long, and frames drawn by the clock are not theirs.
    monkeypatch.setattr(bars, "_SECONDS_BETWEEN_TICKS", 600.0)

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
    view = RichView(SafeConsole(file=stream, force_terminal=True), Clock())
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
    ("stream", "term", "progress", "view"),
    [
        (Terminal(), "xterm", "auto", RichView),
        (Terminal(), "xterm", "plain", PlainView),
        (Terminal(), "xterm", "quiet", QuietView),
        (Terminal(), "xterm", "verbose", PlainView),
        (Terminal(), "dumb", "auto", PlainView),
        (io.StringIO(), "xterm", "auto", PlainView),
        (None, "xterm", "auto", PlainView),
    ],
)
def test_bars_are_for_people_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO | None,
    term: str,
    progress: Progress,
    view: type,
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", stream)
    assert type(choose_view(progress)) is view


def test_without_a_standard_error_stream_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    run = RunFolder(tmp_path)
    with Reporter(run, choose_view()) as reporter:
        emit_all(reporter)
    assert len(read_json_lines(run.events).rows) == len(A_RUN)
