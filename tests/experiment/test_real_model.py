"""Gradients and answers of the embedded model on real rows, in float32, against their definitions.

The reference is the model's own forward, one sequence at a time, and `generate`, one prompt at a
time. The demo's rows come with the project; those of XQuAD lie outside it, and are used where
they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import Renderer
from loracle.experiment.setup import TrainingSet
from loracle.forest.attention.rows import RowAttention
from loracle.forest.ordering import Ordering
from loracle.generation.generate import Account, generate
from loracle.generation.types import Answer, GenerationSettings, GenerationStatistics, Question
from loracle.model import adapter
from loracle.model.base import BaseModel, load_base, load_tokenizer
from loracle.model.embedded import embedded_model_folder
from loracle.model.loaded_form import LoadedForm
from loracle.model.self_test import run_self_test
from loracle.training.micro_batches import take
from tests.generation.test_generate import by_transformers
from tests.training.test_loop import awake, fail_when, gradient_of, one_by_one, relative_error

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "examples" / "demo"
XQUAD = REPOSITORY.parent / "shared" / "data" / "xquad-en"

NUM_QUESTIONS = 60
MAX_NEW_TOKENS = 12
NUM_ROWS = 8

SETTINGS = GenerationSettings(
    max_new_tokens=MAX_NEW_TOKENS,
    repetition_penalty=1.0,
    prompt_lookup=True,
    answer_nll=False,
    batch_size=30,
    budget_tokens=2048,
)


@pytest.fixture(scope="module")
def base() -> BaseModel:
    folder = str(embedded_model_folder())
    return load_base("embedded", folder, load_tokenizer(folder, None, False), LoadedForm("float32"))


def rendered(base: BaseModel, path: Path) -> TrainingSet:
    if not path.exists():
        pytest.skip(f"{path.name} of XQuAD lies outside the project, and is not here")
    rows = Renderer(base.tokenizer, base.end_token_ids).training_rows(read_examples(path))
    return TrainingSet.of(path.stem, rows)


def batch_of(data: TrainingSet, *, grouped: bool):
    order = Ordering(tuple(data.groups.tolist()), NUM_ROWS, 0, grouped)
    return take(data.sequences, order.batch(0))


@pytest.fixture
def adapted(base: BaseModel):
    """An adapter on all linear layers, without dropout, whose update is not zero."""
    config = adapter.lora_config({"r": 8, "alpha": 16, "target_modules": "all-linear"})
    attached = awake(adapter.attach(base.model, config, 0))
    yield attached
    adapter.detach(attached)


def test_the_self_test_passes(base):
    assert run_self_test(base).passed


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("path", [DEMO / "clean.jsonl", XQUAD / "candidates" / "clean.json"])
def test_the_forest_gradient_equals_that_of_separate_rows(
    base, adapted, path, grouped, monkeypatch
):
    batch = batch_of(rendered(base, path), grouped=grouped)
    expected = one_by_one(base, adapted, batch)
    for budget in (1, 500):
        found = gradient_of(base, adapted, batch, budget=budget, forest=True)
        assert relative_error(found, expected) <= 1e-5
    if not grouped:
        return
    row_attention = RowAttention.of

    def see_everything_before(forest, device, keep=None, backend=None):
        context = row_attention(forest, device, keep, backend)
        for start, stop in context.bounds:
            context.subtree_ends_N[start:stop] = stop
        return context

    monkeypatch.setattr(RowAttention, "of", see_everything_before)
    found = gradient_of(base, adapted, batch, budget=4096, forest=True)
    assert relative_error(found, expected) > 1e-2


def test_a_step_redone_after_running_out_of_memory_has_the_same_gradient(
    base, adapted, monkeypatch
):
    from loracle.training import loop as training
    from loracle.training.budget import MemoryEvent, TokenBudget
    from loracle.training.mode import training_mode
    from loracle.training.team import Part
    from tests.training.test_loop import SETTINGS as TRAINING

    batch = batch_of(rendered(base, DEMO / "clean.jsonl"), grouped=True)
    expected = one_by_one(base, adapted, batch)
    fail_when(monkeypatch, lambda micro_batch: micro_batch.num_nodes > 300)
    events: list[MemoryEvent] = []
    settings = dataclasses.replace(TRAINING, budget_tokens=4096)
    with training_mode(base, adapted, forest=True, gradient_checkpointing=False):
        budget = TokenBudget(settings.budget_tokens, events.append)
        part = Part(batch, training.total_weight(batch))
        training.step_gradient(base, adapted, part, 0, settings, budget)
    found = torch.cat([p.grad.flatten() for _, p in adapter.trainable(adapted)])
    assert events
    assert relative_error(found, expected) <= 1e-5


def questions_of(base: BaseModel, path: Path) -> list[list[int]]:
    """60 prompts spread over the file; the last five are prefixes of others, or stand twice."""
    if not path.exists():
        pytest.skip(f"{path.name} of XQuAD lies outside the project, and is not here")
    renderer = Renderer(base.tokenizer, base.end_token_ids)
    examples = read_examples(path)
    places = np.linspace(0, len(examples) - 1, NUM_QUESTIONS - 5).astype(int)
    prompts = renderer.prompts([examples[place] for place in places], MAX_NEW_TOKENS)
    ids = [list(prompt.token_ids) for prompt in prompts]
    return [*ids, ids[0][:-5], ids[0][:-9], ids[0][:30], ids[7], ids[7]]


def one_at_a_time(base: BaseModel, prompts: Sequence[list[int]], penalty: float) -> list[Answer]:
    return [by_transformers(base, prompt_ids, penalty, MAX_NEW_TOKENS) for prompt_ids in prompts]


FILES = [
    DEMO / "eval.jsonl",
    pytest.param(XQUAD / "eval.json", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.parent.name)
def asked(request: pytest.FixtureRequest, base: BaseModel) -> list[list[int]]:
    return questions_of(base, request.param)


@pytest.fixture(scope="module")
def plain(base: BaseModel, asked: list[list[int]]) -> list[Answer]:
    return one_at_a_time(base, asked, 1.0)


def forest_answers(
    base: BaseModel,
    prompts: Sequence[list[int]],
    drafts: Sequence[Sequence[tuple[int, ...]]],
    settings: GenerationSettings = SETTINGS,
) -> tuple[list[Answer], GenerationStatistics]:
    questions = [
        Question(ids, drafts={"x": own} if own else {})
        for ids, own in zip(prompts, drafts, strict=True)
    ]
    statistics = GenerationStatistics()
    batches = generate(base, None, questions, settings, account=Account(statistics))
    return [answer for batch in batches for answer in batch], statistics


Drafting = Callable[[Answer], list[tuple[int, ...]]]

DRAFTS: dict[str, Drafting] = {
    "none": lambda answer: [],
    "right": lambda answer: [answer.token_ids],
    "wrong": lambda answer: [tuple(token_id + 1 for token_id in answer.token_ids) or (11,)],
    "beginnings": lambda answer: [answer.token_ids[:length] for length in (1, 3, 9)],
    "leaving": lambda answer: [(*answer.token_ids[:4], 20, 21), (*answer.token_ids, 22, 23)],
}


@pytest.mark.parametrize("drafts", DRAFTS)
def test_answers_are_those_of_generate_one_prompt_at_a_time(base, asked, plain, drafts):
    found, statistics = forest_answers(base, asked, [DRAFTS[drafts](answer) for answer in plain])
    assert found == plain
    if drafts == "right":
        assert statistics.num_finished_by_drafts == len(asked)


def test_a_repetition_penalty_gives_the_answers_of_generate(base, asked, plain):
    expected = one_at_a_time(base, asked, 1.1)
    assert expected != plain
    settings = dataclasses.replace(SETTINGS, repetition_penalty=1.1)
    for make in (DRAFTS["none"], DRAFTS["leaving"]):
        drafts = [make(answer) for answer in expected]
        assert forest_answers(base, asked, drafts, settings)[0] == expected
