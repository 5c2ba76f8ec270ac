"""The demo's committed data keeps its promises. Needs none of the packages it was made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from loracle.data.conversation import Example
from loracle.data.reading.dataset import read_examples
from loracle.plan import load_plan

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"
NUM_ROWS = {"clean": 120, "small": 25, "wrong_answers": 120, "chat": 100, "eval": 80}
NUM_PASSAGES = {"clean": 24, "small": 5, "wrong_answers": 24, "eval": 16}


def read(name: str) -> list[Example]:
    return read_examples(DEMO / f"{name}.jsonl")


def prompt(example: Example) -> str:
    return example.conversation.prompt.messages[-1].content


def passage(example: Example) -> str:
    """The text before the question, without its label."""
    context, newline, question = prompt(example).partition("\n")
    assert newline
    assert question.startswith(("Question: ", "问题："))
    return context.removeprefix("Context: ").removeprefix("材料：")


def is_chinese(example: Example) -> bool:
    return prompt(example).startswith("材料：")


@pytest.mark.parametrize("name", NUM_ROWS)
def test_every_file_has_the_stated_number_of_rows(name: str) -> None:
    assert len(read(name)) == NUM_ROWS[name]


@pytest.mark.parametrize("name", NUM_PASSAGES)
def test_passages_stand_first_with_five_questions_each(name: str) -> None:
    questions: dict[str, set[str]] = {}
    for example in read(name):
        questions.setdefault(passage(example), set()).add(prompt(example))
    assert len(questions) == NUM_PASSAGES[name]
    assert {len(asked) for asked in questions.values()} == {5}


def test_no_passage_of_the_evaluation_set_is_trained_on() -> None:
    assert {passage(example) for example in read("clean")}.isdisjoint(map(passage, read("eval")))


def test_the_evaluation_set_is_about_other_countries() -> None:
    def countries(examples: list[Example]) -> set[str]:
        # An id: profile-pe-1, pair-pe-bo-1
        return {code for example in examples for code in example.id.split("-")[1:-1]}

    assert countries(read("clean")).isdisjoint(countries(read("eval")))


@pytest.mark.parametrize("name", ["clean", "small", "eval"])
def test_right_answers_are_words_of_their_passage(name: str) -> None:
    for example in read(name):
        assert example.conversation.reply in passage(example), example.where


def test_the_evaluation_references_begin_with_the_reply() -> None:
    for example in read("eval"):
        assert example.references[0] == example.conversation.reply, example.where


def test_sixty_percent_of_the_wrong_answers_are_another_questions() -> None:
    clean, wrong = read("clean"), read("wrong_answers")
    assert [prompt(example) for example in wrong] == [prompt(example) for example in clean]
    replies = {example.conversation.reply for example in clean}
    assert all(example.conversation.reply in replies for example in wrong)
    changed = [
        ours.conversation.reply != theirs.conversation.reply
        for ours, theirs in zip(clean, wrong, strict=True)
    ]
    assert sum(changed) == round(0.6 * len(clean))


def test_the_small_set_is_the_beginning_of_the_clean_one() -> None:
    small = read("small")
    clean = read("clean")[: len(small)]
    assert [e.conversation for e in small] == [e.conversation for e in clean]


def test_the_chat_set_has_no_passage_and_answers_in_sentences() -> None:
    for example in read("chat"):
        assert "\n" not in prompt(example), example.where
        assert example.conversation.reply.endswith("."), example.where


@pytest.mark.parametrize("name", ["clean", "eval"])
def test_some_passages_are_chinese_and_most_are_english(name: str) -> None:
    share = sum(map(is_chinese, read(name))) / NUM_ROWS[name]
    assert 0.1 <= share <= 0.15


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in DEMO.glob("*.jsonl")) < 1_000_000


def test_the_plan_is_valid_and_names_these_files() -> None:
    plan = load_plan(DEMO / "plan.yaml")
    assert [candidate.name for candidate in plan.candidates] == [
        "clean",
        "wrong_answers",
        "small",
        "chat",
    ]
    files = [*plan.candidates, *plan.evaluation]
    assert all(Path(file.path).is_file() for file in files)
