"""Training on a model that the caller loaded: what it returns, and what it leaves behind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from loracle.errors import DataError, ModelError, NonFiniteError, PlanError, TrialError
from loracle.model.adapter import adapter_fingerprint
from loracle.model.base import base_fingerprint
from loracle.model.own_layers import bare as take_off
from tests import tiny
from tests.original.conftest import TRAINING_ARGS
from training.train_module import train_model_on_dataset_with_progress as train


def state_of(model: Any) -> str:
    return base_fingerprint(model)


def test_the_signature_is_that_of_the_original_system() -> None:
    parameters = inspect.signature(train).parameters.values()
    by_position = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in parameters if p not in by_position] == [("log_dir", ".")]
    assert [(p.name, p.default) for p in by_position] == [
        ("model", inspect.Parameter.empty),
        ("tokenizer", inspect.Parameter.empty),
        ("train_dataset_path", inspect.Parameter.empty),
        ("lora_config_dir", inspect.Parameter.empty),
        ("config_name", inspect.Parameter.empty),
        ("dataset_index", 1),
        ("total_datasets", 1),
        ("training_args", None),
    ]


def test_training_returns_an_adapter_and_its_figures(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    found = train(model, tokenizer, train_path, config_dir, "small", 2, 3, TRAINING_ARGS)
    assert isinstance(found["model"], PeftModel)
    assert found["status"] == "completed"
    assert (found["dataset"], found["dataset_index"], found["total_datasets"]) == ("boxes", 2, 3)
    assert (found["num_examples"], found["num_steps"], found["batch_size"]) == (12, 6, 4)
    assert len(found["losses"]) == 6
    assert found["final_loss"] == found["losses"][-1] < found["losses"][0]
    assert found["batching"] == "forest"
    assert found["tokens_computed"] < found["tokens_read"]
    ratio = found["examples_per_second"] / found["steps_per_second"]
    assert ratio == pytest.approx(12 * 2 / 6)


def test_the_effective_batch_is_the_product_of_both_factors(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    factors = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    found = train(
        model,
        tokenizer,
        train_path,
        config_dir,
        "small.json",
        training_args={"num_train_epochs": 1, **factors},
    )
    assert (found["batch_size"], found["num_steps"]) == (6, 2)


def test_only_the_adapter_is_trained(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    before = state_of(model)
    trained = train(model, tokenizer, train_path, config_dir, "small", training_args=TRAINING_ARGS)[
        "model"
    ]
    changed = [p for name, p in trained.named_parameters() if "lora_B" in name and p.any()]
    assert len(changed) == 4, "two layers with two adapted matrices each"
    assert state_of(take_off(trained)) == before


@pytest.mark.parametrize("passed", ["the PeftModel", "the caller's own model"])
def test_the_next_training_starts_from_the_base_whichever_object_is_passed(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path, passed: str
) -> None:
    arguments = (tokenizer, train_path, config_dir, "small")
    first = train(model, *arguments, training_args=TRAINING_ARGS)
    fingerprint = adapter_fingerprint(first["model"])
    passed_model = first["model"] if passed == "the PeftModel" else model
    second = train(passed_model, *arguments, training_args=TRAINING_ARGS)
    assert second["losses"] == first["losses"]
    assert adapter_fingerprint(second["model"]) == fingerprint
    names = [name for name, _ in second["model"].named_parameters() if "lora_" in name]
    assert len(names) == 8, "one adapter, not two on top of one another"


def test_another_seed_is_another_training(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    losses = [
        train(
            model, tokenizer, train_path, config_dir, "small", training_args={**TRAINING_ARGS, **s}
        )["losses"]
        for s in ({}, {"seed": 0}, {"seed": 1})
    ]
    assert losses[0] == losses[1] != losses[2]


def test_trained_biases_of_the_base_are_put_back(
    tokenizer: Any, train_path: Path, write_config: Callable[..., Path]
) -> None:
    model = tiny.model("qwen2", num_hidden_layers=2, hidden_size=32)
    before = state_of(model)
    config_dir = write_config(bias="lora_only")
    trained = train(model, tokenizer, train_path, config_dir, "small", training_args=TRAINING_ARGS)[
        "model"
    ]
    assert any(
        p.any() for name, p in trained.named_parameters() if "q_proj" in name and "bias" in name
    )
    assert state_of(take_off(trained)) == before
    assert all(p.requires_grad for p in model.parameters()), "as the caller had it"


def test_a_lora_setting_that_changes_the_base_is_found(
    model: Any, tokenizer: Any, train_path: Path, write_config: Callable[..., Path]
) -> None:
    config_dir = write_config(init_lora_weights="pissa")
    with pytest.raises(TrialError, match=r"base's weights changed .*init_lora_weights"):
        train(model, tokenizer, train_path, config_dir, "small", training_args=TRAINING_ARGS)


def test_a_failed_training_leaves_the_base_as_it_was(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    before = state_of(model)
    steep = {**TRAINING_ARGS, "learning_rate": 3e37, "warmup_ratio": 0.0}
    with pytest.raises(NonFiniteError):
        train(model, tokenizer, train_path, config_dir, "small", training_args=steep)
    assert state_of(model) == before
    again = train(model, tokenizer, train_path, config_dir, "small", training_args=TRAINING_ARGS)
    assert again["final_loss"] < again["losses"][0]


def test_a_config_that_does_not_fit_the_model_leaves_it_as_it_was(
    model: Any, tokenizer: Any, train_path: Path, write_config: Callable[..., Path]
) -> None:
    before = state_of(model)
    config_dir = write_config("wrong", target_modules=["c_attn"])
    with pytest.raises(ModelError, match="c_attn"):
        train(model, tokenizer, train_path, config_dir, "wrong")
    assert state_of(model) == before
    write_config()
    found = train(model, tokenizer, train_path, config_dir, "small", training_args=TRAINING_ARGS)
    assert found["status"] == "completed"


def test_an_adapter_of_the_callers_own_is_taken_off(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    before = state_of(model)
    own = get_peft_model(model, LoraConfig(target_modules=["o_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(ModelError, match="attached elsewhere; pass the PeftModel"):
        train(model, tokenizer, train_path, config_dir, "small", training_args=TRAINING_ARGS)
    trained = train(own, tokenizer, train_path, config_dir, "small", training_args=TRAINING_ARGS)
    assert not any("o_proj.lora" in name for name, _ in trained["model"].named_parameters())
    assert state_of(take_off(trained["model"])) == before


def test_the_returned_adapter_can_be_saved_and_loaded_by_peft(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path, tmp_path: Path
) -> None:
    trained = train(model, tokenizer, train_path, config_dir, "small", training_args=TRAINING_ARGS)[
        "model"
    ]
    ids = torch.tensor([tokenizer("Box 1", add_special_tokens=False)["input_ids"]])
    expected = trained(ids).logits
    trained.save_pretrained(tmp_path / "adapter")
    fresh = tiny.model(num_hidden_layers=2, hidden_size=32)
    loaded = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(ids).logits, expected)


def test_a_tokenizer_without_a_chat_template_is_refused(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(ModelError, match="no chat template"):
        train(model, tokenizer, train_path, config_dir, "small")


def test_a_missing_dataset_is_named(model: Any, tokenizer: Any, config_dir: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        train(model, tokenizer, config_dir / "nowhere.jsonl", config_dir, "small")


def test_a_place_beyond_the_last_dataset_is_refused(
    model: Any, tokenizer: Any, train_path: Path, config_dir: Path
) -> None:
    with pytest.raises(PlanError, match="dataset_index: found 3 with total_datasets 2"):
        train(model, tokenizer, train_path, config_dir, "small", 3, 2)


def test_progress_goes_to_the_standard_error_stream(
    model: Any,
    tokenizer: Any,
    train_path: Path,
    config_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(model, tokenizer, train_path, config_dir, "small", 2, 5, TRAINING_ARGS)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "[2/5 boxes] started: 12 examples, 6 steps" in shown.err
    assert "step 6/6 · loss" in shown.err
