from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loracle.files import read_json_lines
from loracle.run_folder.events import EVENTS
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter
from loracle.run_folder.views import PlainView, QuietView
from tests.run_events import A_RUN, LINES, emit_all, log_lines


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
    troubles = LINES[16:18]
    assert log_lines(run.training_log) == [*LINES[9:12], *troubles]
    assert log_lines(run.evaluation_log) == [LINES[3], *LINES[12:15], *troubles]
    assert log_lines(run.pipeline_log) == [*LINES[:11], *LINES[14:16], *troubles, *LINES[18:]]


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
    notes = [line for line in log_lines(run.pipeline_log) if "nothing more is displayed" in line]
    assert notes == [f"warning: nothing more is displayed: {error}"]


def test_a_view_that_cannot_be_closed_is_noted(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with Reporter(run, ClosingFails()) as reporter:
        reporter.emit("base_started")
    assert "Input/output error" in log_lines(run.pipeline_log)[-1]


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
        "tracker fake failed and receives nothing more (ConnectionError: no route to host); "
        "the run continues, and its folder contains everything"
    ]
    assert len(rows) == len(A_RUN) + 1
    assert failing.heard[-1] == fails_at
    assert sound.heard[-1] == "close"
