"""The pipeline over several datasets: its JSON file, its logs, and failures that stay alone."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel

from loracle.errors import DataError, ModelError, PlanError
from loracle.experiment import attempt, preparing
from loracle.report.run_record import read_run
from tests import forked, tiny
from tests.data.audit.test_leakage import unlike
from tests.original.conftest import GENERATION_KWARGS, TRAINING_ARGS, question_rows, write_rows
from training import pipeline
from training.pipeline_module import (
    run_pipeline_with_progress,
    run_training_evaluation_pipeline,
)

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(model_folder: Path, config_dir: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the pipeline into tmp_path/out/results.json."""

    def run_pipeline(dataset_paths: Any, **changes: Any) -> dict[str, Any]:
        return run_training_evaluation_pipeline(
            **{
                "dataset_paths": dataset_paths,
                "model_path": model_folder,
                "lora_config_dir": config_dir,
                "config_name": "small",
                "result_output_path": tmp_path / "out" / "results.json",
                "training_args": TRAINING_ARGS,
                "evaluation_generation_kwargs": GENERATION_KWARGS,
                **changes,
            }
        )

    return run_pipeline


@pytest.mark.parametrize("function", [run_training_evaluation_pipeline, run_pipeline_with_progress])
def test_the_signature_is_that_of_the_original_system(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    by_position = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in parameters if p not in by_position] == [
        ("log_dir", None),
        ("quantization", None),
        ("device_map", None),
    ]
    assert [(p.name, p.default) for p in by_position] == [
        ("dataset_paths", inspect.Parameter.empty),
        ("model_path", inspect.Parameter.empty),
        ("lora_config_dir", inspect.Parameter.empty),
        ("config_name", inspect.Parameter.empty),
        ("result_output_path", inspect.Parameter.empty),
        ("training_args", None),
        ("evaluation_batch_size", None),
        ("evaluation_generation_kwargs", None),
    ]


def test_every_dataset_is_trained_scored_and_written(
    run: Callable[..., dict[str, Any]], train_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    other = write_rows(tmp_path / "other.jsonl", question_rows(2, 2))
    results = run([(train_path, eval_path), {"train": other, "eval": eval_path}])
    out = tmp_path / "out"
    assert json.loads((out / "results.json").read_text()) == results
    assert results["status"] == "completed"
    assert [entry["dataset"] for entry in results["datasets"]] == ["boxes", "other"]
    for entry in results["datasets"]:
        assert entry["evaluation"]["source"] == "file"
        assert entry["scores"]["num_examples"] == 4
        assert entry["lift"]["f1"] == entry["scores"]["f1"] - entry["base"]["f1"]
        rows = Path(entry["scores_path"]).read_text().splitlines()
        mean = sum(json.loads(row)["f1"] for row in rows) / len(rows)
        assert entry["scores"]["f1"] == pytest.approx(100 * mean)
        assert entry["scores"]["em"] == entry["scores"]["exact_match"]
        assert len(Path(entry["predictions_path"]).read_text().splitlines()) == 4
        low, high = entry["lift"]["intervals"]["f1"]
        assert low <= entry["lift"]["f1"] <= high
        steps = Path(entry["adapter_path"]).parent / "steps.jsonl"
        assert len(steps.read_text().splitlines()) == entry["training"]["num_steps"]
        PeftModel.from_pretrained(
            tiny.model(num_hidden_layers=2, hidden_size=32), entry["adapter_path"]
        )


def test_a_dataset_scores_the_same_alone_and_after_others(
    run: Callable[..., dict[str, Any]], train_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    other = write_rows(tmp_path / "other.jsonl", question_rows(2, 2))
    together = run([(other, eval_path), (train_path, eval_path)])["datasets"][1]
    elsewhere = tmp_path / "alone" / "results.json"
    alone = run([(train_path, eval_path)], result_output_path=elsewhere)["datasets"][0]
    assert together["training"]["losses"] == alone["training"]["losses"]
    assert together["base"] == alone["base"]
    for key in ("exact_match", "f1", "finish_reasons"):
        assert together["scores"][key] == alone["scores"][key]


def test_a_plain_path_is_measured_on_a_held_out_part_and_says_so(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    rows = [{**row, "context": unlike(row["id"][1])[:90]} for row in question_rows(9, 2)]
    train_path = write_rows(tmp_path / "nine.jsonl", rows)
    (entry,) = run([train_path])["datasets"]
    assert entry["evaluation"]["source"] == "held_out"
    assert entry["evaluation"]["path"] == str(train_path)
    assert entry["evaluation"]["share"] == 0.1
    assert "1 of 9 such groups are asked; no passage asked about" in entry["evaluation"]["rule"]
    assert entry["training"]["num_examples"] + entry["evaluation"]["num_examples"] == 18


def test_of_few_rows_a_larger_share_is_held_out_and_stated(
    run: Callable[..., dict[str, Any]], train_path: Path
) -> None:
    (entry,) = run([train_path])["datasets"]
    assert entry["evaluation"]["share"] == 0.2
    assert entry["training"]["num_examples"] + entry["evaluation"]["num_examples"] == 12


def test_what_is_said_of_shared_passages_holds_for_nine_rows_of_one_passage(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (entry,) = run([write_rows(tmp_path / "one.jsonl", question_rows(1, 9))])["datasets"]
    assert "1 of the rows asked are about a passage that is trained" in entry["evaluation"]["rule"]
    assert entry["training"]["num_examples"] + entry["evaluation"]["num_examples"] == 9


def test_a_single_row_cannot_be_split_and_the_way_out_is_named(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "one.jsonl", question_rows(1, 1))
    with pytest.raises(DataError, match=r"name an evaluation file: \(train, eval\)"):
        run([path])


def test_the_file_is_written_after_every_dataset(
    run: Callable[..., dict[str, Any]],
    train_path: Path,
    eval_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = []
    write = pipeline.write_json
    monkeypatch.setattr(
        pipeline, "write_json", lambda path, value: (written.append(value), write(path, value))
    )
    run([(train_path, eval_path), (train_path, eval_path)])
    assert [value["status"] for value in written] == ["running"] * 3 + ["completed"]
    assert [len(value["datasets"]) for value in written] == [0, 1, 2, 2]


def test_a_failing_dataset_is_recorded_and_the_others_go_on(
    run: Callable[..., dict[str, Any]],
    train_path: Path,
    eval_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "Who?"}\n')
    bad_luck = write_rows(tmp_path / "bad_luck.jsonl", question_rows(2, 2))
    run_trial = attempt.run_trial

    def sometimes(setup: Any, training_set: Any, *rest: Any) -> Any:
        if training_set.name == "bad_luck":
            raise RuntimeError("the driver is gone")
        return run_trial(setup, training_set, *rest)

    monkeypatch.setattr(attempt, "run_trial", sometimes)
    results = run([(path, eval_path) for path in (broken, bad_luck, train_path)])
    assert results["status"] == "completed_with_failures"
    assert [e["status"] for e in results["datasets"]] == ["failed", "failed", "completed"]
    assert "broken.jsonl:1: no answer" in results["datasets"][0]["reason"]
    assert results["datasets"][1]["reason"] == "RuntimeError: the driver is gone"
    assert results["summary"]["num_failed"] == 2
    log = (tmp_path / "out" / "pipeline.log").read_text()
    assert "[1/2 bad_luck] failed: RuntimeError: the driver is gone" in log


def test_after_a_changed_base_nothing_more_is_trained(
    run: Callable[..., dict[str, Any]],
    train_path: Path,
    eval_path: Path,
    write_config: Callable[..., Path],
) -> None:
    write_config(init_lora_weights="pissa")
    results = run([(train_path, eval_path), (train_path, eval_path)])
    reasons = [entry["reason"] for entry in results["datasets"]]
    assert "the base's weights changed during this trial" in reasons[0]
    assert "neither it nor a later trial can be trusted" in reasons[1]


def test_where_no_dataset_can_be_read_no_model_is_loaded(
    run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "load_model", lambda *_: pytest.fail("it was loaded"))
    results = run([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert results["status"] == "failed"
    assert results["summary"]["best_dataset"] is None
    assert "a.jsonl" in results["datasets"][0]["reason"]


def test_the_three_logs_lie_beside_the_results(
    run: Callable[..., dict[str, Any]], train_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    run(
        [(train_path, eval_path)],
        evaluation_generation_kwargs={**GENERATION_KWARGS, "temperature": 0.1},
    )
    logs = {
        name: (tmp_path / "out" / f"{name}.log").read_text()
        for name in ("training", "evaluation", "pipeline")
    }
    assert "[1/1 boxes] step 6/6" in logs["training"]
    assert "[1/1 boxes] test: 4/4 answered" in logs["evaluation"]
    assert "[base] test:" in logs["pipeline"]
    assert "finished in" in logs["pipeline"]
    assert logs["pipeline"].count("temperature: 0.1 has no effect") == 1


def test_the_run_folder_lies_beside_the_results_and_is_one_of_loracle(
    run: Callable[..., dict[str, Any]], train_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    results = run([(train_path, eval_path)])
    root = Path(results["run_folder"])
    assert root == tmp_path / "out" / "results_run"
    assert (root / "report.html").is_file()
    assert results["decision"] == read_run(root).results["decisions"][0]
    assert results["summary"]["reason"] == results["decision"]["sentence"]["en"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_args": {"epochs": 1}}, "unknown key training_args.epochs"),
        ({"config_name": "large"}, "LoRA config: there is no file"),
        ({"evaluation_batch_size": 0}, "evaluation_batch_size: found 0"),
        ({"evaluation_generation_kwargs": {"beams": 2}}, "did you mean num_beams"),
        ({"dataset_paths": []}, "dataset_paths: found none"),
    ],
)
def test_wrong_arguments_are_refused_before_a_model_is_loaded(
    run: Callable[..., dict[str, Any]],
    train_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(preparing, "load_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(PlanError, match=message):
        run(**{"dataset_paths": [train_path], **changes})
    assert not (tmp_path / "out").exists()


def test_a_folder_in_place_of_the_results_file_is_refused(
    run: Callable[..., dict[str, Any]], train_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match="is a folder; name a file in it"):
        run([train_path], result_output_path=tmp_path)


def test_a_model_that_is_not_there_ends_the_pipeline(
    run: Callable[..., dict[str, Any]], train_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        run([train_path], model_path=tmp_path / "nowhere")


def test_both_functions_give_the_same_results(
    run: Callable[..., dict[str, Any]],
    train_path: Path,
    eval_path: Path,
    tmp_path: Path,
    model_folder: Path,
    config_dir: Path,
) -> None:
    first = run([(train_path, eval_path)])
    shutil.rmtree(tmp_path / "out")
    second = run_pipeline_with_progress(
        [(train_path, eval_path)],
        str(model_folder),
        str(config_dir),
        "small",
        str(tmp_path / "out" / "results.json"),
        TRAINING_ARGS,
        None,
        GENERATION_KWARGS,
    )
    assert second["datasets"][0]["training"]["losses"] == first["datasets"][0]["training"]["losses"]
    assert second["datasets"][0]["lift"] == first["datasets"][0]["lift"]


def smoke_test(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return forked.run(
        forked.script(REPOSITORY / "training" / "test_pipeline.py"),
        *arguments,
        # From anywhere, as long as loracle's own requirements are installed.
        folder=Path(sys.executable).parent,
    )


@pytest.mark.long
def test_the_smoke_test_passes_every_part(model_folder: Path, tmp_path: Path) -> None:
    outcome = smoke_test("--model", model_folder, "--keep", tmp_path / "kept")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    lines = outcome.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        "PASS train_module",
        "PASS evaluate_module",
        "PASS pipeline_module",
    ]
    assert lines[3:] == ["3 of 3 parts passed"]
    assert (tmp_path / "kept" / "results" / "summary.json").is_file()


def test_the_smoke_test_names_a_model_that_is_not_there(tmp_path: Path) -> None:
    outcome = smoke_test("--model", tmp_path / "nowhere")
    assert outcome.returncode == 2
    assert outcome.stdout.startswith("FAIL model: model ")
