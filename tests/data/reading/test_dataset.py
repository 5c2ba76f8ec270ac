from __future__ import annotations

import codecs
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loracle.data.conversation import ROLES, Example, Message
from loracle.data.reading.dataset import read_examples
from loracle.errors import DataError


def row(question: str = "Who won?", reply: str = "The Broncos", **more: object) -> dict[str, Any]:
    """A good row in `messages` form."""
    return {"messages": [turn("user", question), turn("assistant", reply)], **more}


def turn(role: object, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


def read(content: str | bytes, *, limit: int | None = None) -> list[Example]:
    """The examples of a file with this content."""
    data = content.encode() if isinstance(content, str) else content
    Path("rows.json").write_bytes(data)
    return read_examples("rows.json", limit=limit)


def read_rows(*rows: object) -> list[Example]:
    return read("\n".join(json.dumps(value) for value in rows))


def problems_of(content: str | bytes) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        read(content)
    return caught.value.problems


QUESTION = {"question": "Who won?", "answer": "The Broncos"}


def problem_of_row(value: object) -> str:
    """The one problem of a file with a good row of the same form and this one below it."""
    good = QUESTION if isinstance(value, dict) and "question" in value else row()
    (problem,) = problems_of(f"{json.dumps(good)}\n{json.dumps(value)}\n")
    assert problem.startswith("rows.json:2: ")
    return problem.removeprefix("rows.json:2: ")


def test_a_row_becomes_an_example_with_its_place() -> None:
    (first,) = read_rows(row(id="q1", answers=["The Broncos", "Denver Broncos"]))

    assert first.id == "q1"
    assert first.conversation.messages == (
        Message("user", "Who won?"),
        Message("assistant", "The Broncos"),
    )
    assert first.answers == first.references == ("The Broncos", "Denver Broncos")
    assert first.where == "rows.json:1"


def test_a_row_may_have_several_turns_and_a_system_prompt() -> None:
    roles = ("system", "user", "assistant", "tool", "tool", "assistant", "user", "assistant")
    turns = [turn(role, role[::-1]) for role in roles]

    (first,) = read_rows({"messages": turns})

    assert [(m.role, m.content) for m in first.conversation.messages] == [
        (value["role"], value["content"]) for value in turns
    ]


def test_rows_of_jsonl_keep_their_lines_over_blank_ones() -> None:
    text = json.dumps(row())

    examples = read(f"\n{text}\n \t\r\n\r\n{text}\r\n{text}")

    assert [(value.line, value.id) for value in examples] == [
        (2, "rows-1"),
        (5, "rows-2"),
        (6, "rows-3"),
    ]


def test_rows_of_an_array_keep_the_line_where_they_start() -> None:
    pretty = json.dumps([row(), row()], indent=1)
    text = pretty.removesuffix("\n]") + f",{json.dumps(row())}, {json.dumps(row())}\n]\n\n"

    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines, start=1) if line.startswith(" {")]
    examples = read(text)

    assert len(starts) == 2
    assert [value.line for value in examples] == [*starts, len(lines) - 3, len(lines) - 3]
    assert [value.id for value in examples] == ["rows-1", "rows-2", "rows-3", "rows-4"]


def test_the_content_and_not_the_ending_says_what_a_file_is() -> None:
    Path("rows.jsonl").write_text(f"  \n{json.dumps([row(), row()])}")
    Path("rows.txt").write_text(f"{json.dumps(row())}\n")

    assert len(read_examples(Path("rows.jsonl"))) == 2
    assert len(read_examples("rows.txt")) == 1


def test_a_byte_order_mark_is_accepted() -> None:
    text = json.dumps(row()).encode()

    assert len(read(codecs.BOM_UTF8 + text)) == 1
    assert len(read(codecs.BOM_UTF8 + b"[" + text + b"]")) == 1


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\\n", "\\r"])
def test_separators_inside_a_text_do_not_break_the_line(separator: str) -> None:
    text = json.dumps(row(reply="one@two"), ensure_ascii=False).replace("@", separator)

    examples = read(f"{text}\n{text}")

    assert [value.line for value in examples] == [1, 2]
    assert examples[0].conversation.reply == json.loads(f'"one{separator}two"')


def test_constants_outside_json_may_stand_in_fields_that_are_not_used() -> None:
    assert len(read_rows(row(score=float("nan"), weight=float("-inf")))) == 1
    (example,) = read_rows(row(id=float("nan")))
    assert example.id == "rows-1", "NaN is how tables write that there is no value"


def test_a_single_answer_may_be_a_text() -> None:
    assert [value.answers for value in read_rows(row(answers="one"), row(answers=None), row())] == [
        ("one",),
        (),
        (),
    ]


def test_ids_may_be_numbers_and_are_derived_where_missing() -> None:
    examples = read_rows(row(id=7), row(id="x"), row(id=None), row())

    assert [value.id for value in examples] == ["7", "x", "rows-3", "rows-4"]


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        ([row(id=7), row(id="7")], ["7", "rows-2"]),
        ([row(id="rows-2"), row()], ["rows-2", "rows-2-2"]),
        ([row(id=2.0), row(id=2.5), row(id=True)], ["2", "2.5", "true"]),
        ([row(id=["x"]), row(id=" "), row(id="")], ["rows-1", "rows-2", "rows-3"]),
    ],
)
def test_ids_are_unique_and_no_row_is_lost_for_its_id(rows: list[object], ids: list[str]) -> None:
    assert [value.id for value in read_rows(*rows)] == ids
    assert [value.id for value in read(json.dumps(rows))] == ids


def test_a_limit_reads_the_first_rows_and_looks_no_further() -> None:
    lines = f"{json.dumps(row())}\n{json.dumps(row())}\nbad"

    assert len(read(lines, limit=2)) == 2
    assert len(read(f"[{json.dumps(row())}, bad", limit=1)) == 1
    assert len(read(json.dumps(row()), limit=9)) == 1
    with pytest.raises(DataError, match=r"^rows\.json:3: bad JSON"):
        read(lines, limit=3)


def test_question_rows_are_read() -> None:
    plain, with_context, several, both = read_rows(
        {"question": "Who?", "answer": "A"},
        {"question": "Who?", "answer": "A", "context": "A won.", "id": 3},
        {"question": "Who?", "answers": ["A", "B"]},
        {"question": "Who?", "answer": "Because A", "answers": "A", "context": None},
    )

    assert plain.conversation.messages == (Message("user", "Who?"), Message("assistant", "A"))
    assert (plain.answers, plain.references) == ((), ("A",))
    assert with_context.conversation.messages[0].content == "Context: A won.\nQuestion: Who?"
    assert with_context.id == "3"
    assert (several.conversation.reply, several.answers) == ("A", ("A", "B"))
    assert (both.conversation.reply, both.answers) == ("Because A", ("A",))
    assert both.conversation.messages[0].content == "Who?"


def test_an_answer_list_gives_the_reply_and_the_references() -> None:
    (first,) = read_rows({"question": "Who?", "answer": ["A", "B"]})

    assert (first.conversation.reply, first.references) == ("A", ("A", "B"))


FORMS = (
    'expected a row like {"messages": [{"role": ..., "content": ...}, ...]} '
    'or {"conversations": [{"from": ..., "value": ...}, ...]} '
    'or {"instruction": ..., "input": ..., "output": ...} '
    'or {"prompt": ..., "completion": ...} '
    'or {"question": ..., "answer": ...} '
    'or {"question": ..., "options": [...], "answer": "B"} '
    'or {"paragraphs": [{"context": ..., "qas": [...]}]}'
)
NO_ANSWER = (
    "no answer (keys found: 'question'); add one, text or a list of texts, or name its column, "
    "columns: {answer: ...}"
)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], f"found a list; {FORMS}"),
        ("text", f"found text; {FORMS}"),
        (3, f"found 3; {FORMS}"),
        (None, f"found null; {FORMS}"),
        (
            {"text": "x"},
            "no messages (keys found: 'text'); name their column, columns: {messages: ...}",
        ),
        ({}, "no messages (keys found: none); name their column, columns: {messages: ...}"),
        ({"messages": {}}, "messages is an object; expected a list of turns"),
        (
            {"messages": []},
            "no assistant turn; the last message must be the assistant's reply",
        ),
        (
            {"messages": [turn("user", "x")]},
            "no assistant turn; the last message must be the assistant's reply",
        ),
        (
            {"messages": [*row()["messages"], turn("user", "thanks")]},
            "the last turn is 'user'; end the row with the assistant's reply",
        ),
        (
            {"messages": [turn("system", "x"), turn("assistant", "x")]},
            "no user turn before the assistant's reply; add what it answers",
        ),
        (
            {"messages": ["hello", turn("assistant", "x")]},
            'messages[0] is text; expected {"role": ..., "content": ...}',
        ),
        (
            {"messages": [{"speaker": "human", "text": "x"}]},
            "messages[0] has no role and no content (found 'speaker', 'text'); add it",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0] has no content (found 'role'); add it"),
        ({"messages": [{}]}, "messages[0] has no role and no content (found no keys); add it"),
        (
            {"messages": [turn("asistant", "x")]},
            "messages[0].role is 'asistant'; did you mean 'assistant'?",
        ),
        (
            {"messages": [turn("gpt", "x")]},
            "messages[0].role is 'gpt'; expected one of system, user, assistant, tool",
        ),
        (
            {"messages": [turn(["user"], "x")]},
            "messages[0].role is ['user']; expected one of system, user, assistant, tool",
        ),
        ({"messages": [turn("user", None)]}, "messages[0].content is null; expected text"),
        ({"messages": [turn("user", 3.5)]}, "messages[0].content is 3.5; expected text"),
        (
            row(reply=" \n"),
            "messages[1] is an empty assistant reply; fill it or leave the row out",
        ),
        (row(answers=[]), "answers is an empty list; fill it or leave it out"),
        (row(answers=["a", ["b"]]), "answers[1] is a list; expected text"),
        (row(answers={"text": ["a"]}), "answers is an object; expected text"),
        (
            row(reply="a\ud800b"),
            "messages[1].content has half of a surrogate pair, '\\ud800', which is not a "
            "character; remove it",
        ),
        ({"question": "Who?"}, NO_ANSWER),
        ({"question": "Who?", "answer": ""}, "answer is empty; fill it or leave the row out"),
        ({"question": "Who?", "answer": math.inf}, "answer is Infinity; expected text"),
        ({"question": "Who?", "answers": []}, "answers is an empty list; fill it or leave it out"),
        ({"question": " ", "answer": "a"}, "question is empty; fill it or leave the row out"),
        ({"question": [3], "answer": "a"}, "question is a list; expected text"),
        (
            {"question": "Who?", "answer": "a", "context": {"x": 3}},
            "context is an object; expected text, a list of texts, or documents with title and "
            "paragraphs or text",
        ),
    ],
)
def test_a_row_that_cannot_be_used_says_why(value: object, problem: str) -> None:
    assert problem_of_row(value) == problem


def test_all_faults_of_a_row_are_named() -> None:
    problems = problems_of(
        json.dumps({"messages": [turn("usr", 3), turn("user", 4)], "answers": [], "id": ""})
    )

    assert problems == (
        "rows.json:1: messages[0].content is 3; expected text",
        "rows.json:1: messages[0].role is 'usr'; did you mean 'user'?",
        "rows.json:1: messages[1].content is 4; expected text",
        "rows.json:1: answers is an empty list; fill it or leave it out",
    )


def test_the_first_twenty_problems_are_shown_and_the_others_counted() -> None:
    problems = problems_of("{}\n" * 25)

    assert len(problems) == 21
    assert problems[19].startswith("rows.json:20: no known format (keys found: none)")
    assert problems[20] == "rows.json: and 5 more"
    assert len(problems_of("{}\n" * 20)) == 20


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"text": "x"}, f"no known format (keys found: 'text'); {FORMS}, or name the columns"),
        (
            {"mesages": [], "id": 1},
            "no known format (keys found: 'mesages', 'id'); did you mean 'messages' by 'mesages'?",
        ),
        (
            {"instruction": "x", "reply": "y"},
            "no output (keys found: 'instruction', 'reply'); add it, or name its column, "
            "columns: {output: ...}",
        ),
        ({"question": "Who?"}, NO_ANSWER),
    ],
)
def test_a_file_of_no_known_form_says_what_is_missing(value: object, problem: str) -> None:
    assert problems_of(json.dumps(value)) == (f"rows.json:1: {problem}",)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"messages": [}', "bad JSON at column 15 (Expecting value)"),
        ('  {"a" 1}', "bad JSON at column 8 (Expecting ':' delimiter)"),
        ('{"a": "x', "bad JSON at column 7 (Unterminated string starting at)"),
        ('{"a": 1} {"b": 2}', "bad JSON at column 10 (Extra data)"),
        ('{"a": ' + "[" * 100_000, "bad JSON (nested too deeply)"),
        ('{"a": ' + "1" * 5000 + "}", "bad JSON (Exceeds the limit"),
    ],
)
def test_a_bad_line_of_jsonl_is_named_and_the_others_are_still_read(line: str, reason: str) -> None:
    first, second, third = problems_of(f"{json.dumps(row())}\n{line}\n\n{line}\n7\n")

    assert first.startswith(f"rows.json:2: {reason}")
    assert first.endswith("; a line must be one whole JSON object")
    assert second.startswith(f"rows.json:4: {reason}")
    assert third == f"rows.json:5: found 7; {FORMS}"


@pytest.mark.parametrize(
    ("tail", "problem"),
    [
        (
            ",\n{bad}]",
            "3: bad JSON at column 2 (Expecting property name enclosed in double quotes), in the ",
        ),
        (",\n\n]", "4: bad JSON at column 1 (Expecting value), in the row that starts at line 4"),
        (",\n", "3: bad JSON at column 1 (Expecting value), in the row that starts at line 3"),
        (',\n{"a":\n\n"x}]', "5: bad JSON at column 1 (Unterminated string starting at), in the "),
        ("", "2: bad JSON: the file ends after a row; expected , or ]"),
        ("\n{}]", "3: bad JSON: found '{' after a row; expected , or ]"),
        ("]\n x", "3: bad JSON: found 'x' after the closing ]; expected nothing more"),
        ("," + "[" * 100_000, "2: bad JSON (nested too deeply), in the row that starts at line 2"),
    ],
)
def test_a_broken_array_is_named_with_the_line(tail: str, problem: str) -> None:
    (found,) = problems_of(f"[\n{json.dumps(row())}{tail}")

    assert found.startswith(f"rows.json:{problem}")


def test_one_object_over_several_lines_is_recognised() -> None:
    (problem,) = problems_of(json.dumps({"rows": [row()]}, indent=1))

    assert problem == (
        "rows.json:1: found one JSON object over several lines; write one object per line, "
        "or an array of rows, or an object with its rows under 'data'"
    )


@pytest.mark.parametrize("indent", [None, 1])
def test_rows_may_stand_under_data(indent: int | None) -> None:
    whole = {"version": "1.1", "more": {"a": [1]}, "data": [row(), row()], "end": None}

    examples = read(json.dumps(whole, indent=indent))

    assert [value.id for value in examples] == ["rows-1", "rows-2"]


@pytest.mark.parametrize("content", ["", "\n \r\n", "[]", " [\n]\n", codecs.BOM_UTF8])
def test_a_file_without_rows_is_refused(content: str | bytes) -> None:
    assert problems_of(content) == (f"rows.json:1: found no rows; {FORMS}",)


def test_bytes_that_are_not_utf8_are_named_with_their_line() -> None:
    good = json.dumps(row()).encode()
    bad = '{"a": "é"}'.encode("latin-1")
    expected = "byte 8 of the line, 0xe9, is not UTF-8; save the file as UTF-8"

    in_lines = problems_of(good + b"\n" + bad + b"\n{}\n" + bad)
    in_array = problems_of(b"[" + good + b",\n" + bad + b"\n]")

    assert [in_lines[0], in_lines[2]] == [f"rows.json:{line}: {expected}" for line in (2, 4)]
    assert in_array == (f"rows.json:2: {expected}",)


def test_a_missing_file_names_the_nearest_in_its_folder() -> None:
    Path("train.jsonl").touch()

    with pytest.raises(DataError, match=r"^there is no file trian.jsonl; did you mean train.jsonl"):
        read_examples("trian.jsonl")
    with pytest.raises(DataError, match=r"^there is no file zzz; check the path$"):
        read_examples("zzz")
    with pytest.raises(DataError, match=r"^there is no file no/x: its folder no does not exist$"):
        read_examples("no/x")


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("rows.json").touch()

    def refuse(path: Path, *mode: object, **more: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"^rows.json cannot be read: Permission denied$"):
        read_examples("rows.json")


def examples_or_problems(content: bytes) -> list[Example] | tuple[str, ...]:
    try:
        return read(content)
    except DataError as error:
        return error.problems


@settings(max_examples=300, deadline=None)
@given(st.binary() | st.text(alphabet='[]{},:" \n\r\\ud8truenNaN0.e-').map(str.encode))
@example(b"[")
@example(b"[1")
@example(b"\xef\xbb\xbf\xef\xbb\xbf{}")
@example(b'{"question": "\xe2\x80\xa8", "answer": "\\u2028"}')
def test_any_bytes_give_examples_or_a_data_error(content: bytes) -> None:
    assert examples_or_problems(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
odd_turns = st.dictionaries(
    st.sampled_from(["role", "content", "tool_calls"]), st.sampled_from(ROLES) | json_values
)
odd_rows = st.dictionaries(
    st.sampled_from(["messages", "question", "context", "answer", "answers", "id"]),
    json_values | st.lists(odd_turns | json_values, max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(odd_rows | json_values, min_size=1, max_size=3), st.sampled_from([None, 1]))
def test_any_json_gives_usable_examples_or_a_data_error(
    rows: list[object], indent: int | None
) -> None:
    result = examples_or_problems(json.dumps(rows, indent=indent).encode())

    assert result
    for value in result:
        if isinstance(value, Example):
            assert value.conversation.messages[-1].role == "assistant"
            assert value.conversation.reply.strip()
            assert value.references
        else:
            assert value.startswith("rows.json:")


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).filter(
    str.strip
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5), st.booleans())
def test_good_rows_come_back_as_written_in_either_form(
    pairs: list[tuple[str, str]], as_array: bool
) -> None:
    rows = [row(question, reply) for question, reply in pairs]
    lines = "\n".join(json.dumps(value, ensure_ascii=False) for value in rows)

    examples = read(json.dumps(rows, indent=2) if as_array else lines)

    read_back = [
        (value.conversation.messages[0].content, value.conversation.reply) for value in examples
    ]
    assert read_back == pairs
