"""Every model type that docs/models.md names: what takes the forest, and that both ways agree."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from loracle.forest.attention.interface import ATTENTION_NAME, attention_implementation
from loracle.forest.ordering import Ordering
from loracle.forest.trie import Sequences, build_forest
from loracle.generation.generate import generate
from loracle.generation.types import Question
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint
from loracle.model.losses import padded_loss
from loracle.model.self_test import run_self_test
from loracle.training.loop import accumulate_gradient, forest_loss
from loracle.training.micro_batches import take
from tests.generation.test_generate import SETTINGS, by_transformers, prompts
from tests.model import zoo
from tests.training.test_loop import attached, awake, one_by_one, relative_error, rows

FOREST = [name for name, kind in zoo.KINDS.items() if kind.takes]


def gradient(base: BaseModel, adapted: Any, batch: Sequences, *, forest: bool) -> torch.Tensor:
    def run() -> None:
        accumulate_gradient(base, adapted, batch, budget_tokens=400, forest=forest, seed=0)

    adapted.zero_grad()
    if forest:
        with attention_implementation(base.model, ATTENTION_NAME):
            run()
    else:
        run()
    return torch.cat([p.grad.flatten() for _, p in adapter.trainable(adapted)])


@pytest.mark.parametrize("name", zoo.KINDS)
def test_the_self_test_says_which_model_types_take_the_forest(name):
    result = run_self_test(zoo.base_of(name))
    assert result.passed == zoo.KINDS[name].takes, result.detail
    if result.passed:
        assert "logits and gradients equal" in result.detail
    else:
        assert result.detail.startswith("the model cannot run a prefix forest: ")


@pytest.mark.parametrize("name", zoo.KINDS)
def test_gradients_equal_those_of_separate_sequences(name):
    base, data = zoo.base_of(name), rows()
    order = Ordering(tuple(data.groups.tolist()), 8, 0, True)
    batch = take(data.sequences, order.batch(0))
    targets = zoo.KINDS[name].targets
    where = targets if isinstance(targets, str) else list(targets)
    adapted = awake(attached(base, target_modules=where)).train()
    if zoo.KINDS[name].in_float64:
        base.model.double()
        base = dataclasses.replace(base, dtype=torch.float64)
    expected = one_by_one(base, adapted, batch)
    assert relative_error(gradient(base, adapted, batch, forest=False), expected) <= 1e-5
    if zoo.KINDS[name].takes:
        assert relative_error(gradient(base, adapted, batch, forest=True), expected) <= 1e-5


@pytest.mark.parametrize("name", zoo.KINDS)
def test_answers_equal_those_of_generate_one_prompt_at_a_time(name):
    base = zoo.base_of(name)
    asked = prompts(base)[::2]
    expected = [by_transformers(base, ids) for ids in asked]
    questions = [Question(ids) for ids in asked]
    batches = generate(base, None, questions, SETTINGS, forest=zoo.KINDS[name].takes)
    assert [answer for batch in batches for answer in batch] == expected


@pytest.mark.parametrize("name", FOREST)
def test_the_self_test_fails_where_branches_see_each_other(name, monkeypatch):
    from loracle.forest.attention.rows import RowAttention

    row_attention = RowAttention.of

    def see_everything_before(forest, device, keep=None, backend=None):
        context = row_attention(forest, device, keep, backend)
        context.subtree_ends_N = torch.full_like(context.subtree_ends_N, forest.num_nodes)
        return context

    monkeypatch.setattr(RowAttention, "of", see_everything_before)
    assert not run_self_test(zoo.base_of(name)).passed


def test_the_self_test_fails_where_the_gradient_alone_is_wrong(monkeypatch):
    """A backward that loses the gradient of the keys leaves all logits as they are."""
    from loracle.forest.attention.span_products import ExplicitSpans

    backward = ExplicitSpans.backward

    def without_keys(ctx, *gradients):
        d_query, d_key, d_value, *others = backward(ctx, *gradients)
        return d_query, torch.zeros_like(d_key), d_value, *others

    monkeypatch.setattr(ExplicitSpans, "backward", staticmethod(without_keys))
    result = run_self_test(zoo.base_of("qwen2"))
    assert not result.passed
    assert "do NOT equal" in result.detail


def test_dual_chunk_attention_is_ignored_with_a_word():
    (note,) = run_self_test(zoo.base_of("qwen2.5-1m")).notes
    assert "dual chunk attention" in note
    assert "253,952 tokens" in note


def test_rotary_positions_that_follow_the_longest_row_are_told():
    (note,) = run_self_test(zoo.base_of("phi3-longrope")).notes
    assert "more than 4,096 tokens" in note
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    (note,) = run_self_test(zoo.base_of("llama3", rope_parameters=dynamic)).notes
    assert "(dynamic)" in note
    assert "more than 2,048 tokens" in note


def test_convolutions_beside_attention_are_found_where_half_precision_hides_them():
    base = zoo.base_of("falcon-h1")
    base.model.bfloat16()
    result = run_self_test(dataclasses.replace(base, dtype=torch.bfloat16))
    assert not result.passed
    assert "convolutions over tokens" in result.detail


@pytest.mark.parametrize("name", ["gemma3n", "granite", "cohere2"])
def test_the_loss_of_the_forest_is_that_of_scaled_and_capped_logits(name):
    """Without the model's own last steps, the loss would be another one."""
    base, data = zoo.base_of(name), rows()
    sequences = take(data.sequences, np.arange(6))
    padded, _ = padded_loss(base.model, sequences, base.device)
    forest = build_forest(sequences, max_row_tokens=10_000)
    with attention_implementation(base.model, ATTENTION_NAME), torch.no_grad():
        found = forest_loss(base, forest)
    assert float(found) == pytest.approx(float(padded), rel=1e-5)


@pytest.mark.parametrize("name", ["qwen3-moe", "mixtral", "qwen3-next", "deepseek-v3"])
def test_packed_experts_are_adapted_without_dropout_which_is_told(name):
    """Such a layer has no input that dropout could reach; peft refuses a configuration with it."""
    base = zoo.base_of(name)
    before = base_fingerprint(base.model)
    config = adapter.lora_config({"r": 2, "dropout": 0.1, "target_modules": "all-linear"})
    fitting, (note,) = adapter.fitted(base.model, config)
    assert (config.lora_dropout, fitting.lora_dropout) == (0.1, 0.0)
    assert "lora.dropout: 0.1 becomes 0" in note
    with adapter.attached(base.model, config, 0) as adapted:
        assert any("experts" in name for name, _ in adapter.trainable(adapted))
    assert base_fingerprint(base.model) == before
    beside = {"r": 2, "dropout": 0.1, "target_modules": ["o_proj"]}
    named = adapter.lora_config(beside)
    assert adapter.fitted(base.model, named) == (named, ())


def test_a_model_without_experts_keeps_its_dropout():
    config = adapter.lora_config({"dropout": 0.1, "target_modules": "all-linear"})
    assert adapter.fitted(zoo.base_of("qwen3").model, config) == (config, ())


def test_the_page_of_model_types_says_what_the_self_test_finds():
    text = zoo.PAGE.read_text(encoding="utf-8")
    assert zoo.table() in text, "write the page again: python -m tests.model.zoo"
