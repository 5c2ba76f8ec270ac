"""Gradients and answers of the embedded model on real rows, in float32, against their definitions.

The reference is the model's own forward, one sequence at a time, and `generate`, one prompt at a
time. Most rows are tried on its first layers, a few of every kind on all of them; with --slow, all
on all. The demo's rows come with the project; those of XQuAD lie outside it, and are used where
they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import Renderer
from loracle.experiment.setup import TrainingSet
from loracle.forest.attention.rows import RowAttention
from loracle.forest.ordering import Ordering
from loracle.forest.trie import Sequences
from loracle.generation.generate import Account, generate
from loracle.generation.types import Answer, GenerationSettings, GenerationStatistics, Question
from loracle.model import adapter
from loracle.model.base import BaseModel, load_base, load_tokenizer
from loracle.model.embedded import embedded_model_folder
from loracle.model.loaded_form import LoadedForm
from loracle.model.self_test import run_self_test
from loracle.training.micro_batches import take
from tests import cut_model
from tests.generation.test_generate import by_transformers
from tests.training.test_loop import awake, fail_when, gradient_of, one_by_one, relative_error

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "examples" / "demo"
XQUAD = REPOSITORY.parent / "shared" / "data" / "xquad-en"

MAX_NEW_TOKENS = 12

SETTINGS = GenerationSettings(
    max_new_tokens=MAX_NEW_TOKENS,
    repetition_penalty=1.0,
    prompt_lookup=True,
    answer_nll=False,
    batch_size=30,
    budget_tokens=2048,
)


def loaded(folder: Path) -> BaseModel:
    tokenizer = load_tokenizer(str(folder), None, False)
    return load_base("embedded", str(folder), tokenizer, LoadedForm("float32"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModel]:
    """The whole model, and its first layers."""
    return {
        "whole": loaded(embedded_model_folder()),
        "first layers": loaded(cut_model.folder(tmp_path_factory)),
    }


def rendered(base: BaseModel, path: Path) -> TrainingSet:
    if not path.exists():
        pytest.skip(f"{path.name} of XQuAD lies outside the project, and is not here")
    rows = Renderer(base.tokenizer, base.end_token_ids).training_rows(read_examples(path))
    return TrainingSet.of(path.stem, rows)


def batch_of(data: TrainingSet, num_rows: int, *, grouped: bool):
    order = Ordering(tuple(data.groups.tolist()), num_rows, 0, grouped)
    return take(data.sequences, order.batch(0))


@contextmanager
def awake_adapter(base: BaseModel) -> Iterator[Any]:
    """An adapter on all linear layers, without dropout, whose update is not zero."""
    config = adapter.lora_config({"r": 8, "alpha": 16, "target_modules": "all-linear"})
    attached = awake(adapter.attach(base.model, config, 0))
    try:
        yield attached
    finally:
        adapter.detach(attached)


def test_the_self_test_passes(bases):
    assert run_self_test(bases["whole"]).passed


CLEAN = DEMO / "clean.jsonl"
XQUAD_CLEAN = XQUAD / "candidates" / "clean.json"


def require_equal_gradients(base: BaseModel, path: Path, num_rows: int, *, grouped: bool) -> None:
    batch = batch_of(rendered(base, path), num_rows, grouped=grouped)
    with awake_adapter(base) as adapted:
        expected = one_by_one(base, adapted, batch)
        for budget in (1, 500):
            found = gradient_of(base, adapted, batch, budget=budget, forest=True)
            assert relative_error(found, expected) <= 1e-5
        if grouped:
            found = gradient_if_all_is_seen(base, adapted, batch)
            assert relative_error(found, expected) > 1e-2


def gradient_if_all_is_seen(base: BaseModel, adapted: Any, batch: Sequences) -> torch.Tensor:
    """The gradient if every token of a packed row saw all tokens before it."""
    row_attention = RowAttention.of

    def see_everything_before(forest, device, keep=None, backend=None):
        context = row_attention(forest, device, keep, backend)
        for start, stop in context.bounds:
            context.subtree_ends_N[start:stop] = stop
        return context

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowAttention, "of", see_everything_before)
        return gradient_of(base, adapted, batch, budget=4096, forest=True)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("path", [CLEAN, XQUAD_CLEAN])
def test_the_forest_gradient_equals_that_of_separate_rows(bases, path, grouped):
    require_equal_gradients(bases["first layers"], path, 5, grouped=grouped)


def test_the_forest_gradient_of_the_whole_model_equals_that_of_separate_rows(bases):
    require_equal_gradients(bases["whole"], CLEAN, 3, grouped=True)


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("path", [CLEAN, XQUAD_CLEAN])
def test_more_forest_gradients_of_the_whole_model_equal_those_of_separate_rows(
    bases, path, grouped
):
    require_equal_gradients(bases["whole"], path, 8, grouped=grouped)


def test_a_step_redone_after_running_out_of_memory_has_the_same_gradient(bases, monkeypatch):
    from loracle.training import loop as training
    from loracle.training.budget import MemoryEvent, TokenBudget
    from loracle.training.mode import training_mode
    from loracle.training.team import Part
    from tests.training.test_loop import SETTINGS as TRAINING

    base = bases["first layers"]
    batch = batch_of(rendered(base, CLEAN), 8, grouped=True)
    events: list[MemoryEvent] = []
    settings = dataclasses.replace(TRAINING, budget_tokens=4096)
    with awake_adapter(base) as adapted:
        expected = one_by_one(base, adapted, batch)
        fail_when(monkeypatch, lambda micro_batch: micro_batch.num_nodes > 300)
        with training_mode(base, adapted, forest=True, gradient_checkpointing=False):
            budget = TokenBudget(settings.budget_tokens, events.append)
            part = Part(batch, training.total_weight(batch))
            training.step_gradient(base, adapted, part, 0, settings, budget)
        found = torch.cat([p.grad.flatten() for _, p in adapter.trainable(adapted)])
    assert events
    assert relative_error(found, expected) <= 1e-5


def questions_of(base: BaseModel, path: Path, num_questions: int) -> list[list[int]]:
    """Prompts spread over the file; the last five are prefixes of others, or stand twice."""
    if not path.exists():
        pytest.skip(f"{path.name} of XQuAD lies outside the project, and is not here")
    renderer = Renderer(base.tokenizer, base.end_token_ids)
    examples = read_examples(path)
    places = np.linspace(0, len(examples) - 1, num_questions - 5).astype(int)
    prompts = renderer.prompts([examples[place] for place in places], MAX_NEW_TOKENS)
    ids = [list(prompt.token_ids) for prompt in prompts]
    return [*ids, ids[0][:-5], ids[0][:-9], ids[0][:30], ids[2], ids[2]]


class Asked(NamedTuple):
    """What is asked of a model."""

    base: BaseModel
    prompts: list[list[int]]


class Asking(NamedTuple):
    """Which part of the model is asked, and how many questions of which file."""

    part: str
    path: Path
    num_questions: int

    def __str__(self) -> str:
        return f"{self.part}: {self.num_questions} of {self.path.parent.name}"


ASKINGS = [
    Asking("first layers", DEMO / "eval.jsonl", 35),
    Asking("whole", DEMO / "eval.jsonl", 8),
    pytest.param(Asking("whole", DEMO / "eval.jsonl", 60), marks=pytest.mark.slow),
    pytest.param(Asking("whole", XQUAD / "eval.json", 60), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=ASKINGS, ids=str)
def asked(request: pytest.FixtureRequest, bases: dict[str, BaseModel]) -> Asked:
    asking: Asking = request.param
    base = bases[asking.part]
    return Asked(base, questions_of(base, asking.path, asking.num_questions))


@pytest.fixture(scope="module")
def plain(asked: Asked) -> list[Answer]:
    return one_at_a_time(asked, 1.0)


def one_at_a_time(asked: Asked, penalty: float) -> list[Answer]:
    return [
        by_transformers(asked.base, prompt_ids, penalty, MAX_NEW_TOKENS)
        for prompt_ids in asked.prompts
    ]


def forest_answers(
    asked: Asked,
    drafts: Sequence[Sequence[tuple[int, ...]]],
    settings: GenerationSettings = SETTINGS,
) -> tuple[list[Answer], GenerationStatistics]:
    questions = [
        Question(ids, drafts={"x": own} if own else {})
        for ids, own in zip(asked.prompts, drafts, strict=True)
    ]
    statistics = GenerationStatistics()
    batches = generate(asked.base, None, questions, settings, account=Account(statistics))
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
def test_answers_are_those_of_generate_one_prompt_at_a_time(asked, plain, drafts):
    found, statistics = forest_answers(asked, [DRAFTS[drafts](answer) for answer in plain])
    assert found == plain
    if drafts == "right":
        assert statistics.num_finished_by_drafts == len(asked.prompts)


def test_a_repetition_penalty_gives_the_answers_of_generate(asked, plain):
    expected = one_at_a_time(asked, 1.1)
    assert expected != plain
    settings = dataclasses.replace(SETTINGS, repetition_penalty=1.1)
    for make in (DRAFTS["none"], DRAFTS["leaving"]):
        drafts = [make(answer) for answer in expected]
        assert forest_answers(asked, drafts, settings)[0] == expected
