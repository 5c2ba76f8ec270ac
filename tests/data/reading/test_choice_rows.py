"""Multiple choice as its authors publish it, and what cannot be told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.files import lines, read, read_rows, refused, turns

TWO = "Q?\nA. x\nB. y\nAnswer:"


@pytest.mark.parametrize(
    ("row", "asked", "reply"),
    [
        pytest.param({"question": "Q?", "choices": ["x", "y"], "answer": 1}, TWO, "B", id="MMLU"),
        pytest.param(
            {
                "question": "Q?",
                "choices": {"text": ["x", "y"], "label": ["A", "B"]},
                "answerKey": "B",
            },
            TWO,
            "B",
            id="ARC",
        ),
        pytest.param(
            {
                "question": "Q?",
                "choices": {"text": ["x", "y"], "label": ["1", "2"]},
                "answerKey": "2",
            },
            TWO,
            "B",
            id="ARC, numbered",
        ),
        pytest.param(
            {
                "question": {
                    "stem": "Q?",
                    "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}],
                },
                "answerKey": "A",
            },
            TWO,
            "A",
            id="ARC, as published",
        ),
        pytest.param(
            {"article": "Long.", "question": "Q?", "options": ["x", "y"], "answer": "B"},
            f"Context: Long.\nQuestion: {TWO}",
            "B",
            id="RACE",
        ),
        pytest.param(
            {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B"},
            TWO,
            "B",
            id="MedQA",
        ),
        pytest.param(
            {"question": "Q?", "opa": "x", "opb": "y", "opc": "z", "opd": "w", "cop": 2},
            "Q?\nA. x\nB. y\nC. z\nD. w\nAnswer:",
            "C",
            id="MedMCQA",
        ),
        pytest.param({"ctx": "Q?", "endings": ["x", "y"], "label": "1"}, TWO, "B", id="HellaSwag"),
        pytest.param(
            {"sentence": "Q?", "option1": "x", "option2": "y", "answer": "2"},
            TWO,
            "B",
            id="WinoGrande",
        ),
        pytest.param(
            {"question": "Q?", "options": ["A)21", "B)21.5"], "correct": "B"},
            "Q?\nA. 21\nB. 21.5\nAnswer:",
            "B",
            id="AQuA",
        ),
        pytest.param(
            {"context": "C.", "query": "Q?", "options": ["x", "y"], "correct_option": 0},
            f"Context: C.\nQuestion: {TWO}",
            "A",
            id="LogiQA",
        ),
        pytest.param({"question": "Q?", "A": "x", "B": "y", "answer": "(b)"}, TWO, "B", id="(b)"),
        pytest.param({"question": "Q?", "A": "x", "B": "y", "answer": "B. y"}, TWO, "B", id="B. y"),
        pytest.param(
            {"question": "Q?", "options": ["x", "y"], "answer": "X "}, TWO, "A", id="text"
        ),
        pytest.param(
            {"question": "Q?", "A": "x", "B": "y", "C": None, "D": "", "answer": "B"},
            TWO,
            "B",
            id="blank choices",
        ),
        pytest.param(
            {"question": "Q?", "A": "x", "B": "y", "answer": ["B", "A"]}, TWO, "AB", id="a list"
        ),
        pytest.param(
            {"question": "Q?", "A": "x", "B": "y", "answer": "B、A"}, TWO, "AB", id="B、A"
        ),
    ],
)
def test_a_row_is_its_question_with_lettered_choices(
    row: dict[str, Any], asked: str, reply: str
) -> None:
    dataset = read_rows(row)
    assert dataset.format == "choice"
    assert turns(dataset) == [("user", asked), ("assistant", reply)]
    assert not [use for use in dataset.fields if not use.used_as]


def test_an_article_with_several_questions_is_a_row_each() -> None:
    dataset = read_rows(
        {
            "id": "h1",
            "article": "Long.",
            "questions": ["Q?", "R?"],
            "options": [["x", "y"], ["v", "w"]],
            "answers": ["B", "A"],
        }
    )
    assert [(value.id, value.conversation.reply) for value in dataset.examples] == [
        ("h1-0", "B"),
        ("h1-1", "A"),
    ]
    assert dataset.examples[1].context == "Long."


def test_cmmlus_table_is_read_with_its_unnamed_column_listed() -> None:
    dataset = read(",Question,A,B,C,D,Answer\n0,哪个？,甲,乙,丙,丁,B\n", "a.csv")
    assert turns(dataset) == [
        ("user", "哪个？\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案："),
        ("assistant", "B"),
    ]
    assert ("column 1", "", 1) in dataset.fields


@pytest.mark.parametrize("cell", ['["x", "y"]', '{"A": "x", "B": "y"}', "A. x\nB) y"])
def test_choices_in_a_cell_are_parsed(cell: str) -> None:
    quoted = cell.replace('"', '""')
    dataset = read(f'question,options,answer\nQ?,"{quoted}",B\n', "a.csv")
    assert turns(dataset) == [("user", TWO), ("assistant", "B")]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"question": "Q?", "options": ["x", "y"], "answer": "z"},
            "answer is 'z', which matches none of the choices, or more than one (A. 'x', B. 'y')",
        ),
        (
            {"question": "Q?", "options": ["1", "2", "3"], "answer": "2"},
            "answer is '2', which matches none of the choices, or more than one",
        ),
        (
            {"question": "Q?", "options": ["w", "x", "y", "z"], "answer": "bad"},
            "answer is 'bad', which matches none of the choices",
        ),
        (
            {"question": "Q?", "options": ["x", "y"], "answer": 2},
            "answer is 2, which matches none of the choices",
        ),
        (
            {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "A"},
            "answer_idx says A and answer says B; keep the one that is right",
        ),
        ({"question": "Q?", "options": ["x"], "answer": "A"}, "1 choices; expected 2 to 26"),
        ({"question": "Q?", "options": ["x", "y"], "answer": ""}, "no answer (keys found: "),
        (
            {"question": "Q?", "options": "['x', 'y']", "answer": "A"},
            "options is text, written as Python prints a value; write it as JSON",
        ),
    ],
)
def test_a_row_whose_answer_cannot_be_told_says_why(row: dict[str, Any], problem: str) -> None:
    (found,) = refused(lines(row))
    assert found.startswith(f"rows.jsonl:1: {problem}")


def test_choices_that_a_named_form_would_lose_are_an_error() -> None:
    row = {"question": "Q?", "options": ["x", "y"], "answer": "A"}
    (problem,) = refused(lines(row), format="question_answer")
    assert problem.startswith("rows.jsonl:1: column options is not used in 1 row; ")
    assert "--format choice" in problem
    # Where the question has them in its text, nothing is lost.
    told = {**row, "question": "Q?\nA. x\nB. y"}
    assert read(lines(told), format="question_answer").examples


def test_a_list_of_choices_may_have_any_name() -> None:
    row = {"question": "Q?", "candidates": ["x", "y"], "answer": "x"}
    (problem,) = refused(lines(row))
    assert "column candidates is not used" in problem
    dataset = read(lines(row), columns={"options": "candidates"})
    assert turns(dataset) == [("user", TWO), ("assistant", "A")]
    assert json.dumps(dataset.fields[1]) == '["candidates", "choices", 1]'
