"""resume, status and verify, from the user's seat."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loracle import cli
from loracle.files import read_json
from loracle.run_folder.folder import RunFolder
from tests import command, forked
from tests.small_run import SETTINGS, World, make_world, numbers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("runs") / "world")
    world.start()
    return world


@pytest.fixture
def world(finished: World, tmp_path: Path) -> World:
    return finished.copied(tmp_path / "run")


def loracle(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["loracle", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_resuming_a_finished_run_imports_no_torch_and_takes_a_moment(world: World) -> None:
    code = (
        "import sys; sys.argv = ['loracle', 'resume', sys.argv[1]]\n"
        "from loracle.cli import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    started = time.process_time(), os.times().children_user
    found = subprocess.run(
        [sys.executable, "-c", code, str(world.run)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=world.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "is finished; all its files are intact" in found.stderr
    assert os.times().children_user - started[1] < 5


def test_a_run_is_resumed_from_another_folder(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = numbers(read_json(world.run / "results.json"))
    (world.run / "trials/b--s0/DONE").unlink()
    monkeypatch.chdir(tmp_path)
    assert loracle(monkeypatch, "resume", "run") == 0
    assert numbers(read_json(world.run / "results.json")) == expected


def test_one_candidate_can_be_made_again_and_a_foreign_name_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (world.run / f"trials/{name}--s0/DONE").unlink()
    assert loracle(monkeypatch, "resume", world.run, "--candidate", "a") == 1
    statuses = {row["candidate"]: row for row in read_json(world.run / "results.json")["rows"]}
    assert (statuses["a"]["status"], statuses["b"]["status"]) == ("done", "failed")
    assert "`loracle resume` runs it" in statuses["b"]["reason"]
    assert not (world.run / "trials/b--s0/FAILED.json").exists()
    assert loracle(monkeypatch, "resume", world.run, "--candidate", "c") == 2
    assert "--candidate: found 'c'; the run has: a, b" in capsys.readouterr().err


def test_a_failed_trial_stays_until_it_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = RunFolder(world.run).trial("b", 0)
    trial.clear()
    trial.fail("the loss became nan")
    assert loracle(monkeypatch, "resume", world.run) == 1
    assert trial.failure() == "the loss became nan"
    assert loracle(monkeypatch, "resume", world.run, "--retry-failed") == 0
    assert trial.done.exists()


def test_status_of_a_run_at_work_and_of_a_killed_one(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    settings = [part for setting in SETTINGS[1:] for part in ("--set", setting)]
    files = [world.root / name for name in ("a.jsonl", "b.jsonl")]
    arguments = ["run", *files, "--eval", world.root / "test.jsonl", "--model", world.model]
    arguments += ["--out", world.run, *settings, "--set", "training.epochs=400"]
    steps = world.run / "trials/a--s0/steps.jsonl"
    deadline = time.monotonic() + 120
    with forked.started(forked.LORACLE, *arguments, folder=tmp_path) as process:
        while not (steps.is_file() and steps.read_bytes().count(b"\n") > 3):
            assert time.monotonic() < deadline, process.errors()
            time.sleep(0.05)
        running = status_of(world.run)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait().returncode == -signal.SIGKILL
    assert running["state"] == "running"
    assert f"process {process.pid} on " in running["holder"]
    assert running["trials"][1]["state"] == "training"
    assert 0 < running["trials"][1]["percent"] < 100
    killed = status_of(world.run)
    assert killed["state"] == "interrupted"
    assert [trial["state"] for trial in killed["trials"]] == ["done", "interrupted", "waiting"]


def status_of(run: Path) -> dict[str, object]:
    with contextlib.redirect_stdout(io.StringIO()) as written:
        assert command.loracle("status", run, "--json") == 0
    out = written.getvalue()
    (record,) = json.loads(out)
    return dict(record)


def test_status_lists_the_runs_of_a_folder(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loracle(monkeypatch, "status", world.run.parent) == 0
    out = capsys.readouterr().out
    assert f"{world.run}: finished · 100 %" in out
    assert loracle(monkeypatch, "status", world.root / "model") == 2
    assert "is not a run folder and contains none" in capsys.readouterr().err


def test_verify_names_what_is_damaged_and_the_way_out(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loracle(monkeypatch, "verify", world.run) == 0
    assert "files checked: all as written" in capsys.readouterr().out
    path = world.run / "trials/a--s0/predictions/test.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert loracle(monkeypatch, "verify", world.run) == 1
    said = capsys.readouterr().err
    assert f"damaged: {path} has changed since it was written: it has" in said
    assert f"`loracle resume {world.run} --candidate a` to repeat it" in said
