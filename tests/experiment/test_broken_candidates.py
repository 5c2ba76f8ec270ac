"""Thirty candidates, seven of them broken in different ways: 23 results, 7 reasons, exit code 1."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loracle import cli
from loracle.errors import NonFiniteError, OutOfMemoryError, StorageError
from loracle.experiment import answering, attempt, learning
from loracle.files import read_json
from loracle.run_folder.trial_folder import TrialFolder
from tests.small_run import SETTINGS, make_world

NUM_CANDIDATES = 30


def raises(error: BaseException) -> Callable[..., Any]:
    def broken(*arguments: Any, **settings: Any) -> Any:
        raise error

    return broken


# By candidate: the module and function that breaks for it, how, and what its reason says.
BROKEN: dict[str, tuple[Any, str, Callable[..., Any], str]] = {
    "c03": (learning, "train", raises(NonFiniteError("the loss is NaN")), "loss is NaN"),
    "c07": (learning, "train", raises(OutOfMemoryError("one row does not fit")), "does not fit"),
    "c11": (learning.adapter, "save", raises(OSError(errno.EROFS, "read-only")), "read-only"),
    "c13": (answering, "generate", raises(RuntimeError("CUDA launch failure")), "CUDA launch"),
    "c17": (answering, "_score", raises(ZeroDivisionError("a metric's own")), "ZeroDivisionError"),
    "c23": (learning, "_record", raises(StorageError("disk full", is_passing=True)), "disk full"),
    "c29": (learning, "require_change", raises(learning.TrialError("no change")), "no change"),
}  # fmt: skip


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each broken candidate fails in its own place, at every attempt."""
    current = [""]
    attempted = attempt.run_trial

    def run_trial(setup: Any, training_set: Any, *rest: Any) -> Any:
        current[0] = training_set.name
        try:
            return attempted(setup, training_set, *rest)
        finally:
            current[0] = ""

    monkeypatch.setattr(attempt, "run_trial", run_trial)
    monkeypatch.setattr(attempt, "_PAUSES_SECONDS", (0.0, 0.0))
    for name, (module, function, breaks, _) in BROKEN.items():
        whole = getattr(module, function)

        def chosen(
            *arguments: Any,
            _name: str = name,
            _whole: Callable[..., Any] = whole,
            _breaks: Callable[..., Any] = breaks,
            **settings: Any,
        ) -> Any:
            return (_breaks if current[0] == _name else _whole)(*arguments, **settings)

        monkeypatch.setattr(module, function, chosen)


@pytest.mark.long
@pytest.mark.usefixtures("broken")
def test_seven_broken_candidates_of_thirty_leave_23_results_and_7_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(tmp_path / "world")
    rows = (world.root / "a.jsonl").read_text().splitlines(keepends=True)
    names = [f"c{number:02}" for number in range(NUM_CANDIDATES)]
    for number, name in enumerate(names):
        (world.root / f"{name}.jsonl").write_text("".join(rows[number % 4 :]))
    data = [str(world.root / f"{name}.jsonl") for name in names]
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    evaluation = ["--eval", str(world.root / "test.jsonl"), "--model", str(world.model)]
    command = ["loracle", "run", *data, *evaluation, "--out", str(world.run), *settings]
    monkeypatch.setattr(sys, "argv", [*command, "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    results = read_json(world.run / "results.json")
    assert json.loads(shown.out) == results
    states = {row["candidate"]: row for row in results["rows"] if row["candidate"] != "base"}
    assert sum(row["status"] == "done" for row in states.values()) == 23
    failed = {name: row["reason"] for name, row in states.items() if row["status"] == "failed"}
    assert failed.keys() == BROKEN.keys()
    for name, (*_, reason) in BROKEN.items():
        assert reason in failed[name]
        assert read_json(world.run / "trials" / f"{name}--s0" / "FAILED.json")["reason"]


def test_a_disk_that_refuses_even_the_reason_of_a_failure_stops_no_other_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path / "world")
    full = StorageError("the disk is full", is_passing=False)
    finish, fail = TrialFolder.finish, TrialFolder.fail

    def refused(whole: Callable[..., Any]) -> Callable[..., Any]:
        def on_a_full_disk(folder: TrialFolder, *rest: Any, **settings: Any) -> Any:
            if folder.root.name == "a--s0":
                raise full
            return whole(folder, *rest, **settings)

        return on_a_full_disk

    monkeypatch.setattr(TrialFolder, "finish", refused(finish))
    monkeypatch.setattr(TrialFolder, "fail", refused(fail))
    results = world.start()
    assert [row["status"] for row in results["rows"]] == ["done", "failed", "done"]
    assert "its failure is in the logs" in (world.run / "pipeline.log").read_text()
    monkeypatch.undo()
    assert world.start()["num_failed"] == 0
