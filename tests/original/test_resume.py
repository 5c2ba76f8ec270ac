"""The pipeline is resumed, says how it stands, and never passes off another run's results."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loracle.errors import PlanError, RunFolderError
from loracle.experiment import attempt
from tests import forked
from tests.original.conftest import GENERATION_KWARGS, TRAINING_ARGS, question_rows, write_rows
from training.pipeline_module import run_training_evaluation_pipeline

TIMES = ("seconds", "_seconds", "_per_second")


@pytest.fixture
def given(
    tmp_path: Path, train_path: Path, eval_path: Path, model_folder: Path, config_dir: Path
) -> dict[str, Any]:
    """The arguments of a pipeline over two datasets, the second of many steps."""
    rows = [{**row, "answer": f"no {row['id']}"} for row in question_rows()]
    second = write_rows(tmp_path / "second.jsonl", rows)
    return {
        "dataset_paths": [(str(train_path), str(eval_path)), (str(second), str(eval_path))],
        "model_path": str(model_folder),
        "lora_config_dir": str(config_dir),
        "config_name": "small",
        "result_output_path": str(tmp_path / "out" / "results.json"),
        "training_args": TRAINING_ARGS,
        "evaluation_generation_kwargs": GENERATION_KWARGS,
    }


def without_times_and_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_times_and_places(inner)
            for key, inner in value.items()
            if not key.endswith(TIMES) and not key.endswith(("_path", "run_folder"))
        }
    return [without_times_and_places(one) for one in value] if isinstance(value, list) else value


def state(given: dict[str, Any]) -> dict[str, Any]:
    return json.loads(Path(given["result_output_path"]).read_text())


def stop_in_second_training(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    run_trial = attempt.run_trial

    def stopping(setup: Any, training_set: Any, *rest: Any) -> Any:
        if training_set.name == "second":
            raise error
        return run_trial(setup, training_set, *rest)

    monkeypatch.setattr(attempt, "run_trial", stopping)


@pytest.mark.long
def test_after_kill_9_in_dataset_2_the_same_script_ends_as_if_undisturbed(
    given: dict[str, Any], tmp_path: Path
) -> None:
    many = {**given, "training_args": {**TRAINING_ARGS, "num_train_epochs": 40, "save_steps": 3}}
    imported = "from training.pipeline_module import run_training_evaluation_pipeline as run"
    trials = Path(given["result_output_path"]).with_name("results_run") / "trials"
    steps = trials / "second--s0" / "steps.jsonl"
    deadline = time.monotonic() + 120
    with forked.started(f"{imported}\nrun(**{many!r})\n", folder=tmp_path) as process:
        while not (steps.is_file() and steps.read_bytes().count(b"\n") > 5):
            assert time.monotonic() < deadline, process.errors()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait().returncode == -signal.SIGKILL
    assert state(given)["status"] == "running"
    assert [entry["dataset"] for entry in state(given)["datasets"]] == ["boxes"]
    adapter = trials / "boxes--s0" / "adapter" / "adapter_model.safetensors"
    trained_at = adapter.stat().st_mtime_ns

    assert list((trials / "second--s0" / "checkpoint").iterdir())
    resumed = run_training_evaluation_pipeline(**many)
    assert adapter.stat().st_mtime_ns == trained_at, "dataset 1 is not trained again"
    log = (tmp_path / "out" / "training.log").read_text()
    assert "[2/2 second] resumes after step" in log
    undisturbed = {**many, "result_output_path": tmp_path / "other" / "results.json"}
    expected = run_training_evaluation_pipeline(**undisturbed)
    assert resumed["status"] == "completed"
    assert without_times_and_places(resumed) == without_times_and_places(expected)


def test_after_ctrl_c_the_file_says_interrupted(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_in_second_training(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_training_evaluation_pipeline(**given)
    assert state(given)["status"] == "interrupted"
    assert [entry["status"] for entry in state(given)["datasets"]] == ["completed"]
    assert run_training_evaluation_pipeline(**given)["status"] == "completed"


def test_an_adapter_that_was_saved_is_named_when_a_later_dataset_fails(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_second_training(monkeypatch, RuntimeError("the driver is gone"))
    first, second = run_training_evaluation_pipeline(**given)["datasets"]
    assert (Path(first["adapter_path"]) / "adapter_model.safetensors").is_file()
    assert second["reason"] == "RuntimeError: the driver is gone"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"training_args": {"num_train_epochs": 1}}, RunFolderError, "num_train_epochs"),
        ({"training_args": {"epochs": 1}}, PlanError, "unknown key training_args.epochs"),
        ({"config_name": "none"}, PlanError, "LoRA config"),
    ],
)
def test_a_start_that_fails_leaves_no_file_standing_as_completed(
    given: dict[str, Any], changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    completed = run_training_evaluation_pipeline(**given)
    with pytest.raises(error, match=message):
        run_training_evaluation_pipeline(**{**given, **changes})
    marked = state(given)
    assert (marked["status"], marked["was"]) == ("failed", "completed")
    assert message in marked["reason"]
    assert marked["datasets"] == completed["datasets"], "of the run that the folder holds"
    again = run_training_evaluation_pipeline(**given)
    assert without_times_and_places(again) == without_times_and_places(completed)


def test_two_configurations_in_one_folder_are_kept_apart(
    given: dict[str, Any], tmp_path: Path
) -> None:
    a = run_training_evaluation_pipeline(**given)
    other = {**given, "result_output_path": tmp_path / "out" / "b.json"}
    b = run_training_evaluation_pipeline(**other, evaluation_batch_size=2)
    assert a["run_folder"] != b["run_folder"]
    for results in (a, b):
        for entry in results["datasets"]:
            assert entry["adapter_path"].startswith(results["run_folder"])


def test_the_programs_of_loracle_take_a_pipeline_s_folder(
    given: dict[str, Any], run_loracle: Callable[..., int], tmp_path: Path
) -> None:
    root = run_training_evaluation_pipeline(**given)["run_folder"]
    for command in ("report", "decide", "verify", "status", "resume"):
        assert run_loracle(command, root) == 0
    exported = tmp_path / "exported"
    assert run_loracle("export", root, "boxes", "--out", str(exported)) == 0
    assert (exported / "adapter_model.safetensors").is_file()


def test_loracle_resume_finishes_a_pipeline_and_the_same_script_takes_its_results(
    given: dict[str, Any], run_loracle: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_in_second_training(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_training_evaluation_pipeline(**given)
    assert run_loracle("resume", state(given)["run_folder"]) == 0
    stop_in_second_training(monkeypatch, RuntimeError("it is trained again"))
    assert run_training_evaluation_pipeline(**given)["status"] == "completed"


@pytest.fixture
def run_loracle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    from tests.cli.test_cli import loracle

    return lambda *arguments: loracle(*arguments, monkeypatch=monkeypatch)
