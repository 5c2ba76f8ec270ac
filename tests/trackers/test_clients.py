"""The trackers' own files, written by a run and read back with their own readers.

TensorBoard and MLflow come with the dev extra; the others are tested where they are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loracle import trackers
from loracle.files import read_json_lines
from loracle.run_folder.reporter import Reporter
from loracle.run_folder.views import QuietView
from loracle.trackers.client import Experiment
from tests import forked, tiny
from tests.command import loracle
from tests.trackers.test_listening import PLAN, scored, started, step, trial

TRACKERS = ("tensorboard", "wandb", "mlflow", "swanlab", "trackio")
SETTINGS = ["training.epochs=1", "training.batch_size=8", "generation.max_new_tokens=4"]


def needs(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"needs the extra {name}: pip install '.[{name}]'")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, two candidates and an evaluation set, whose name is no plain ASCII."""
    folder = tmp_path_factory.mktemp("data")
    tiny.save_model(folder / "model")
    examples = tiny.passage_examples(3, 4)
    for name, chosen in (("a", examples), ("b", examples[:8]), ("测试 (1)", examples[4:])):
        rows = [
            {"messages": [{"role": m.role, "content": m.content} for m in e.conversation.messages]}
            for e in chosen
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def run_arguments(data: Path, out: Path, followers: str = "[]") -> list[object]:
    settings = [part for item in (*SETTINGS, f"trackers={followers}") for part in ("--set", item)]
    files = [data / "a.jsonl", data / "b.jsonl", "--eval", data / "测试 (1).jsonl"]
    return ["run", *files, "--model", data / "model", "--out", out, *settings]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's store in files, which it takes only when asked, and no word to its makers."""
    address = f"file:{tmp_path_factory.mktemp('mlflow')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield address


@pytest.fixture(scope="module")
def tracked(data: Path, store: str) -> Path:
    """A run that two trackers followed."""
    out = data / "tracked"
    assert loracle(*run_arguments(data, out, "[tensorboard, mlflow]")) == 0
    return out


def summary_of(run: Path, trial: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"trials/{trial}--s0/trial.json").read_text())
    return found


@needs("tensorboard")
def test_tensorboard_s_event_files_hold_curves_scores_config_and_decision(tracked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = {path.name for path in (tracked / "tensorboard").iterdir()}
    assert folders == {"base", "a", "b", "decision"}
    events = {}
    for name in folders:
        events[name] = EventAccumulator(str(tracked / "tensorboard" / name))
        events[name].Reload()
    recorded = read_json_lines(tracked / "trials/a--s0/steps.jsonl").rows
    shown = events["a"].Scalars("train/loss")
    assert [(point.step, pytest.approx(point.value)) for point in shown] == [
        (row["step"], row["loss"]) for row in recorded
    ]
    [f1] = events["b"].Scalars("eval/测试 (1)/f1")
    assert f1.value == pytest.approx(summary_of(tracked, "b")["scores"]["测试 (1)"]["f1"])
    assert "train/loss" not in events["base"].Tags()["scalars"]
    assert "_hparams_/session_start_info" in events["a"].summary_metadata
    config = events["a"].Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "lora.r: 8" in config
    assert "candidate.name: a" in config
    results = json.loads((tracked / "results.json").read_text())
    decision = events["decision"].Tensors("decision/text_summary")[0]
    sentence = decision.tensor_proto.string_val[0].decode()
    assert sentence == results["decisions"][0]["sentence"]["en"]


@needs("mlflow")
def test_mlflow_s_store_holds_an_experiment_with_a_run_for_each_trial(
    tracked: Path, store: str
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("tracked")
    results = json.loads((tracked / "results.json").read_text())
    sentence = results["decisions"][0]["sentence"]["en"]
    assert experiment.tags["mlflow.note.content"] == sentence
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"base", "a", "b", "decision"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    recorded = read_json_lines(tracked / "trials/a--s0/steps.jsonl").rows
    history = client.get_metric_history(runs["a"].info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [
        (row["step"], row["loss"]) for row in recorded
    ]
    f1 = summary_of(tracked, "b")["scores"]["测试 (1)"]["f1"]
    assert runs["b"].data.metrics["eval/测试 _1_/f1"] == f1
    assert runs["a"].data.params["lora.r"] == "8"
    assert runs["a"].data.params["candidate.name"] == "a"
    assert runs["decision"].data.tags["decision"] == sentence


def test_another_tracker_is_no_other_plan(tracked: Path, data: Path) -> None:
    before = json.loads((tracked / "results.json").read_text())
    assert loracle(*run_arguments(data, tracked, "[]")) == 0
    after = json.loads((tracked / "results.json").read_text())
    assert after | {"created": ""} == before | {"created": ""}
    stored = json.loads((tracked / "plan.json").read_text())
    assert stored["plan"]["trackers"] == []


@needs("mlflow")
def test_a_server_that_cannot_be_reached_costs_a_warning_and_not_the_run(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Nothing listens at port 9, and the client is told not to try again.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    assert loracle(*run_arguments(data, tmp_path / "run", "mlflow")) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "tracker mlflow" in line]
    assert len(warned) == 1
    assert "failed and receives nothing more" in warned[0]
    assert (tmp_path / "run" / "results.json").is_file()


def test_a_tracker_that_is_not_installed_stops_before_anything_is_made(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert loracle(*run_arguments(data, tmp_path / "run", "[swanlab, trackio]")) == 2
    assert "pip install 'loracle[swanlab,trackio]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_trackers_no_client_is_imported_and_no_connection_is_tried(
    data: Path, tmp_path: Path
) -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*_): sys.exit('a connection was tried')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from loracle import cli\n"
        "try: cli.main()\n"
        "except SystemExit as ended:\n"
        "    if ended.code: raise\n"
        f"found = set({TRACKERS}) & set(sys.modules)\n"
        "sys.exit(f'imported: {found}' if found else 0)\n"
    )
    arguments = [str(part) for part in run_arguments(data, tmp_path / "run")]
    done = forked.run(program, *arguments, folder=tmp_path)
    assert (done.returncode, done.stderr if done.returncode else "") == (0, "")
    assert not (tmp_path / "run" / "tensorboard").exists()


def follow(name: str, folder: Path) -> None:
    """What a run of one trial tells a tracker; its failure is the test's."""
    listeners = trackers.listen([name], Experiment("demo", folder, "f" * 64), PLAN)
    with Reporter(None, QuietView(sys.stderr), listeners) as reporter:
        for kind, fields in (
            ("base_started", {}),
            scored("base", 0.1),
            ("base_finished", {"seconds": 1.0}),
            started("a", "a", 0),
            step("a", 1, 3.0),
            step("a", 2, 2.0),
            scored("a", 0.6),
            ("trial_finished", trial("a", seconds=2.0)),
            ("decided", {"evaluation": "test", "sentence": "Use a. 用 a。"}),
            ("run_finished", {"run": "r", "num_failed": 0, "seconds": 3.0}),
        ):
            reporter.emit(kind, **fields)


@needs("wandb")
def test_wandb_writes_its_offline_runs_into_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    follow("wandb", tmp_path)
    assert "tracker wandb failed" not in capfd.readouterr().err
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 3
    content = b"".join(path.read_bytes() for path in files)
    for text in ("train/loss", "eval/test/f1", "lora.r", "Use a. 用 a。"):
        assert text.encode() in content or json.dumps(text)[1:-1].encode() in content


@needs("wandb")
def test_wandb_without_a_key_is_refused_and_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loracle.trackers.wandb import WeightsAndBiases

    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    problem = WeightsAndBiases.problem()
    assert problem is not None
    assert "wandb login" in problem


@needs("swanlab")
def test_swanlab_writes_its_offline_runs_into_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    follow("swanlab", tmp_path)
    assert "tracker swanlab failed" not in capfd.readouterr().err
    assert len(list((tmp_path / "swanlog").glob("run-*"))) == 3


@needs("swanlab")
def test_swanlab_without_a_key_is_refused_and_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loracle.trackers.swanlab import SwanLab

    for variable in ("SWANLAB_MODE", "SWANLAB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SWANLAB_SAVE_DIR", str(tmp_path))
    problem = SwanLab.problem()
    assert problem is not None
    assert "swanlab login" in problem


@needs("trackio")
def test_trackio_s_store_holds_the_runs(tmp_path: Path) -> None:
    # Its folder is read when it is imported.
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.trackers.test_clients import follow\n"
        "follow('trackio', Path(sys.argv[1]))\n"
        "import trackio\n"
        "runs = {run.name: run for run in trackio.Api().runs('loracle')}\n"
        "assert set(runs) == {'demo/base', 'demo/a', 'demo/decision'}, runs\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "tracker trackio failed" not in done.stderr
    assert list((tmp_path / "trackio").rglob("*.db"))
