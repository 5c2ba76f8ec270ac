"""training_args, generation_kwargs and LoRA configs: defaults, and every refusal's words."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from loracle.errors import PlanError
from loracle.migration.transformers_settings import generation_arguments, training_arguments
from loracle.model.adapter import lora_config
from loracle.model.lora_files import peft_settings, read_lora_plan
from loracle.plan import GenerationPlan, TrainingPlan
from training.words import _NAMES

REPOSITORY = Path(__file__).resolve().parents[2]


def generation(**kwargs: Any) -> GenerationPlan:
    return generation_arguments(kwargs, None, "batch_size").plan


def test_without_training_args_the_defaults_are_those_of_the_plan() -> None:
    assert training_arguments(None).plan() == TrainingPlan() == training_arguments({}).plan()
    assert training_arguments({"learning_rate": None}).plan() == TrainingPlan()


def test_training_args_reach_the_plan_under_its_names() -> None:
    plan = training_arguments(
        {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 3,
            "learning_rate": 2e-4,
            "max_grad_norm": 1.0,
            "warmup_ratio": 0.1,
            "lr_scheduler_type": "cosine",
            "weight_decay": 0.01,
            "max_steps": 7,
        }
    ).plan()
    assert plan == TrainingPlan(
        epochs=1,
        batch_size=12,
        learning_rate=2e-4,
        max_grad_norm=1.0,
        warmup_ratio=0.1,
        schedule="cosine",
        weight_decay=0.01,
        max_steps=7,
    )


@pytest.mark.parametrize(
    ("given", "batch_size"),
    [
        ({}, 64),
        ({"per_device_train_batch_size": 4}, 4),
        ({"gradient_accumulation_steps": 4}, 4),
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, 8),
    ],
)
def test_a_factor_of_the_batch_that_is_not_given_is_one(
    given: dict[str, int], batch_size: int
) -> None:
    assert training_arguments(given).plan().batch_size == batch_size


def test_zero_and_minus_one_switch_off_as_in_transformers() -> None:
    plan = training_arguments({"max_grad_norm": 0, "max_steps": -1}).plan()
    assert plan.max_grad_norm is None
    assert plan.max_steps is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rat": 1}, "unknown key training_args.learning_rat; did you mean learning_rate"),
        ({"num_epochs": None}, "unknown key training_args.num_epochs; did you mean num_train_ep"),
        ({"xyz": 1}, "unknown key training_args.xyz; known: num_train_epochs, "),
        ({"learning_rate": "fast"}, "training_args.learning_rate: found 'fast'; "),
        ({"num_train_epochs": 0}, "training_args.num_train_epochs: found 0; "),
        ({"learning_rate": float("nan")}, "training_args.learning_rate: found nan; "),
        ({"warmup_ratio": 2.0}, "training_args.warmup_ratio: found 2.0; "),
        ({"per_device_train_batch_size": 2.5}, "per_device_train_batch_size: found 2.5; "),
        ({"max_steps": 0}, "training_args.max_steps: found 0; expected 1 or more, or -1"),
        ([("seed", 1)], "training_args: found [('seed', 1)]; expected a dict"),
    ],
)
def test_a_wrong_training_argument_is_named(given: Any, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        training_arguments(given)
    assert message in str(caught.value)


def test_all_wrong_arguments_are_named_together() -> None:
    with pytest.raises(PlanError) as caught:
        training_arguments({"sed": 1, "learning_rate": -1.0})
    assert len(caught.value.problems) == 2


def test_without_generation_kwargs_the_defaults_are_the_original_systems() -> None:
    plan = generation_arguments(None, None, "batch_size").plan
    assert plan == GenerationPlan(max_new_tokens=40, repetition_penalty=1.1, batch_size="auto")


def test_the_batch_size_reaches_the_plan() -> None:
    assert generation_arguments(None, 5, "batch_size").plan.batch_size == 5


def test_sampling_reaches_the_plan_only_with_do_sample() -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 3}
    assert generation(**sampling) == generation()
    plan = generation(do_sample=True, seed=4, **sampling)
    assert (plan.temperature, plan.top_p, plan.top_k, plan.seed) == (0.5, 0.9, 3, 4)


@pytest.mark.parametrize(
    ("given", "num_notes"),
    [
        ({}, 0),
        ({"temperature": 1.0}, 0),
        ({"temperature": 0.0}, 1),
        ({"temperature": 0.2, "top_p": 0.9}, 2),
        ({"temperature": 0.2, "do_sample": True}, 0),
        ({"early_stopping": True}, 1),
        ({"early_stopping": True, "num_beams": 2}, 0),
    ],
)
def test_what_has_no_effect_is_noted(given: dict[str, Any], num_notes: int) -> None:
    assert len(generation_arguments(given, None, "batch_size").notes) == num_notes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_token": 1}, "unknown key generation_kwargs.max_new_token; did you mean max_new"),
        ({"do_sample": "yes"}, "generation_kwargs.do_sample: found 'yes'; "),
        ({"do_sample": True, "temperature": 0}, "generation_kwargs.temperature: found 0.0; "),
        ({"do_sample": True, "top_p": 1.5}, "generation_kwargs.top_p: found 1.5; "),
        ({"num_beams": 0}, "generation_kwargs.num_beams: found 0; "),
    ],
)
def test_a_wrong_generation_argument_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        generation(**given)
    assert message in str(caught.value)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, "8"])
def test_a_wrong_batch_size_is_named_as_the_caller_knows_it(batch_size: Any) -> None:
    with pytest.raises(PlanError, match="evaluation_batch_size: found"):
        generation_arguments(None, batch_size, "evaluation_batch_size")


def test_the_config_in_the_repository_is_one_that_peft_takes() -> None:
    settings = peft_settings(read_lora_plan(REPOSITORY / "lora_configs", "default"))
    assert settings["r"] == 8
    assert lora_config(settings).lora_alpha == 16


@pytest.mark.parametrize("name", ["small", "small.json"])
def test_a_config_is_found_with_and_without_its_ending(config_dir: Path, name: str) -> None:
    assert peft_settings(read_lora_plan(config_dir, name))["r"] == 4


def test_fields_that_are_left_out_have_the_plans_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("{}")
    assert peft_settings(read_lora_plan(tmp_path, "empty")) == {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": "all-linear",
        "bias": "none",
    }


def test_any_other_field_of_peft_passes_through(write_config: Callable[..., Path]) -> None:
    settings = peft_settings(read_lora_plan(write_config(use_rslora=True), "small"))
    assert lora_config(settings).use_rslora is True


def test_a_config_that_is_not_there_is_named_with_the_nearest(config_dir: Path) -> None:
    with pytest.raises(PlanError, match=r"no file .*smal\.json; did you mean .*small\.json"):
        peft_settings(read_lora_plan(config_dir, "smal"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"r": 8,\n "bias" "none"}', "bad.json:2: bad JSON"),
        ("[8]", "bad.json: expected one JSON object"),
        (
            json.dumps({"lora_alhpa": 8}),
            "bad.json: lora.lora_alhpa: .*did you mean lora.lora_alpha",
        ),
        (json.dumps({"r": 0}), "bad.json: lora.r: found 0; "),
        (json.dumps({"bias": "some"}), "bad.json: lora.bias: found 'some'; expected none or all"),
        (json.dumps({"alpha": 8, "lora_alpha": 8}), "lora_alpha and alpha are the same setting"),
    ],
)
def test_a_config_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(PlanError, match=message):
        peft_settings(read_lora_plan(tmp_path, "bad"))


def test_a_config_that_is_not_utf_8_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b'{"r": "\xff"}')
    with pytest.raises(PlanError, match="not UTF-8"):
        peft_settings(read_lora_plan(tmp_path, "bad"))


@cache
def messages_of_loracle() -> tuple[str, ...]:
    """Every text in its modules, with {} for what is filled in."""
    return tuple(_messages())


def _messages() -> Iterator[str]:
    for path in (REPOSITORY / "loracle").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", None) for part in node.values)
                yield "".join(part if isinstance(part, str) else "{}" for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize("pattern", _NAMES)
def test_what_is_reworded_is_a_message_of_loracle(pattern: str) -> None:
    assert any(re.search(pattern, message) for message in messages_of_loracle())
