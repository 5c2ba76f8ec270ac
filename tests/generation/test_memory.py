"""Answering when memory runs out, and resuming between batches: the same answers."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from loracle.errors import OutOfMemoryError
from loracle.generation import decoding, plain, prefill
from loracle.generation.generate import Account, generate, num_in_whole_batches
from loracle.generation.memory import AnsweringMemoryEvent
from loracle.generation.types import Answer, GenerationStatistics, Question
from tests.generation.test_generate import SETTINGS, answers, prompts, tiny_base

# Where memory may run out: prefill and the drafts' verification, decoding, transformers' generate.
PLACES = {
    "prefill": (prefill, "forest_hidden_states"),
    "reading the choices": (prefill, "_accept"),
    "gathering keys": (decoding, "_gather"),
    "decoding": (decoding, "packed_hidden_states"),
}


def fail_at(
    monkeypatch, place: tuple, calls: set[int], error: Exception | None = None
) -> list[int]:
    """Run out of memory at these calls (from 0) of the function; returns the calls so far."""
    module, name = place
    function = getattr(module, name)
    made: list[int] = []

    def short_of_memory(*arguments, **options):
        made.append(len(made))
        if made[-1] in calls:
            raise error or torch.OutOfMemoryError("CUDA out of memory")
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, short_of_memory)
    return made


def questions_with_drafts(base, expected: list[Answer]) -> list[Question]:
    """Right drafts for some, wrong ones for others, and a source that soon proves useless."""
    return [
        Question(
            ids,
            drafts={
                "a": [answer.token_ids[: i % 5]],
                "b": [tuple(token_id ^ (i % 3) for token_id in answer.token_ids)],
                "useless": [[5] * 16],
            },
        )
        for i, (ids, answer) in enumerate(zip(prompts(base), expected, strict=True))
    ]


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture(scope="module")
def expected(base) -> list[Answer]:
    return answers(base, [Question(ids) for ids in prompts(base)])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(4))
def test_memory_that_runs_out_at_random_calls_changes_no_answer(
    base, expected, place, seed, monkeypatch
):
    questions = questions_with_drafts(base, expected)
    with monkeypatch.context() as patch:
        made = fail_at(patch, PLACES[place], set())
        answers(base, questions)
    failing = set(random.Random(seed).sample(made, min(3, len(made))))
    fail_at(monkeypatch, PLACES[place], failing)
    events: list[AnsweringMemoryEvent] = []
    found = [
        answer
        for batch in generate(
            base, None, questions, SETTINGS, account=Account(on_memory=events.append)
        )
        for answer in batch
    ]
    assert found == expected
    assert events
    sizes = [event.batch_size for event in events]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= SETTINGS.batch_size // 2


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: no memory")])
def test_the_cpus_lack_of_memory_is_known_too(base, expected, error, monkeypatch):
    fail_at(monkeypatch, PLACES["decoding"], {2}, error)
    assert answers(base, [Question(ids) for ids in prompts(base)]) == expected


def test_other_errors_are_not_taken_for_lack_of_memory(base, monkeypatch):
    fail_at(monkeypatch, PLACES["decoding"], {2}, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        answers(base, [Question(ids) for ids in prompts(base)])


def test_one_question_that_never_fits_says_so(base, monkeypatch):
    fail_at(monkeypatch, PLACES["prefill"], set(range(100)))
    with pytest.raises(OutOfMemoryError, match="one question at a time"):
        answers(base, [Question(ids) for ids in prompts(base)])


@pytest.mark.parametrize("forest", [True, False])
def test_memory_that_runs_out_in_transformers_changes_no_greedy_answer(
    base, expected, forest, monkeypatch
):
    fail_at(monkeypatch, (plain, "_call"), {0, 2})
    settings = (
        SETTINGS
        if not forest
        else dataclasses.replace(SETTINGS, sampling={"do_sample": False, "num_beams": 1})
    )
    questions = [Question(ids) for ids in prompts(base)]
    assert answers(base, questions, settings, forest=forest) == expected


def counted(statistics: GenerationStatistics) -> tuple[dict[str, int], dict[str, int]]:
    return dict(statistics.proposed), dict(statistics.accepted)


@pytest.mark.parametrize("num_batches", range(7))
def test_answering_that_resumes_between_batches_gives_the_same_answers_and_counts(
    base, expected, num_batches
):
    questions = questions_with_drafts(base, expected) * 2
    whole = GenerationStatistics()
    all_answers = answers(base, questions, statistics=whole)
    assert not whole.useful("useless")
    assert whole.proposed["useless"] < 16 * len(questions) / 2
    num_done = min(num_batches * SETTINGS.batch_size, len(questions))
    resumed = GenerationStatistics()
    batches = generate(
        base,
        None,
        questions,
        SETTINGS,
        account=Account(resumed, [answer.token_ids for answer in all_answers[:num_done]]),
    )
    assert [answer for batch in batches for answer in batch] == all_answers[num_done:]
    assert counted(resumed) == counted(whole)


def test_a_batch_that_was_not_finished_is_answered_again():
    assert num_in_whole_batches(0, 20, 7) == 0
    assert num_in_whole_batches(13, 20, 7) == 7
    assert num_in_whole_batches(14, 20, 7) == 14
    assert num_in_whole_batches(20, 20, 7) == 20
