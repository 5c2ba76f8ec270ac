"""Every column is used, listed, or an error that says how to use it."""

from __future__ import annotations

from typing import Any

import pytest

from loracle.data.reading.fields import columns_line
from tests.data.files import lines, read, read_rows, refused, row, turn, turns

QA = {"question": "Who won?", "answer": "Denver"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, "Denver won the game.")
            for name in ("passage", "article", "Passage", "paragraph")
        ),
        *((name, "Denver won.") for name in ("hint", "table", "knowledge", "evidence", "facts")),
        *(
            (name, "Denver won.")
            for name in ("dialogue", "background", "retrieved_context", "材料")
        ),
        ("docs", ["Denver won."]),
        ("evidence_documents", None),
        ("input", "Denver won."),
    ],
)
def test_what_a_question_is_about_is_not_lost(name: str, value: object) -> None:
    if value is None:
        assert read_rows({**QA, name: value}).examples, "nothing is lost where nothing is there"
        return
    (problem,) = refused(lines({**QA, name: value}))
    assert f"column {name} is not used in 1 row" in problem
    assert f"--column context={name}" in problem
    dataset = read_rows({**QA, name: value}, columns={"context": name})
    assert "Denver won" in turns(dataset)[0][1]
    assert read_rows({**QA, name: value}, ignore_columns=(name,)).examples


@pytest.mark.parametrize("container", ["csv", "jsonl"])
def test_columns_are_accounted_for_in_every_container(container: str) -> None:
    text = (
        "question,answer,article\nWho?,A,Denver won.\n"
        if container == "csv"
        else lines({"question": "Who?", "answer": "A", "article": "Denver won."})
    )
    (problem,) = refused(text, f"rows.{container}")
    assert "column article is not used" in problem


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"prompt": "Who?", "completion": "A", "context": "Denver won."}, "context=context"),
        ({"prompt": "Who?", "completion": "A", "input": "Denver won."}, "input=input"),
        ({"query": "Who?", "response": "A", "passage": "Denver won."}, "context=passage"),
        ({**QA, "system_prompt": "Be brief."}, "system=system_prompt"),
        ({**QA, "instruction": "Be brief."}, "context=instruction"),
        ({**QA, "chat_history": [["a", "b"]]}, "history=chat_history"),
    ],
)
def test_the_advice_followed_to_the_letter_loses_nothing(value: dict[str, Any], named: str) -> None:
    (problem,) = refused(lines(value))
    options = problem.partition("To use it: ")[2].partition(" (in a plan")[0]
    assert named in options
    pairs = [part.partition("=") for part in options.split() if "=" in part]
    dataset = read_rows(value, columns={field: column for field, _, column in pairs})
    text = str(turns(dataset))
    assert all(str(part).strip("[]'") in text for part in value.values() if isinstance(part, str))


@pytest.mark.parametrize("name", ["image", "images", "image_path", "audio", "videos", "img_url"])
def test_rows_with_media_are_refused_by_name(name: str) -> None:
    dataset = read_rows({**QA, name: "1.jpg"}, {**QA, name: None}, {**QA, name: []})
    (drop,) = dataset.drops
    assert drop.reason == "images, sound or video"
    assert f"--ignore-column {name}" in drop.problems[0]


def test_what_turns_have_beside_their_text_is_accounted_for() -> None:
    dataset = read_rows({"messages": [turn("user", "a", mood="glad"), turn("assistant", "b")]})
    assert dataset.fields[-1] == ("messages[].mood", "", 1)
    (problem,) = refused(
        lines(
            {
                "conversations": [
                    {"from": "human", "value": "a", "images": ["x"]},
                    {"from": "gpt", "value": "b"},
                ]
            }
        )
    )
    assert "conversations[].images holds images" in problem


def test_a_key_of_turns_that_is_read_can_be_left_out() -> None:
    thought = turn("assistant", "b", reasoning_content="Hm.")
    chat = {"messages": [turn("user", "a"), thought]}
    assert read_rows(chat).examples[0].conversation.last_reply.reasoning == "Hm."
    dataset = read_rows(chat, ignore_columns=("messages[].reasoning_content",))
    assert dataset.examples[0].conversation.last_reply.reasoning is None
    assert ("messages[].reasoning_content", "ignored", 1) in dataset.fields


def test_what_stands_in_the_question_anyway_is_not_lost() -> None:
    told = {"question": "Denver won. Who?", "answer": "A", "passage": "Denver won."}
    dataset = read_rows(told)
    assert dataset.fields[-1] == ("passage", "", 1)
    copy = {"instruction": "i", "input": "x", "output": "o", "prompt": "Below: i\nx\nAnswer:"}
    assert read_rows(copy).examples


def test_documents_beside_turns_are_an_error_and_a_label_is_not() -> None:
    (problem,) = refused(lines(row(documents=[{"text": "Denver won."}])))
    assert "column documents is not used" in problem
    assert read_rows(row(context="math")).examples
    (problem,) = refused(lines(row(context="Denver won the game in 2015.")))
    assert "column context is not used" in problem


def test_a_system_text_beside_a_system_turn_is_an_error_unless_it_is_the_same() -> None:
    chat = {"messages": [turn("system", "a"), turn("user", "b"), turn("assistant", "c")]}
    (problem,) = refused(lines({**chat, "system": "another one"}))
    assert "column system is not used" in problem
    assert read_rows({**chat, "system": "a"}).examples


def test_rows_that_lose_a_column_are_counted_with_the_first_of_them() -> None:
    (problem,) = refused(lines(QA, {**QA, "passage": "x y z"}, {**QA, "passage": "u v w"}))
    assert problem.startswith("rows.jsonl:2: column passage is not used in 2 rows; ")


def test_the_columns_are_told_in_a_line() -> None:
    value = {"id": 1, **QA, "passage": "Denver won.", "source": "news", "options": ["x"]}
    dataset = read_rows(
        value,
        columns={"context": "passage"},
        ignore_columns=("options",),
        format="question_answer",
    )
    assert columns_line(dataset.fields) == (
        "asked: question · passage: passage · reply: answer · id: id · ignored: options (1 row) · "
        "not used: source (1 row)"
    )


def test_a_column_that_another_one_stands_in_for_is_listed() -> None:
    dataset = read_rows({**QA, "query": "Who lost?"}, columns={"question": "query"})
    assert turns(dataset)[0] == ("user", "Who lost?")
    assert ("question", "", 1) in dataset.fields


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("qestion", "did you mean question?"),
        ("Question", "did you mean question?"),
        ("zzz", "the columns are 'question', 'answer'"),
    ],
)
def test_an_absent_column_is_refused(name: str, hint: str) -> None:
    problems = refused(lines(QA), columns={"question": name})
    assert problems[0].startswith(
        f"rows.jsonl: no row has a column {name!r}, which was named for question; "
    )
    assert hint in problems[0]


@pytest.mark.parametrize(
    ("value", "context"),
    [
        (
            {"documents": [{"title": "T", "paragraphs": ["p", "q"], "is_selected": True}]},
            "T\np\nq",
        ),
        ({"documents": ["p", "q"]}, "p\nq"),
        ({"context": {"title": ["T", "U"], "sentences": [["p", "q"], ["r"]]}}, "T\np\nq\nU\nr"),
        ({"context": [["T", ["p", "q"]]]}, "T\np\nq"),
        ({"context": "c", "documents": [{"text": "p"}]}, "c\np"),
        ({"context": {"contexts": ["p"]}}, "p"),
        ({"context": [{"speaker": "Ann", "text": "p"}]}, "Ann: p"),
        ({"context": {"header": ["c"], "rows": [["r"]]}}, '{"header": ["c"], "rows": [["r"]]}'),
    ],
)
def test_documents_join_the_context(value: dict[str, Any], context: str) -> None:
    dataset = read_rows({**QA, **value})
    assert dataset.examples[0].context == context
    assert turns(dataset)[0][1] == f"Context: {context}\nQuestion: Who won?"


def test_parquet_is_accounted_for_too() -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist([{**QA, "article": "Denver won."}]), sink)
    (problem,) = refused(sink.getvalue(), "rows.parquet")
    assert "column article is not used" in problem
    assert read(sink.getvalue(), "rows.parquet", ignore_columns=("article",)).examples


def test_what_squads_articles_have_beside_their_questions_is_accounted_for() -> None:
    qas = [{"id": "a", "question": "Who?", "answers": [{"text": "A"}], "hint": None}]
    paragraph = {"context": "A won.", "qas": qas, "document_id": 3}
    dataset = read_rows({"title": "T", "paragraphs": [paragraph]})
    unused = [use.column for use in dataset.fields if not use.used_as]
    assert unused == ["data[].title", "paragraphs[].document_id"]
    (problem,) = refused(lines({"paragraphs": [{**paragraph, "images": ["1.jpg"]}]}))
    assert "paragraphs[].images holds images" in problem


@pytest.mark.parametrize(
    "value",
    [
        {"Question": "Who?", "Answer": "A"},
        {"Question": "Who?", "answer": "A"},
        {"Prompt": "Who?", "Completion": "A"},
        {"prompt": "Who?", "Response": "A", "completion": "A"},
        {"Instruction": "Who?", "Output": "A"},
        {"query": "Who?", "response": "A"},
        {"prompt": "Who?", "response": "A"},
    ],
)
def test_names_in_a_spreadsheets_case_are_the_same_names(value: dict[str, str]) -> None:
    dataset = read_rows(value)
    assert turns(dataset) == [("user", "Who?"), ("assistant", "A")]
    named = {use.column for use in dataset.fields if use.used_as}
    assert named == set(value) - ({"Response"} if "completion" in value else set())


def test_a_form_that_the_keys_leave_open_is_to_be_named() -> None:
    value = {"input": "Who?", "output": "A"}
    (problem,) = refused(lines(value))
    assert problem == (
        "rows.jsonl:1: format not certain (keys found: 'input', 'output'); name it, format: alpaca"
    )
    assert turns(read_rows(value, format="alpaca")) == [("user", "Who?"), ("assistant", "A")]
