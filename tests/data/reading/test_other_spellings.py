"""Rows as other programs spell them: read right, or refused with the cause and the way out."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.data.files import lines, read, read_rows, refused, turn, turns

TWO = "Q?\nA. x\nB. y\nAnswer:"
FOUR = {"question": "Q?", "options": ["w", "x", "y", "z"]}


def flagged(*flags: object, key: str = "is_correct") -> dict[str, object]:
    texts = "xyz"[: len(flags)]
    options = [{"text": text, key: flag} for text, flag in zip(texts, flags, strict=True)]
    return {"question": "Q?", "options": options}


@pytest.mark.parametrize(
    ("row", "letters"),
    [
        ({**FOUR, "answer": "A|C"}, "AC"),
        ({**FOUR, "answer": "[0, 2]"}, "AC"),
        ({**FOUR, "answer": "答案：B。"}, "B"),
        ({**FOUR, "answer": "Ｂ"}, "B"),
        ({"question": "Q?", "options": ["True", "False"], "answer": False}, "B"),
        ({"question": "Q?", "options": [{"key": "A", "value": "x"}, "y"], "answer": "B"}, "B"),
        ({"question": "Q?", "A": "x", "B": "", "C": "z", "answer": "C"}, "C"),
        ({"question": "Q?", "options": ["x", "", "z"], "answer": 2}, "C"),
        ({"question": "Q?", "options": {"option_a": "x", "option_b": "y"}, "answer": 1}, "B"),
        (
            {"question": "Q?", "choices.text": ["x", "y"], "choices.label": ["A", "B"], "gold": 0},
            "A",
        ),
        ({**flagged(False, True), "answer": "B"}, "B"),
        ({"question": "Q?", "options": ["B. x", "A. y"], "answer": "A"}, "A"),
        ({"question": "Q?", "options": ["A", "B", "AB", "O"], "answer": "B"}, "B"),
        ({"question": "Q?", "options": {"A": "B", "B": "A"}, "answer": "A"}, "A"),
    ],
)
def test_the_right_choice_is_found(row: dict[str, Any], letters: str) -> None:
    dataset = read_rows(row)
    assert dataset.format == "choice"
    assert dataset.examples[0].references == (letters,)


@pytest.mark.parametrize("key", ["is_correct", "isCorrect", "correct"])
def test_a_flag_on_a_choice_says_that_it_is_right(key: str) -> None:
    row = flagged(False, True, key=key)
    (problem,) = refused(lines(row))
    assert problem.endswith("for multiple choice: --format choice --column options=options")
    dataset = read_rows(row, format="choice")
    assert turns(dataset) == [("user", TWO), ("assistant", "B")]
    (several,) = read_rows(flagged(True, False, 1, key=key), format="choice").examples
    assert several.references == ("AC",)


def test_ones_and_zeros_beside_the_choices_say_which_is_right() -> None:
    targets = {"choices": ["x", "y", "z"], "labels": [0, 1, 0]}
    row = {"question": "Q?", "mc1_targets": targets}
    (problem,) = refused(lines(row))
    assert problem.endswith("--format choice --column options=mc1_targets")
    dataset = read_rows(row, format="choice", columns={"options": "mc1_targets"})
    assert dataset.examples[0].references == ("B",)


def test_a_flag_that_contradicts_the_answer_is_refused() -> None:
    (problem,) = refused(lines({**flagged(False, True), "answer": "A"}))
    assert problem == (
        "rows.jsonl:1: answer says A and the choices' own flags say B; keep the one that is right"
    )


def test_a_blank_choice_is_not_the_right_one_and_keeps_its_place() -> None:
    (problem,) = refused(lines({"question": "Q?", "options": ["x", None, "z"], "answer": 1}))
    assert problem.startswith("rows.jsonl:1: answer is 1, which matches none of the choices")


def test_choices_that_have_their_letters_are_shown_under_them() -> None:
    row = {"question": "Q?", "options": ["B. x", "A. y"], "answer": "A"}
    assert turns(read_rows(row))[0] == ("user", "Q?\nB. x\nA. y\nAnswer:")


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"options": ["B", "A", "C"], "answer": "A"}, "answer is 'A', which matches none of the"),
        (
            {"options": [{"label": "A", "text": "x"}, {"label": "A", "text": "y"}], "answer": "A"},
            "two choices are labelled 'A'; rename one",
        ),
    ],
)
def test_a_letter_that_may_be_either_choice_is_refused(row: dict[str, Any], cause: str) -> None:
    (problem,) = refused(lines({"question": "Q?", **row}))
    assert problem.startswith(f"rows.jsonl:1: {cause}")


@pytest.mark.parametrize("answer", [-1, "-1", "?"])
def test_a_withheld_answer_is_called_so(answer: object) -> None:
    (problem,) = refused(lines({**FOUR, "label": answer}))
    assert "which stands for an answer that is not published; use a split that has" in problem


@pytest.mark.parametrize("kind", [int, str, float])
def test_places_counted_from_1_are_refused_for_the_whole_file(kind: type) -> None:
    problems = refused(lines(*({**FOUR, "answer": kind(n)} for n in (1, 2, 4))), "a.jsonl")
    if kind is float:
        assert len(read_rows(*({**FOUR, "answer": kind(n)} for n in (0, 2, 3))).examples) == 3
    assert problems[0].startswith(
        "a.jsonl:3: the answers seem to be counted from 1: in 1 of 3 rows the answer is the "
        "number of choices, and in none it is 0, but a number is read as a place counted from 0; "
        "write the letter"
    )


def test_choices_labelled_with_numbers_are_counted_as_they_are() -> None:
    row = {"question": "Q?", "options": {"1": "x", "2": "y"}}
    dataset = read_rows({**row, "answer": 1}, {**row, "answer": "2"})
    assert [example.references for example in dataset.examples] == [("A",), ("B",)]


def test_many_places_without_a_0_are_doubted() -> None:
    rows = [{**FOUR, "question": f"Q{n}?", "answer": 1 + n % 3} for n in range(20)]
    (note,) = read_rows(*rows).notes
    assert note.is_warning
    assert str(note).startswith("20 answers that are numbers, none of them 0 (rows.jsonl:1); ")
    assert not read_rows({**FOUR, "answer": 0}, *rows).notes
    assert not read_rows(*rows[:19]).notes


@pytest.mark.parametrize(
    ("row", "way_out"),
    [
        ({"prompt": "q", "choices": ["x", "y"], "completion": "B"}, "answer=completion"),
        ({"query": "q", "choices": ["x", "y"], "response": "B"}, "answer=response"),
        ({"instruction": "q", "choices": ["x", "y"], "output": "B"}, "answer=output"),
        ({"instruction": "q", "A": "x", "B": "y", "output": "B"}, "answer=output"),
    ],
)
def test_choices_beside_another_form_are_used_as_the_message_says(
    row: dict[str, Any], way_out: str
) -> None:
    problems = refused(lines(row))
    assert all(f"--format choice --column {way_out}. " in problem for problem in problems)
    field, _, column = way_out.partition("=")
    dataset = read_rows(row, format="choice", columns={field: column})
    assert turns(dataset) == [("user", TWO.replace("Q?", "q")), ("assistant", "B")]


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (
            {"question": "Q?", "distractor1": "x", "distractor2": "y", "correct_answer": "z"},
            "rename the columns of choices (distractor1, distractor2, ...) to A, B",
        ),
        (
            {"question": "Q?", "answerA": "x", "answerB": "y", "label": "1"},
            "rename the columns of choices (answerA, answerB, ...)",
        ),
        ({"question": "q", "1": "x", "2": "y", "answer": "2"}, "rename such columns to A, B"),
        ({"问题": "q", "Ａ": "x", "Ｂ": "y", "答案": "Ａ"}, "rename such columns to A, B"),
        ({"role": "user", "content": "a"}, "this is a turn, and a row is a whole conversation"),
        ({"train": [{"question": "q", "answer": "a"}]}, "the rows stand under 'train'"),
        ({"1": {"question": "q"}, "2": {"question": "r"}}, "it holds rows by their ids"),
        (
            {"question": ["q", "r"], "answer": ["a", "b"]},
            "question is a list, as are the other columns; expected rows, not columns",
        ),
        (
            {"question": {"0": "q"}, "answer": {"0": "a"}},
            "question is an object, as are the other columns",
        ),
        (json.dumps({"question": "q", "answer": "a"}), "found text that is JSON itself"),
        (
            {"conversations": [{"from": "human", "content": "a"}]},
            "(found 'from', 'content'); add it, or rename 'content' to 'value'",
        ),
    ],
)
def test_what_is_no_row_is_named(row: object, cause: str) -> None:
    assert any(cause in problem for problem in refused(lines(row)))


@pytest.mark.parametrize(
    "mark",
    [
        {"no_loss": True},
        {"ignore_loss": "true"},
        {"skipTraining": 1},
        {"exclude_from_loss": True},
        {"is_trainable": False},
        {"isTrainable": 0},
        {"Weight": 0},
        {"trainOnTurn": False},
        {"train_mask": 0},
    ],
)
def test_a_mark_in_another_spelling_is_honoured(mark: dict[str, object]) -> None:
    chat = [turn("user", "a"), turn("assistant", "b", **mark)]
    more = [turn("user", "c"), turn("assistant", "d")]
    dataset = read_rows({"messages": [*chat, *more]})
    weights = [message.weight for message in dataset.examples[0].conversation.messages]
    assert weights == [1.0, 0.0, 1.0, 1.0]
    assert not [use for use in dataset.fields if not use.used_as]


@pytest.mark.parametrize("key", ["no_loss", "skip_training"])
def test_the_opposite_of_a_mark_that_is_false_changes_nothing(key: str) -> None:
    rows = {"messages": [turn("user", "a"), turn("assistant", "b", **{key: False})]}
    assert read_rows(rows).examples[0].conversation.messages[1].weight == 1.0


@pytest.mark.parametrize("key", ["loss_masks", "loss_weights", "train_mask", "turn_weights"])
def test_a_list_of_marks_may_have_other_names(key: str) -> None:
    chat = [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")]
    (example,) = read_rows({"messages": chat, key: [0, 0, 0, 1]}).examples
    assert [message.weight for message in example.conversation.messages] == [1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("key", ["ignore", "skip", "exclude"])
def test_a_turn_to_be_skipped_is_asked_about(key: str) -> None:
    (problem,) = refused(
        lines({"messages": [turn("user", "a"), turn("assistant", "b", **{key: True})]})
    )
    assert f"messages[1].{key} may mean" in problem
    unmarked = {"messages": [turn("user", "a"), turn("assistant", "b", **{key: False})]}
    assert read_rows(unmarked).examples


@pytest.mark.parametrize("mark", [{"desirable": False}, {"is_desirable": 0}, {"kto_tag": 0}])
def test_a_rejected_reply_in_another_spelling_is_refused(mark: dict[str, object]) -> None:
    (problem,) = refused(lines({"prompt": "p", "completion": "c", **mark}))
    assert "is false, KTO's mark for a rejected reply" in problem


def test_a_label_of_0_beside_a_completion_is_doubted() -> None:
    row = {"prompt": "p", "completion": "c"}
    (note,) = read_rows({**row, "label": 1}, {**row, "label": 0}).notes
    assert str(note).startswith("1 row whose label is 0 (rows.jsonl:2: label is 0); in KTO data")


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        ({"type": "text", "text": "b", "weight": 0}, "content[0].weight marks parts of a turn"),
        ({"text": "b", "no_loss": True}, "content[0].no_loss marks parts of a turn"),
        ({"type": "text", "text": "b", "image_url": {"url": "x"}}, "has image_url beside its text"),
        ({"text": "b", "video": "x.mp4"}, "has video beside its text"),
    ],
)
def test_what_stands_beside_the_text_of_a_part_is_not_lost(part: object, cause: str) -> None:
    (problem,) = refused(lines({"messages": [turn("user", "a"), turn("assistant", [part])]}))
    assert cause in problem


def test_blank_keys_beside_the_text_of_a_part_are_none() -> None:
    part = {"type": "text", "text": "b", "image": None, "weight": None, "cache_control": {}}
    assert turns(read_rows({"messages": [turn("user", [part]), turn("assistant", "c")]}))[0] == (
        "user",
        "b",
    )


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_what_a_turn_has_thought_is_kept(key: str) -> None:
    dataset = read_rows({"messages": [turn("user", "a"), turn("assistant", "b", **{key: "r"})]})
    assert dataset.examples[0].conversation.messages[1].reasoning == "r"
    assert not [use for use in dataset.fields if not use.used_as]
    # A template that cannot write it is told so under the name that most data has.
    without = read_rows(
        {"messages": [turn("user", "a"), turn("assistant", "b", **{key: "r"})]},
        ignore_columns=("messages[].reasoning_content",),
    )
    assert without.examples[0].conversation.messages[1].reasoning is None
    assert (f"messages[].{key}", "ignored", 1) in without.fields


def test_calls_under_a_role_of_their_own_are_calls_of_one_turn() -> None:
    call = json.dumps({"name": "f", "arguments": {"x": 1}})
    (example,) = read_rows(
        {
            "messages": [
                turn("user", "a"),
                turn("assistant", "Let me see."),
                turn("tool_call", call),
                turn("tool_call", call),
                turn("tool_response", "r"),
                turn("assistant", "b"),
            ]
        }
    ).examples
    messages = example.conversation.messages
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert [call.arguments for call in messages[1].tool_calls] == [{"x": 1}, {"x": 1}]
    (problem,) = refused(lines({"messages": [turn("user", "a"), turn("tool_call", "f()")]}))
    assert "messages[1].content is not JSON" in problem


@pytest.mark.parametrize("role", ["gpt", "bot", "model", "chatgpt"])
def test_sharegpts_further_names_of_the_assistant_are_known(role: str) -> None:
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": role, "value": "b"}]}
    assert turns(read_rows(row)) == [("user", "a"), ("assistant", "b")]


def test_turns_as_the_prompt_may_have_a_text_as_the_completion() -> None:
    row = {"prompt": [turn("system", "s"), turn("user", "a")], "completion": 5}
    assert turns(read_rows(row)) == [("system", "s"), ("user", "a"), ("assistant", "5")]


def test_an_answer_with_aliases_is_one_of_several() -> None:
    answer = {"value": "x", "aliases": ["x", "y"], "normalized_value": "x"}
    (example,) = read_rows({"question": "q", "answer": answer}).examples
    assert (example.conversation.reply, example.references) == ("x", ("x", "y"))


def test_a_table_keeps_its_rows() -> None:
    row = {"question": "q", "answer": "a", "context": [["City", "People"], ["Oslo", 717710]]}
    assert turns(read_rows(row))[0][1] == "Context: City | People\nOslo | 717710\nQuestion: q"


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u200b", "\u2060"])
def test_an_answer_that_nobody_sees_is_empty(text: str) -> None:
    for row in (
        {"question": "q", "answer": text},
        {"instruction": "q", "output": text},
        {"messages": [turn("user", "q"), turn("assistant", text)]},
    ):
        assert "empty" in refused(lines(row))[0]


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([turn("user", "<image>\nWhat?"), turn("assistant", "a")], "turn with the place of media"),
        ([turn("user", "What? <video>"), turn("assistant", "a")], "turn with the place of media"),
        (
            [turn("user", "q"), turn("assistant", "<think>First")],
            "reply whose reasoning never ends",
        ),
        ([turn("user", "MÃ¼nchen?"), turn("assistant", "a")], "text with misread letters"),
        ([turn("user", "q"), turn("assistant", "itâ€™s")], "text with misread letters"),
    ],
)
def test_a_doubtful_text_is_noted(messages: list[object], found: str) -> None:
    (note,) = read_rows({"messages": messages}).notes
    assert note.is_warning
    assert str(note).startswith(f"1 {found} (rows.jsonl:1: ")


@pytest.mark.parametrize(
    "text",
    ["A <video> tag is HTML.", "<think>r</think>b", "São Paulo, Ãrea", "a < b", "pâté, château"],
)
def test_a_text_that_is_as_it_should_be_is_not_noted(text: str) -> None:
    assert not read_rows({"messages": [turn("user", text), turn("assistant", text)]}).notes


def parquet(**columns: object) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_a_number_of_few_bits_is_written_as_it_was_meant(kind: Any) -> None:
    table = parquet(
        question=["q", "r", "s"], answer=pa.array([0.1, 2.5, 3], pa.float64()).cast(kind)
    )
    dataset = read(table, "a.parquet")
    assert [example.references[0] for example in dataset.examples] == ["0.1", "2.5", "3"]


def test_a_column_of_maps_that_is_not_used_ends_no_file() -> None:
    maps = pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string()))
    dataset = read(parquet(question=["q"], answer=["a"], meta=maps), "a.parquet")
    assert dataset.fields[-1] == ("meta", "", 1)


@pytest.mark.parametrize(
    ("content", "name", "cause"),
    [
        ("question,answer\rq,a\r", "a.csv", "line ends of CR alone"),
        ("sep=;\nquestion;answer\nq;a\n", "a.csv", "remove the line 'sep='"),
        ("My data,,\nquestion,answer,\nq,a,\n", "a.csv", "if 'My data' is a title, remove it"),
        ("question,answer\nq,a\n".encode("utf-16-le"), "a.csv", "UTF-16 without a byte-order mark"),
        ("version https://git-lfs.github.com/spec/v1\n", "a.parquet", "is a Git LFS pointer"),
    ],
)
def test_a_file_that_is_not_what_it_seems_is_named(
    content: str | bytes, name: str, cause: str
) -> None:
    assert cause in refused(content, name)[0]
