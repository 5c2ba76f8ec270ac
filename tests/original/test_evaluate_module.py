"""Evaluation of a model that the caller loaded: its scores, and the model left as it was."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loracle import metrics
from loracle.errors import PlanError
from tests.generation.test_memory import PLACES, fail_at
from tests.original.conftest import GENERATION_KWARGS, TRAINING_ARGS, question_rows, write_rows
from training.evaluate_module import evaluate_model_on_dataset_with_progress as evaluate
from training.train_module import train_model_on_dataset_with_progress as train


def texts(scores: dict[str, Any]) -> list[str]:
    return [row["prediction"] for row in scores["predictions"]]


def test_the_signature_is_that_of_the_original_system() -> None:
    parameters = inspect.signature(evaluate).parameters.values()
    by_position = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in parameters if p not in by_position] == [("log_dir", ".")]
    assert [(p.name, p.default) for p in by_position] == [
        ("model", inspect.Parameter.empty),
        ("tokenizer", inspect.Parameter.empty),
        ("eval_dataset_path", inspect.Parameter.empty),
        ("dataset_index", 1),
        ("total_datasets", 1),
        ("batch_size", None),
        ("generation_kwargs", None),
    ]


def test_the_base_answers_every_question(model: Any, tokenizer: Any, eval_path: Path) -> None:
    scores = evaluate(model, tokenizer, eval_path, 1, 2, 3, GENERATION_KWARGS)
    assert scores["status"] == "completed"
    assert scores["has_adapter"] is False
    assert [row["id"] for row in scores["predictions"]] == ["t-p0q0", "t-p0q1", "t-p1q0", "t-p1q1"]
    assert scores["num_examples"] == sum(scores["finish_reasons"].values()) == 4
    assert scores["rows_per_second"] == pytest.approx(4 / scores["evaluation_seconds"])


def test_greedy_answers_are_those_of_transformers(
    model: Any, tokenizer: Any, eval_path: Path
) -> None:
    scores = evaluate(model, tokenizer, eval_path, generation_kwargs={"max_new_tokens": 9})
    for row, source in zip(scores["predictions"], question_rows(2, 2), strict=True):
        turn = f"Context: {source['context']}\nQuestion: {source['question']}"
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.generate(**prompt, max_new_tokens=9, do_sample=False, repetition_penalty=1.1)
        reply = output[0, prompt["input_ids"].shape[1] :]
        assert row["prediction"] == tokenizer.decode(reply, skip_special_tokens=True).strip()


def test_scores_are_the_metrics_in_per_cent(
    model: Any, tokenizer: Any, tmp_path: Path, config_dir: Path
) -> None:
    path = write_rows(tmp_path / "one.jsonl", [{"question": "Who?", "answer": "ab cd"}])
    few = {"num_train_epochs": 60, "learning_rate": 3e-2}
    trained = train(model, tokenizer, path, config_dir, "small", training_args=few)["model"]
    scores = evaluate(trained, tokenizer, path)
    expected = metrics.score(texts(scores)[0], ["ab cd"], ["em", "f1"])
    assert scores["exact_match"] == expected["em"] * 100
    assert scores["f1"] == expected["f1"] * 100
    assert scores["f1"] == 100.0, "one row is learned by heart"
    assert scores["has_adapter"]


def test_the_adapter_answers_whichever_object_is_passed(
    model: Any, tokenizer: Any, train_path: Path, eval_path: Path, config_dir: Path
) -> None:
    base = evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    trained = train(model, tokenizer, train_path, config_dir, "small", training_args=TRAINING_ARGS)[
        "model"
    ]
    by_adapter = evaluate(trained, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    by_base = evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    assert texts(by_adapter) == texts(by_base) != texts(base)
    assert by_base["has_adapter"]


def test_an_earlier_result_answers_with_its_own_weights(
    model: Any, tokenizer: Any, train_path: Path, eval_path: Path, config_dir: Path
) -> None:
    arguments = (tokenizer, train_path, config_dir, "small")

    def answers(passed: Any) -> list[str]:
        return texts(evaluate(passed, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS))

    first = train(model, *arguments, training_args=TRAINING_ARGS)["model"]
    expected = answers(first)
    second = train(first, *arguments, training_args={**TRAINING_ARGS, "seed": 7})["model"]
    others = answers(second)
    assert answers(first) == expected != others
    assert answers(second) == others


def test_the_callers_model_is_left_as_it_was(model: Any, tokenizer: Any, eval_path: Path) -> None:
    own = get_peft_model(model, LoraConfig(target_modules=["o_proj"], task_type="CAUSAL_LM"))
    own.train()
    before = [(name, p.requires_grad, p.clone()) for name, p in own.named_parameters()]
    scores = evaluate(own, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    assert scores["has_adapter"]
    assert all(module.training for module in own.modules())
    for (name, requires_grad, values), (_, after) in zip(
        before, own.named_parameters(), strict=True
    ):
        assert after.requires_grad == requires_grad, name
        assert torch.equal(after, values), name


def test_greedy_decoding_says_once_that_temperature_has_no_effect(
    model: Any, tokenizer: Any, eval_path: Path
) -> None:
    with pytest.warns(UserWarning, match="temperature: 0.1 has no effect") as caught:
        warned = evaluate(
            model, tokenizer, eval_path, generation_kwargs={**GENERATION_KWARGS, "temperature": 0.1}
        )
    # torch warns of its own use of torch.jit, at its first import.
    assert len([one for one in caught if one.category is UserWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    assert texts(warned) == texts(plain)


def test_out_of_memory_halves_the_batch_and_gives_the_same_answers(
    model: Any, tokenizer: Any, eval_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = texts(evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS))
    calls = fail_at(monkeypatch, PLACES["decoding"], {0, 2})
    found = evaluate(model, tokenizer, eval_path, generation_kwargs=GENERATION_KWARGS)
    assert texts(found) == expected
    assert len(calls) > 2
    assert "out of memory" in (tmp_path / "evaluation.log").read_text()


def test_sampling_and_beams_are_honoured(model: Any, tokenizer: Any, eval_path: Path) -> None:
    def answers(**kwargs: Any) -> list[str]:
        given = {**GENERATION_KWARGS, **kwargs}
        return texts(evaluate(model, tokenizer, eval_path, generation_kwargs=given))

    greedy = answers()
    sampled = answers(do_sample=True, temperature=5.0, seed=3)
    assert sampled == answers(do_sample=True, temperature=5.0, seed=3) != greedy
    assert len(answers(num_beams=3, early_stopping=True)) == 4


def test_an_unknown_generation_setting_names_the_nearest(
    model: Any, tokenizer: Any, eval_path: Path
) -> None:
    with pytest.raises(PlanError, match=r"generation_kwargs\.max_tokens; did you mean max_new_tok"):
        evaluate(model, tokenizer, eval_path, generation_kwargs={"max_tokens": 4})


def test_a_batch_size_of_zero_is_refused(model: Any, tokenizer: Any, eval_path: Path) -> None:
    with pytest.raises(PlanError, match="batch_size: found 0; expected a whole number above 0"):
        evaluate(model, tokenizer, eval_path, batch_size=0)
