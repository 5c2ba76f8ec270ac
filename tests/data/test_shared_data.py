"""Real files of every form read without a flag, with counts equal to a count made without the
reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loracle.data.reading.dataset import read_dataset
from tests.data.files import SHARED

PLAIN = [
    ("xquad-en/candidates/clean.json", "messages"),
    ("xquad-en/candidates/half.json", "messages"),
    ("xquad-en/candidates/noisy.json", "messages"),
    ("xquad-en/candidates/shuffled.json", "messages"),
    ("xquad-en/candidates/verbose.json", "messages"),
    ("xquad-en/eval.json", "messages"),
    ("formats/alpaca_zh_demo.json", "alpaca"),
    ("formats/glaive_toolcall_en_demo.json", "sharegpt"),
]


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip("the shared data is not beside this checkout")
    return path


@pytest.mark.parametrize(("name", "form"), PLAIN)
def test_an_array_gives_an_example_a_row(name: str, form: str) -> None:
    path = shared(name)
    rows = json.loads(path.read_text(encoding="utf-8"))

    dataset = read_dataset(path, strict=True)

    assert (dataset.format, dataset.container) == (form, "JSON")
    assert dataset.num_rows == len(dataset.examples) == len(rows)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert all(lines[value.line - 1].lstrip().startswith("{") for value in dataset.examples)


def test_gsm8k_gives_an_example_a_line() -> None:
    path = shared("gsm8k/train-1500.jsonl")

    dataset = read_dataset(path, strict=True)

    assert (dataset.format, dataset.container) == ("question_answer", "JSONL")
    assert len(dataset.examples) == len(path.read_text(encoding="utf-8").splitlines())
    assert [value.line for value in dataset.examples] == list(range(1, 1501))


def test_tool_calls_of_the_real_sharegpt_file_are_all_kept() -> None:
    path = shared("formats/glaive_toolcall_en_demo.json")
    turns = [turn for row in json.loads(path.read_text()) for turn in row["conversations"]]
    calls = [json.loads(turn["value"]) for turn in turns if turn["from"] == "function_call"]

    dataset = read_dataset(path, strict=True)

    messages = [m for e in dataset.examples for m in e.conversation.messages]
    found = [call for message in messages for call in message.tool_calls]
    assert [(call.name, call.arguments) for call in found] == [
        (call["name"], call["arguments"]) for call in calls
    ]
    assert sum(m.role == "tool" for m in messages) == len(calls) > 200


@pytest.mark.parametrize(
    ("name", "num_empty"),
    [("squad-format/xquad.zh.json", 0), ("squad-format/cmrc2018_trial.json", 2)],
)
def test_squads_form_gives_an_example_a_question(name: str, num_empty: int) -> None:
    path = shared(name)
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    questions = [
        (qa["id"], qa["question"], paragraph["context"], tuple(a["text"] for a in qa["answers"]))
        for article in articles
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    asked = [question for question in questions if question[1].strip()]

    dataset = read_dataset(path)

    assert dataset.format == "squad"
    assert dataset.num_rows == len(questions)
    assert [(e.id, e.question, e.context, e.references) for e in dataset.examples] == asked
    # Two questions of CMRC's trial set are empty; they are named, with the line for each.
    assert dataset.num_dropped == ({"empty text": num_empty} if num_empty else {})
    lines = path.read_text(encoding="utf-8").split("\n")
    assert all('"question": ""' in lines[drop.line] for drop in dataset.drops)
    near = {
        value.id: "\n".join(lines[value.line - 1 : value.line + 12]) for value in dataset.examples
    }
    assert all(f'"{identifier}"' in text for identifier, text in near.items())
