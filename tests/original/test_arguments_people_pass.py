"""Settings of transformers that callers pass: their meaning there, or a refusal with its reason."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from loracle.errors import (
    DataError,
    ModelError,
    PlanError,
    RunFolderError,
    TrialError,
    UserError,
)
from loracle.migration.transformers_settings import generation_arguments, training_arguments
from loracle.plan.sections import ModelPlan
from tests.original.conftest import GENERATION_KWARGS, TRAINING_ARGS, question_rows, write_rows
from training.evaluate_module import evaluate_model_on_dataset_with_progress as evaluate
from training.pipeline_module import run_training_evaluation_pipeline
from training.train_module import train_model_on_dataset_with_progress as train


def plan(**given: Any) -> Any:
    return training_arguments(given).plan()


def test_settings_of_memory_length_and_adam_reach_the_plan() -> None:
    memory = {"gradient_checkpointing": True, "max_length": 900, "overlong": "drop"}
    found = plan(**memory, adam_beta1=0.8, adam_epsilon=1e-6)
    assert (found.gradient_checkpointing, found.max_length, found.overlong) == (True, 900, "drop")
    assert (found.adam_beta1, found.adam_epsilon) == (0.8, 1e-6)


def test_save_steps_are_the_steps_between_checkpoints() -> None:
    assert plan(save_steps=50).checkpoint_every == 50


def test_adamw_by_either_name_and_no_tracker_are_accepted() -> None:
    for optim in ("adamw_torch", "adamw_torch_fused"):
        assert plan(optim=optim, report_to="none", logging_steps=10) == plan()
    for optim in ("adamw_8bit", "adamw_bnb_8bit"):
        assert plan(optim=optim) == plan().model_copy(update={"optimizer": "adamw_8bit"})
    assert training_arguments({"report_to": ["tensorboard"]}).trackers == ["tensorboard"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optim": "adafactor"}, "training_args.optim: found 'adafactor'; Loracle trains with"),
        ({"warmup_steps": 3}, "training_args.warmup_steps: use warmup_ratio"),
        ({"logging_dir": "x"}, "training_args.logging_dir: pass log_dir to the function"),
        ({"eval_strategy": "no"}, "training_args.eval_strategy: every training is followed by"),
        ({"deepspeed": "z.json"}, "training_args.deepspeed: the base is frozen"),
        ({"fp16": True, "bf16": True}, "training_args.fp16: found True beside bf16; choose one"),
        ({"logging_steps": 0}, "training_args.logging_steps: found 0; expected more than 0"),
        ({"num_train_epochs": "3"}, "num_train_epochs: found '3'; expected a number"),
        ({"dataloader_num_workers": 2}, "dataloader_num_workers: does not change what is learned"),
        ("x" * 999, "... (str); expected a dict"),
    ],
)
def test_what_is_not_supported_is_refused_with_the_alternative(given: Any, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        training_arguments(given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("pad_token_id", "known from the tokenizer"), ("max_length", "use max_new_tokens")],
)
def test_a_generation_setting_that_is_not_needed_says_so(name: str, message: str) -> None:
    with pytest.raises(PlanError, match=f"generation_kwargs.{name}: .*{message}"):
        generation_arguments({name: 1}, None, "batch_size")


@pytest.mark.parametrize("model", ["my-model", None])
def test_what_is_no_model_or_no_path_is_one_clear_error(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    with pytest.raises(ModelError, match=r"model: found \w+; expected a model in memory"):
        train(model, tokenizer, train_path, config_dir, "small")
    with pytest.raises(ModelError, match=r"model: found \w+; expected a model in memory"):
        evaluate(model, tokenizer, train_path)
    with pytest.raises(PlanError, match="path: found list; expected a path"):
        evaluate(model, tokenizer, question_rows())


def test_another_precision_than_the_models_is_refused(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    with pytest.raises(PlanError, match=r"bf16: the model is loaded in float32.*torch\.bfloat16"):
        train(model, tokenizer, train_path, config_dir, "small", training_args={"bf16": True})
    model.to(torch.bfloat16)
    given = {**TRAINING_ARGS, "bf16": True}
    found = train(model, tokenizer, train_path, config_dir, "small", training_args=given)
    assert found["num_steps"] == 6


def test_output_dir_keeps_the_run_and_a_finished_training_is_taken_from_it(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    given = {**TRAINING_ARGS, "output_dir": tmp_path / "kept"}
    first = train(model, tokenizer, train_path, config_dir, "small", training_args=given)
    assert (Path(first["adapter_path"]) / "adapter_model.safetensors").is_file()
    capsys.readouterr()
    second = train(model, tokenizer, train_path, config_dir, "small", training_args=given)
    assert "skipped: already finished" in capsys.readouterr().err
    assert second["losses"] == first["losses"]
    with pytest.raises(RunFolderError, match=r"training_args\.num_train_epochs"):
        train(
            *(model, tokenizer, train_path, config_dir, "small"),
            training_args={**given, "num_train_epochs": 1},
        )


def test_a_tracker_follows_a_training_that_is_kept_and_no_other(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path, tmp_path: Path
) -> None:
    given = {**TRAINING_ARGS, "report_to": "tensorboard"}
    with pytest.raises(PlanError, match=r"report_to: trackers follow a run that is kept; set outp"):
        train(model, tokenizer, train_path, config_dir, "small", training_args=given)
    pytest.importorskip("tensorboard")
    given["output_dir"] = str(tmp_path / "kept")
    train(model, tokenizer, train_path, config_dir, "small", training_args=given)
    assert list((tmp_path / "kept").rglob("events.out.tfevents*"))


def test_the_logs_lie_in_the_working_folder_with_every_which_step(
    model: Any, tokenizer: Any, train_path: Path, eval_path: Path, config_dir: Path, tmp_path: Path
) -> None:
    given = {**TRAINING_ARGS, "logging_steps": 4}
    train(model, tokenizer, train_path, config_dir, "small", training_args=given)
    evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    lines = (tmp_path / "training.log").read_text().splitlines()
    assert [line.split("step ")[1][:3] for line in lines if "step " in line] == ["4/6", "6/6"]
    assert "[1/1] test: 4/4 answered" in (tmp_path / "evaluation.log").read_text()
    assert "[1/1 boxes] done in" in (tmp_path / "pipeline.log").read_text()


def test_log_dir_chooses_another_folder(
    model: Any, tokenizer: Any, eval_path: Path, tmp_path: Path
) -> None:
    logs = {"log_dir": tmp_path / "logs"}
    evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS, **logs)
    assert (tmp_path / "logs" / "evaluation.log").is_file()
    assert not (tmp_path / "evaluation.log").exists()


def test_messages_name_the_settings_of_this_interface(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    steep = {**TRAINING_ARGS, "learning_rate": 3e37, "warmup_ratio": 0.0}
    with pytest.raises(TrialError, match=r"lower training_args\.learning_rate") as caught:
        train(model, tokenizer, train_path, config_dir, "small", training_args=steep)
    assert "model.dtype" not in str(caught.value)


def test_a_row_that_is_too_long_is_an_error_by_overlong(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    given = {**TRAINING_ARGS, "max_length": 40, "overlong": "error"}
    with pytest.raises(DataError, match=r"boxes\.jsonl:1") as caught:
        train(model, tokenizer, train_path, config_dir, "small", training_args=given)
    assert "training_args.max_length" in str(caught.value)


def test_too_many_malformed_rows_are_refused_by_name(
    model: Any, tokenizer: Any, tmp_path: Path, config_dir: Path
) -> None:
    rows = [*question_rows(), {"question": "Who?"}, {"question": "What?"}]
    path = write_rows(tmp_path / "malformed.jsonl", rows)
    with pytest.raises(DataError, match="malformed"):
        train(model, tokenizer, path, config_dir, "small", training_args=TRAINING_ARGS)


def test_a_split_of_a_saved_dataset_is_named_behind_the_path(
    model: Any, tokenizer: Any, tmp_path: Path, config_dir: Path
) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list(question_rows())
    DatasetDict({"train": rows, "test": rows.select(range(2))}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="train"):
        train(model, tokenizer, tmp_path / "saved", config_dir, "small")
    found = train(
        *(model, tokenizer, f"{tmp_path / 'saved'}#train", config_dir, "small"),
        training_args=TRAINING_ARGS,
    )
    assert found["num_examples"] == 12


def test_an_offloaded_model_is_refused(model: Any, tokenizer: Any, eval_path: Path) -> None:
    model.lm_head.to("meta")
    with pytest.raises(ModelError, match="weights are offloaded"):
        evaluate(model, tokenizer, eval_path)


@pytest.fixture
def pipeline(
    train_path: Path, eval_path: Path, config_dir: Path, model_folder: Path
) -> Callable[..., Any]:
    def run(**changes: Any) -> Any:
        return run_training_evaluation_pipeline(
            **{
                "dataset_paths": [(train_path, eval_path)],
                "model_path": model_folder,
                "lora_config_dir": config_dir,
                "config_name": "small",
                "result_output_path": "results.json",
                "training_args": TRAINING_ARGS,
                "evaluation_generation_kwargs": GENERATION_KWARGS,
                **changes,
            }
        )

    return run


def test_a_model_object_in_place_of_a_path_is_refused(
    pipeline: Callable[..., Any], model: Any
) -> None:
    with pytest.raises(PlanError, match="model_path: found LlamaForCausalLM; expected a folder"):
        pipeline(model_path=model)


def test_the_pipeline_loads_the_model_in_the_precision_asked_for(
    pipeline: Callable[..., Any],
) -> None:
    results = pipeline(training_args={**TRAINING_ARGS, "bf16": True})
    assert results["status"] == "completed"
    plan = (Path(results["run_folder"]) / "plan.json").read_text()
    assert '"dtype": "bfloat16"' in plan


def test_a_pipeline_without_a_results_file_is_refused(pipeline: Callable[..., Any]) -> None:
    with pytest.raises(PlanError, match="result_output_path: found None; expected a path"):
        pipeline(result_output_path=None)


def test_output_dir_of_a_pipeline_is_refused(pipeline: Callable[..., Any]) -> None:
    with pytest.raises(PlanError, match="output_dir: a pipeline keeps its run beside"):
        pipeline(training_args={"output_dir": "x"})


def test_the_batch_size_that_was_taken_is_reported(
    pipeline: Callable[..., Any], model: Any, tokenizer: Any, eval_path: Path, tmp_path: Path
) -> None:
    (entry,) = pipeline()["datasets"]
    assert entry["evaluation"]["batch_size"] == 64
    said = "questions answered together: 64, as recommended"
    assert said in (tmp_path / "evaluation.log").read_text()
    scores = evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    assert scores["batch_size"] == 64
    assert evaluate(model, tokenizer, eval_path, batch_size=3)["batch_size"] == 3


@pytest.mark.parametrize(("setting", "value"), [("quantization", "int8"), ("device_map", "auto")])
def test_quantization_and_device_map_reach_the_plan_or_are_refused(
    pipeline: Callable[..., Any], setting: str, value: str
) -> None:
    if setting in ModelPlan.model_fields:
        # Whatever becomes of the model here, the plan asks for it.
        with suppress(UserError):
            results = pipeline(**{setting: value})
            assert (
                f'"{setting}": "{value}"' in (Path(results["run_folder"]) / "plan.json").read_text()
            )
        return
    with pytest.raises(PlanError, match=f"{setting}: this version of Loracle has no such setting"):
        pipeline(**{setting: value})
