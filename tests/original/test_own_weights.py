"""Never the wrong adapter: every result keeps its own weights, whatever is done in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from loracle.errors import ModelError, TrialError
from loracle.experiment import trial
from loracle.model.base import base_fingerprint
from tests import tiny
from tests.original.conftest import GENERATION_KWARGS, TRAINING_ARGS, question_rows, write_rows
from training.evaluate_module import evaluate_model_on_dataset_with_progress as evaluate
from training.train_module import train_model_on_dataset_with_progress as train


def weights_md5(folder: Path) -> str:
    return hashlib.md5((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([tiny.tokenizer()("Box 1 holds", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        return model(ids).logits.clone()


def fresh() -> Any:
    return tiny.model(num_hidden_layers=2, hidden_size=32)


@pytest.fixture
def train_on(
    tokenizer: Any, train_path: Path, config_dir: Path, tmp_path: Path
) -> Callable[..., Any]:
    """Trains a model on one of two datasets."""
    rows = [{**row, "answer": f"no {row['id']}"} for row in question_rows()]
    paths = {"a": train_path, "b": write_rows(tmp_path / "others.jsonl", rows)}

    def train_model(model: Any, name: str, **changes: Any) -> Any:
        given = {**TRAINING_ARGS, **changes}
        return train(model, tokenizer, paths[name], config_dir, "small", training_args=given)

    return train_model


_expected: dict[str, tuple[str, torch.Tensor]] = {}


@pytest.fixture
def expected(train_on: Callable[..., Any], tmp_path: Path) -> dict[str, tuple[str, torch.Tensor]]:
    """The md5 of the adapter, and the answers, of every dataset trained on a model of its own.

    Trained once for all tests.
    """
    if not _expected:
        for name in ("a", "b"):
            trained = train_on(fresh(), name)["model"]
            trained.save_pretrained(tmp_path / "alone" / name)
            _expected[name] = (weights_md5(tmp_path / "alone" / name), logits(trained))
    assert _expected["a"][0] != _expected["b"][0]
    return _expected


def require(
    adapted: Any, name: str, expected: dict[str, tuple[str, torch.Tensor]], folder: Path
) -> None:
    """Saved and asked, the model has the weights of that dataset."""
    adapted.save_pretrained(folder / name)
    assert weights_md5(folder / name) == expected[name][0]
    torch.testing.assert_close(logits(adapted), expected[name][1])


def test_results_of_a_loop_are_saved_and_answer_with_their_own_weights(
    model: Any, train_on: Callable[..., Any], expected: Any, tmp_path: Path
) -> None:
    results = [train_on(model, name) for name in ("a", "b")]
    for name, result in zip(("a", "b"), results, strict=True):
        require(result["model"], name, expected, tmp_path / "loop")
    torch.testing.assert_close(logits(results[0]["model"]), expected["a"][1])


def test_an_earlier_result_generates_with_its_own_weights(
    model: Any, tokenizer: Any, train_on: Callable[..., Any]
) -> None:
    prompt = tokenizer("Box 1 holds", add_special_tokens=False, return_tensors="pt")

    def text(adapted: Any) -> list[int]:
        return adapted.generate(**prompt, max_new_tokens=6, do_sample=False)[0].tolist()

    alone = [text(train_on(fresh(), name, learning_rate=0.1)["model"]) for name in ("a", "b")]
    assert alone[0] != alone[1]
    results = [train_on(model, name, learning_rate=0.1)["model"] for name in ("a", "b")]
    assert [text(adapted) for adapted in results] == alone


def test_the_caller_s_own_peft_model_keeps_its_weights(
    model: Any, train_on: Callable[..., Any], expected: Any, tmp_path: Path
) -> None:
    own = get_peft_model(model, LoraConfig(target_modules=["o_proj"], task_type="CAUSAL_LM"))
    torch.nn.init.normal_(
        own.base_model.model.model.layers[0].self_attn.o_proj.lora_B.default.weight
    )
    own.save_pretrained(tmp_path / "before")
    before = logits(own)
    trained = train_on(own, "a")["model"]
    require(trained, "a", expected, tmp_path / "after")
    own.save_pretrained(tmp_path / "after" / "own")
    assert weights_md5(tmp_path / "after" / "own") == weights_md5(tmp_path / "before")
    torch.testing.assert_close(logits(own), before)
    require(trained, "a", expected, tmp_path / "again")


def test_after_unload_no_adapter_is_said_to_be_on_and_the_base_is_as_it_was(
    model: Any, tokenizer: Any, train_on: Callable[..., Any], eval_path: Path
) -> None:
    state = base_fingerprint(model)
    base = train_on(model, "a")["model"].unload()
    assert base is model
    assert base_fingerprint(model) == state
    assert all(parameter.requires_grad for parameter in model.parameters())
    scores = evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    assert scores["has_adapter"] is False


def test_an_unloaded_result_is_saved_with_its_own_weights(
    model: Any, train_on: Callable[..., Any], expected: Any, tmp_path: Path
) -> None:
    first = train_on(model, "a")["model"]
    first.unload()
    train_on(model, "b")
    require(first, "a", expected, tmp_path / "unloaded")


def test_after_a_merge_no_adapter_is_said_to_be_on_and_the_result_is_refused(
    model: Any,
    tokenizer: Any,
    train_on: Callable[..., Any],
    expected: Any,
    eval_path: Path,
    tmp_path: Path,
) -> None:
    trained = train_on(model, "a")["model"]
    merged = trained.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected["a"][1], rtol=1e-3, atol=1e-3)
    scores = evaluate(merged, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    assert scores["has_adapter"] is False
    with pytest.raises(ModelError, match="no longer those that this adapter was trained on"):
        trained.save_pretrained(tmp_path / "merged")


def test_training_on_a_base_with_merged_layers_is_refused(
    model: Any, train_on: Callable[..., Any]
) -> None:
    train_on(model, "a")["model"].merge_adapter()
    with pytest.raises(ModelError, match="merge_adapter does that"):
        train_on(model, "b")


def test_an_earlier_result_is_merged_with_its_own_weights(
    model: Any, train_on: Callable[..., Any], expected: Any
) -> None:
    first = train_on(model, "a")["model"]
    train_on(model, "b")
    torch.testing.assert_close(
        logits(first.merge_and_unload()), expected["a"][1], rtol=1e-3, atol=1e-3
    )


def test_the_inner_model_of_a_foreign_peft_model_is_seen_to_carry_an_adapter(
    model: Any, tokenizer: Any, eval_path: Path
) -> None:
    own = get_peft_model(model, LoraConfig(target_modules=["o_proj"], task_type="CAUSAL_LM"))
    inner = own.get_base_model()
    scores = evaluate(inner, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    assert scores["has_adapter"] is True
    with own.disable_adapter():
        scores = evaluate(inner, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    assert scores["has_adapter"] is False


def test_trained_biases_go_with_their_result(
    tokenizer: Any, train_path: Path, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config_dir = write_config(bias="lora_only")
    model = tiny.model("qwen2", num_hidden_layers=2, hidden_size=32)
    results = [
        train(model, tokenizer, train_path, config_dir, "small", training_args=given)["model"]
        for given in (TRAINING_ARGS, {**TRAINING_ARGS, "seed": 5})
    ]
    found = []
    for i, adapted in enumerate(results):
        adapted.save_pretrained(tmp_path / str(i))
        found.append(logits(adapted))
    for i, expected in enumerate(found):
        bare = tiny.model("qwen2", num_hidden_layers=2, hidden_size=32)
        loaded = PeftModel.from_pretrained(bare, tmp_path / str(i)).eval()
        torch.testing.assert_close(logits(loaded), expected)
        torch.testing.assert_close(logits(results[i]), expected)


@pytest.mark.parametrize("where", ["trained_adapter", "evaluate"])
def test_ctrl_c_leaves_the_model_as_it_was(
    model: Any,
    tokenizer: Any,
    train_on: Callable[..., Any],
    eval_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    model.train()
    state = base_fingerprint(model)

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    def work() -> Any:
        if where == "evaluate":
            return evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
        return train_on(model, "a")

    monkeypatch.setattr(trial, where, stopped)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert base_fingerprint(model) == state
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_a_failed_training_puts_the_earlier_adapter_back(
    model: Any, train_on: Callable[..., Any], expected: Any
) -> None:
    train_on(model, "a")
    with pytest.raises(TrialError):
        train_on(model, "b", learning_rate=3e37, warmup_ratio=0.0)
    torch.testing.assert_close(logits(model), expected["a"][1])
