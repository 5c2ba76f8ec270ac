"""Marks of what must not be learned, in every form, and preference data."""

from __future__ import annotations

from typing import Any

import pytest

from loracle.data.converting import row_of
from tests.data.files import lines, read_rows, refused, row, turn, turns

FALSE_MARKS: list[dict[str, object]] = [
    {"weight": 0},
    {"weight": 0.0},
    {"loss": False},
    {"train": False},
    {"training": False},
    {"trainable": False},
    {"loss_weight": 0},
    {"loss_scale": 0.0},
    {"loss_mask": 0},
    {"loss_mask": "false"},
    {"train_on": False},
    {"learn": False},
    {"weight": 1, "train": False},
]


@pytest.mark.parametrize("mark", FALSE_MARKS)
@pytest.mark.parametrize("form", ["messages", "sharegpt", "pairs"])
def test_a_reply_marked_as_not_to_be_learned_has_no_weight(
    form: str, mark: dict[str, object]
) -> None:
    if form == "messages":
        value: dict[str, Any] = {
            "messages": [
                turn("user", "a", **mark),
                turn("assistant", "b", **mark),
                turn("user", "c"),
                turn("assistant", "d"),
            ]
        }
    elif form == "sharegpt":
        value = {
            "conversations": [
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b", **mark},
                {"from": "human", "value": "c"},
                {"from": "gpt", "value": "d"},
            ]
        }
    else:
        value = {
            "conversation": [
                {"human": "a", "assistant": "b", **mark},
                {"human": "c", "assistant": "d"},
            ]
        }
    (example,) = read_rows(value).examples
    assert [message.weight for message in example.conversation.messages] == [1.0, 0.0, 1.0, 1.0]
    # The mark survives a conversion.
    (again,) = read_rows(row_of(example)).examples
    assert again.conversation == example.conversation


@pytest.mark.parametrize("mask", [[0, 0, 0, 1], [0, 1], [False, True], ["0", "1"]])
def test_a_row_may_mark_each_turn_or_each_reply(mask: list[object]) -> None:
    value = {
        "messages": [turn("user", "a"), turn("assistant", "b"), turn("user", "c")],
        "loss_mask": mask,
    }
    value["messages"].append(turn("assistant", "d"))  # type: ignore[attr-defined]
    (example,) = read_rows(value).examples
    assert [message.weight for message in example.conversation.messages] == [1.0, 0.0, 1.0, 1.0]


def test_a_mask_of_another_length_is_refused() -> None:
    (problem,) = refused(lines(row(loss_mask=[1, 0, 1])))
    assert problem == (
        "rows.jsonl:1: the row marks 3 turns and has 2, 1 of them replies; give one mark per "
        "turn, or one per reply"
    )


@pytest.mark.parametrize(
    "value",
    [
        row(train=False),
        row(loss_weight=0),
        row(weight=0),
        row(loss=False),
        row(loss_mask=[0, 0]),
        {"prompt": "a", "completion": "b", "train": False},
        {"instruction": "a", "output": "b", "weight": 0},
        {"question": "a", "answer": "b", "loss_mask": 0},
        {"messages": [turn("user", "a"), turn("assistant", "b", weight=0)]},
    ],
)
def test_a_row_whose_replies_are_all_marked_is_left_out_as_its_owner_says(
    value: dict[str, object],
) -> None:
    dataset = read_rows(value, row() if "messages" in value else {**value, "train": True})
    assert [drop.by_policy for drop in dataset.drops][:1] == [True]
    assert dataset.drops[0].reason == "excluded from the loss"


def test_a_fraction_is_a_loss_weight() -> None:
    (example,) = read_rows(row(loss_weight=0.5)).examples
    assert example.conversation.messages[-1].weight == 0.5


@pytest.mark.parametrize("mark", ["never", -1, [1], float("inf")])
def test_a_mark_that_cannot_be_read_is_refused(mark: object) -> None:
    (problem,) = refused(
        lines({"messages": [turn("user", "a"), turn("assistant", "b", loss=mark)]})
    )
    assert problem.startswith("rows.jsonl:1: messages[1].loss is ")


def test_marks_within_a_turn_are_refused() -> None:
    detail = [{"begin_offset": 0, "end_offset": 2, "train": False}]
    turns_ = [turn("user", "a"), turn("assistant", "b", train_detail=detail)]
    (problem,) = refused(lines({"messages": turns_}))
    assert "messages[1].train_detail marks parts of a turn" in problem


def test_a_weight_of_a_row_that_is_not_zero_is_a_column_like_others() -> None:
    dataset = read_rows({"question": "How heavy?", "answer": "70 kg", "weight": 70})
    assert dataset.fields[-1] == ("weight", "", 1)
    assert dataset.examples[0].conversation.messages[-1].weight == 1


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "a", "completion": "b", "label": False},
        row(label=False),
        {"instruction": "a", "output": "b", "kto_tag": False},
        {"prompt": "a", "completion": "b", "label": "False"},
    ],
)
def test_ktos_unwanted_replies_are_refused(value: dict[str, object]) -> None:
    (problem,) = refused(lines(value))
    assert "is false, KTO's mark for a rejected reply" in problem


def test_a_label_that_is_a_class_is_no_mark() -> None:
    assert len(read_rows({"prompt": "a", "completion": "b", "label": 0}).examples) == 1


CHAT = [turn("user", "p"), turn("assistant", "c")]


@pytest.mark.parametrize(
    ("value", "column"),
    [
        ({"prompt": "p", "chosen": "c", "rejected": "r"}, "completion=chosen"),
        ({"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": CHAT[1:]}, "completion=chosen"),
        ({"chosen": CHAT, "rejected": CHAT}, "messages=chosen"),
        ({"prompt": "p", "chosen": CHAT, "rejected": CHAT}, "messages=chosen"),
        ({"instruction": "p", "input": "", "chosen": "c", "rejected": "r"}, "output=chosen"),
        ({"question": "p", "chosen": "c", "rejected": "r"}, "answer=chosen"),
        (
            {"query": "p", "response_chosen": "c", "response_rejected": "r"},
            "completion=response_chosen",
        ),
    ],
)
def test_preference_data_is_refused_and_the_advice_works_as_it_stands(
    value: dict[str, object], column: str
) -> None:
    (problem,) = refused(lines(value))
    assert problem.startswith("rows.jsonl:1: preference data (")
    assert f"--column {column}" in problem
    field, _, name = column.partition("=")
    dataset = read_rows(value, columns={field: name})
    assert turns(dataset) == [("user", "p"), ("assistant", "c")]
    unused = [use.column for use in dataset.fields if not use.used_as and "reject" in use.column]
    assert unused == [name.replace("chosen", "rejected")]


def test_a_reply_beside_preferences_is_learned_where_they_are_ignored() -> None:
    value = {"messages": CHAT, "rejected_response": "r"}
    (problem,) = refused(lines(value))
    assert "--ignore-column rejected_response" in problem
    assert read_rows(value, ignore_columns=("rejected_response",)).examples


def test_a_mark_that_may_mean_either_is_refused() -> None:
    (problem,) = refused(lines({"messages": [turn("user", "a"), turn("assistant", "b", mask=1)]}))
    assert problem == (
        "rows.jsonl:1: messages[1].mask may mean that the turn is used for training or hidden; "
        "write weight: 1 to train on it, weight: 0 not to"
    )
