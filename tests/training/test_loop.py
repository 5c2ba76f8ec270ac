"""The loop against separate sequences: gradients, memory, schedule, order, the frozen base."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from peft import LoraConfig

from loracle.data.rendering.renderer import Renderer
from loracle.errors import NonFiniteError, OutOfMemoryError
from loracle.experiment.setup import TrainingSet
from loracle.forest.attention.interface import ATTENTION_NAME, attention_implementation
from loracle.forest.attention.rows import RowAttention
from loracle.forest.ordering import Ordering, prefix_groups
from loracle.forest.spans import cut_into_spans
from loracle.forest.trie import Sequences
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, wrap_base
from loracle.model.self_test import run_self_test
from loracle.model.token_dropout import keyed, token_dropouts, token_keys
from loracle.training import loop as training
from loracle.training.budget import MemoryEvent
from loracle.training.loop import (
    Following,
    StepRecord,
    TrainingSettings,
    accumulate_gradient,
    learning_rate_at,
    train,
)
from loracle.training.micro_batches import take
from tests import tiny

SETTINGS = TrainingSettings(
    epochs=2,
    max_steps=None,
    max_tokens=None,
    batch_size=6,
    learning_rate=1e-2,
    schedule="linear",
    warmup_ratio=0.1,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    eps=1e-8,
    max_grad_norm=0.3,
    grouped=True,
    forest=True,
    budget_tokens=400,
    gradient_checkpointing=False,
    seed=0,
)


SEED = 11


def rows() -> TrainingSet:
    base = tiny_base()
    renderer = Renderer(base.tokenizer, base.end_token_ids)
    return TrainingSet.of("t", renderer.training_rows(tiny.passage_examples()))


def tiny_base(kind: str = "llama") -> BaseModel:
    return wrap_base(kind, tiny.model(kind), tiny.tokenizer())


def attached(base: BaseModel, seed: int = 0, dropout: float = 0.0, **options):
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=dropout,
        task_type="CAUSAL_LM",
        **{"target_modules": "all-linear", **options},
    )
    return adapter.attach(base.model, config, seed)


def awake(adapted):
    """Give every lora_B values, so that lora_A has a gradient, too."""
    torch.manual_seed(5)
    for name, parameter in adapter.trainable(adapted):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return adapted


def gradient_of(base, adapted, batch: Sequences, *, budget: int, forest: bool) -> torch.Tensor:
    adapted.zero_grad()
    adapted.train()
    name = ATTENTION_NAME if forest else "sdpa"
    with attention_implementation(base.model, name):
        accumulate_gradient(base, adapted, batch, budget_tokens=budget, forest=forest, seed=SEED)
    return torch.cat([p.grad.flatten() for _, p in adapter.trainable(adapted)])


def one_by_one(base, adapted, batch: Sequences) -> torch.Tensor:
    """The gradient of separate sequences, through the model's own forward and loss."""
    dropouts = token_dropouts(adapted)
    adapted.zero_grad()
    adapted.train()
    total = float(batch.weights.sum())
    for i in range(batch.num_sequences):
        one = take(batch, np.array([i]))
        token_ids = torch.from_numpy(one.token_ids).long()[None]
        with keyed(dropouts, token_keys(one.token_ids, np.arange(len(one.token_ids)), SEED)):
            logits = base.model(input_ids=token_ids, use_cache=False).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, token_ids[0, 1:], reduction="none")
            ((losses * torch.from_numpy(one.weights[1:])).sum() / total).backward()
    return torch.cat([p.grad.flatten() for _, p in adapter.trainable(adapted)])


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def first_batch(*, grouped: bool) -> Sequences:
    data = rows()
    return take(data.sequences, Ordering(tuple(data.groups.tolist()), 12, 0, grouped).batch(0))


@cache
def separate_gradient(
    kind: str = "llama", *, grouped: bool = True, dropout: float = 0.0, use_dora: bool = False
) -> torch.Tensor:
    """The gradient of the first batch's rows one by one, computed once for every cut of them."""
    base = tiny_base(kind)
    adapted = awake(attached(base, dropout=dropout, use_dora=use_dora))
    return one_by_one(base, adapted, first_batch(grouped=grouped))


@pytest.mark.parametrize("kind", tiny.CONFIGS)
@pytest.mark.parametrize("budget", [1, 130, 100_000])
@pytest.mark.parametrize("grouped", [True, False])
def test_the_forest_gradient_equals_that_of_separate_sequences(kind, budget, grouped):
    base = tiny_base(kind)
    adapted = awake(attached(base))
    batch = first_batch(grouped=grouped)
    found = gradient_of(base, adapted, batch, budget=budget, forest=True)
    assert relative_error(found, separate_gradient(kind, grouped=grouped)) <= 1e-5


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_the_gradient_is_wrong_when_a_branch_sees_another(kind, monkeypatch):
    base, data = tiny_base(kind), rows()
    adapted = awake(attached(base))
    expected = one_by_one(base, adapted, data.sequences)

    def see_everything_before(forest, device, keep=None, backend=None):
        context = row_attention(forest, device, keep, backend)
        context.subtree_ends_N = context.subtree_ends_N.clone()
        for start, stop in context.bounds:
            context.subtree_ends_N[start:stop] = stop
        return context

    row_attention = RowAttention.of
    monkeypatch.setattr(RowAttention, "of", see_everything_before)
    found = gradient_of(base, adapted, data.sequences, budget=100_000, forest=True)
    assert relative_error(found, expected) > 1e-2


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_rows_cut_into_many_spans_have_the_same_gradient(kind, monkeypatch):
    base, data = tiny_base(kind), rows()
    adapted = awake(attached(base))
    whole = gradient_of(base, adapted, data.sequences, budget=1000, forest=True)
    cut = []

    def cut_and_count(*arguments):
        cut.append(cut_into_spans(*arguments))
        return cut[-1]

    monkeypatch.setattr("loracle.forest.attention.span_products.SPAN_PAIRS", 0)
    monkeypatch.setattr("loracle.forest.attention.span_products.cut_into_spans", cut_and_count)
    in_spans = gradient_of(base, adapted, data.sequences, budget=1000, forest=True)
    assert max(len(spans) for spans in cut) > 3
    assert relative_error(in_spans, whole) <= 1e-5


def test_long_rows_use_the_fused_kernel_with_the_same_gradient(monkeypatch):
    base, data = tiny_base(), rows()
    adapted = awake(attached(base))
    explicit = gradient_of(base, adapted, data.sequences, budget=1000, forest=True)
    monkeypatch.setattr("loracle.forest.attention.rows.MAX_EXPLICIT_TOKENS", 0)
    fused = gradient_of(base, adapted, data.sequences, budget=1000, forest=True)
    assert relative_error(fused, explicit) <= 1e-5


def test_the_padded_path_has_the_same_gradient():
    base, data = tiny_base(), rows()
    adapted = awake(attached(base))
    found = gradient_of(base, adapted, data.sequences, budget=500, forest=False)
    assert relative_error(found, one_by_one(base, adapted, data.sequences)) <= 1e-5


@pytest.mark.parametrize("dropout", [0.1, 0.5])
@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("forest", [True, False])
@pytest.mark.parametrize("budget", [1, 130, 100_000])
def test_with_dropout_any_cut_has_the_gradient_of_separate_sequences(
    forest, budget, dropout, use_dora
):
    base = tiny_base()
    adapted = awake(attached(base, dropout=dropout, use_dora=use_dora))
    batch = first_batch(grouped=True)
    expected = separate_gradient(dropout=dropout, use_dora=use_dora)
    found = gradient_of(base, adapted, batch, budget=budget, forest=forest)
    assert relative_error(found, expected) <= 1e-5
    for module in token_dropouts(adapted):
        module.p = 0.0
    assert relative_error(gradient_of(base, adapted, batch, budget=130, forest=forest), found) > 0.1


@pytest.mark.parametrize("dropout", [0.1, 0.5])
@pytest.mark.parametrize(("step", "micro_batch"), [(0, 1), (1, 2), (3, 2), (5, 1)])
def test_memory_that_runs_out_at_any_micro_batch_leaves_the_same_adapter_with_dropout(
    step, micro_batch, dropout, monkeypatch
):
    base, data = tiny_base(), rows()
    expected = undisturbed_weights(dropout)
    steps = iter(range(1000))
    gradient = training.step_gradient

    def run_short(base, adapted, batch, at_step, settings, memory, lockstep):
        if next(steps) == step:
            fail_once(monkeypatch, at_call=micro_batch)
        return gradient(base, adapted, batch, at_step, settings, memory, lockstep)

    monkeypatch.setattr(training, "step_gradient", run_short)
    events: list[MemoryEvent] = []
    found = trained(base, data, dropout=dropout, on_memory=events.append)
    assert [(event.step, event.budget_tokens) for event in events] == [(step + 1, 100)]
    assert relative_error(found, expected) <= 1e-5


def trained(base, data, *, dropout: float, on_memory=None) -> torch.Tensor:
    """The weights of an adapter after a whole training, flat."""
    adapted = attached(base, dropout=dropout)
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-3, budget_tokens=200)
    try:
        train(
            base,
            adapted,
            data,
            settings,
            Following(lambda record: None, on_memory or no_memory_event),
        )
        return torch.cat([p.detach().flatten() for _, p in adapter.trainable(adapted)])
    finally:
        adapter.detach(adapted)


@cache
def undisturbed_weights(dropout: float) -> torch.Tensor:
    """Trained once for every place at which memory may run out."""
    return trained(tiny_base(), rows(), dropout=dropout)


def fail_once(monkeypatch, at_call: int) -> None:
    """Run out of memory at the `at_call`th micro-batch from now, and never after it."""
    calls = iter(range(1, 1000))
    forest_loss = training.forest_loss

    def short_of_memory(base, micro_batch):
        if next(calls) == at_call:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forest_loss(base, micro_batch)

    monkeypatch.setattr(training, "forest_loss", short_of_memory)


def test_gradient_checkpointing_changes_no_gradient():
    base, data = tiny_base(), rows()
    plain, _ = run_training(base, data, SETTINGS, dropout=0.1)
    checkpointed, _ = run_training(
        base, data, dataclasses.replace(SETTINGS, gradient_checkpointing=True), dropout=0.1
    )
    assert checkpointed == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_bfloat16_base_trains_in_several_micro_batches(checkpointing):
    data = rows()
    precise, _ = run_training(tiny_base(), data, SETTINGS)
    base = wrap_base("llama", tiny.model().to(torch.bfloat16), tiny.tokenizer())
    settings = dataclasses.replace(
        SETTINGS, budget_tokens=100, gradient_checkpointing=checkpointing
    )
    rounded, _ = run_training(base, data, settings)
    assert rounded == pytest.approx(precise, rel=2e-2)
    assert rounded != precise


def run_training(
    base: BaseModel, data: TrainingSet, settings: TrainingSettings, dropout: float = 0.0
) -> tuple[list[float], str]:
    """The losses and the final adapter's fingerprint."""
    adapted = attached(base, settings.seed, dropout)
    records: list[StepRecord] = []
    try:
        train(base, adapted, data, settings, Following(records.append, no_memory_event))
        return [record.loss for record in records], adapter.adapter_fingerprint(adapted)
    finally:
        adapter.detach(adapted)


def no_memory_event(event: MemoryEvent) -> None:
    raise AssertionError(f"memory is not short here: {event}")


def test_training_learns_and_leaves_the_base_as_it_was():
    base, data = tiny_base(), rows()
    before = base_fingerprint(base.model)
    losses, _ = run_training(base, data, dataclasses.replace(SETTINGS, epochs=8))
    assert losses[-1] < 0.7 * losses[0]
    assert base_fingerprint(base.model) == before


def test_the_base_fingerprint_sees_one_changed_weight():
    base = tiny_base()
    before = base_fingerprint(base.model)
    base.model.model.layers[1].mlp.up_proj.weight.data[3, 4] += 1e-6
    assert base_fingerprint(base.model) != before


def test_a_trial_is_the_same_whatever_ran_before_it():
    base, data = tiny_base(), rows()
    first = run_training(base, data, SETTINGS, dropout=0.1)
    torch.rand(17)
    run_training(base, data, dataclasses.replace(SETTINGS, seed=3), dropout=0.1)
    assert run_training(base, data, SETTINGS, dropout=0.1) == first


def test_forest_and_padded_batches_train_alike():
    base, data = tiny_base(), rows()
    forest, _ = run_training(base, data, SETTINGS)
    padded, _ = run_training(base, data, dataclasses.replace(SETTINGS, forest=False))
    assert padded == pytest.approx(forest, rel=1e-4)


def fail_when(monkeypatch, is_too_large) -> None:
    """Make the forest's loss run out of memory, after it has added some gradient."""
    forest_loss = training.forest_loss

    def short_of_memory(base, micro_batch):
        if is_too_large(micro_batch):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forest_loss(base, micro_batch)

    monkeypatch.setattr(training, "forest_loss", short_of_memory)


def test_out_of_memory_is_a_slower_step_with_the_same_gradient(monkeypatch):
    base, data = tiny_base(), rows()
    expected, _ = run_training(base, data, SETTINGS)
    fail_when(monkeypatch, lambda micro_batch: micro_batch.num_nodes > 120)
    adapted = attached(base)
    records: list[StepRecord] = []
    events: list[MemoryEvent] = []
    train(base, adapted, data, SETTINGS, Following(records.append, events.append))
    assert [event.budget_tokens for event in events] == [200, 100]
    assert [record.loss for record in records] == pytest.approx(expected, rel=1e-4)


def test_memory_that_is_never_enough_fails_the_trial_with_its_reason(monkeypatch):
    base, data = tiny_base(), rows()
    fail_when(monkeypatch, lambda micro_batch: True)
    events: list[MemoryEvent] = []
    with pytest.raises(OutOfMemoryError, match=r"step 1: out of memory even one sequence"):
        train(base, attached(base), data, SETTINGS, Following(print, events.append))
    assert events


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch):
    base, data = tiny_base(), rows()

    def broken(base, micro_batch):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(training, "forest_loss", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_training(base, data, SETTINGS)


def test_a_loss_that_is_not_finite_stops_the_trial(monkeypatch):
    base, data = tiny_base(), rows()
    forest_loss = training.forest_loss
    monkeypatch.setattr(training, "forest_loss", lambda *a: forest_loss(*a) * math.nan)
    with pytest.raises(NonFiniteError, match=r"step 1: loss nan"):
        run_training(base, data, SETTINGS)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, 1.0, 0.96194, 0.853553]),
    ],
)
def test_the_learning_rate_warms_up_then_follows_its_schedule(schedule, expected):
    settings = dataclasses.replace(SETTINGS, learning_rate=1.0, schedule=schedule, warmup_ratio=0.2)
    found = [learning_rate_at(step, 10, settings) for step in range(5)]
    assert found == pytest.approx(expected, abs=1e-5)


def num_steps(data: TrainingSet, **changes) -> int:
    settings = dataclasses.replace(SETTINGS, **changes)
    return training.num_steps_planned(data.sequences, data.groups, settings)


def test_length_is_by_epochs_steps_or_tokens():
    data = rows()
    assert num_steps(data) == 2 * 3
    assert num_steps(data, epochs=0.5) == 2
    assert num_steps(data, max_steps=11) == 11
    tokens = int(data.sequences.lengths.sum())
    assert num_steps(data, max_tokens=tokens) == 3
    assert num_steps(data, max_tokens=tokens + 1) == 4


def test_every_epoch_holds_every_example_once():
    groups = tuple(np.repeat(np.arange(7), 3).tolist())
    for grouped in (True, False):
        ordering = Ordering(groups, 4, 0, grouped)
        steps = ordering.steps_per_epoch
        for epoch in range(2):
            seen = np.concatenate([ordering.batch(epoch * steps + step) for step in range(steps)])
            assert sorted(seen.tolist()) == list(range(21))


def test_grouped_order_keeps_groups_together_and_is_seeded_by_seed_and_epoch():
    groups = tuple(np.repeat(np.arange(10), 4).tolist())
    first = [Ordering(groups, 40, 0, True).batch(step).tolist() for step in range(2)]
    labels = [groups[i] for i in first[0]]
    assert sum(a != b for a, b in itertools.pairwise(labels)) == 9
    assert first[0] != first[1]
    assert first == [Ordering(groups, 40, 0, True).batch(step).tolist() for step in range(2)]
    assert first[0] != Ordering(groups, 40, 1, True).batch(0).tolist()


def groups_of(prompts: Sequence[str]) -> list[int]:
    return prefix_groups(Sequences.of([list(map(ord, prompt)) for prompt in prompts])).tolist()


def test_prompts_about_one_passage_are_one_group_and_a_system_prompt_is_none():
    system = "You are a helpful assistant that answers. "
    prompts = [f"{system}{p * 30} question {q}" for q in range(3) for p in "abc"]
    groups = groups_of(prompts)
    assert len(set(groups)) == 3
    assert groups[:3] == groups[3:6] == groups[6:]
    assert len(set(groups_of([system + x * 9 for x in "abcde"]))) == 5


def test_the_self_test_passes_where_attention_is_all_the_memory_there_is():
    for kind in tiny.CONFIGS:
        assert run_self_test(tiny_base(kind)).passed


def test_the_self_test_fails_where_branches_see_each_other(monkeypatch):
    row_attention = RowAttention.of

    def see_everything_before(forest, device, keep=None, backend=None):
        context = row_attention(forest, device, keep, backend)
        context.subtree_ends_N = torch.full_like(context.subtree_ends_N, forest.num_nodes)
        return context

    monkeypatch.setattr(RowAttention, "of", see_everything_before)
    result = run_self_test(tiny_base())
    assert not result.passed
    assert "do NOT equal" in result.detail
