"""Values as they come: numbers, lists in cells, blanks, what spreadsheets and pandas leave."""

from __future__ import annotations

import io
import json
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.data.files import lines, read, read_rows, refused, row, turn, turns


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (5.0, "5"),
        (2.5, "2.5"),
        (True, "true"),
        (False, "false"),
        (-3, "-3"),
        (1e300, "1e+300"),
    ],
)
def test_a_number_or_truth_value_is_an_answer_in_every_form(value: object, text: str) -> None:
    forms: list[dict[str, Any]] = [
        {"question": "q", "answer": value},
        {"question": "q", "answers": [value, "x"]},
        {"instruction": "q", "output": value},
        {"prompt": "q", "completion": value},
        {"query": "q", "response": value},
        {"messages": [turn("user", "q"), turn("assistant", value)]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": value}]},
        {"conversation": [{"human": "q", "assistant": value}]},
    ]
    for form in forms:
        (example,) = read_rows(form).examples
        assert example.conversation.reply == text
        assert example.references[0] == text


def test_blank_optional_fields_are_absent() -> None:
    blanks: list[object] = ["", " ", None, []]
    for blank in blanks:
        chat = row(system=blank, tools=blank, id=blank, group=blank, answers=blank or None)
        (example,) = read_rows(chat).examples
        assert (example.id, example.group, example.conversation.tools) == ("rows-1", None, ())
        alpaca = {
            "instruction": "a",
            "input": blank,
            "output": "b",
            "history": blank,
            "system": blank,
        }
        assert turns(read_rows(alpaca)) == [("user", "a"), ("assistant", "b")]


def test_pairs_of_ms_swift_and_xtuner_are_turns() -> None:
    swift = {"system": "S", "conversation": [{"human": "a", "assistant": "b"}] * 2}
    xtuner = {
        "conversation": [
            {"system": "S", "input": "a", "output": "b"},
            {"input": "a", "output": "b"},
        ]
    }
    for value in (swift, xtuner):
        assert turns(read_rows(value)) == [
            ("system", "S"),
            *[("user", "a"), ("assistant", "b")] * 2,
        ]
    (problem,) = refused(lines({"conversation": [{"human": "a", "assistant": "b"}, "x"]}))
    assert problem.endswith('conversation[1] is text; expected {"human": ..., "assistant": ...}')


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "value": "a"},
        {"type": "text", "content": "a"},
        {"type": "input_text", "text": "a"},
        {"text": "a"},
        "a",
    ],
)
def test_a_part_of_text_may_be_written_in_several_ways(part: object) -> None:
    assert (
        turns(read_rows({"messages": [turn("user", [part]), turn("assistant", "b")]}))[0][1] == "a"
    )


def test_a_part_that_is_an_image_is_called_media() -> None:
    value = {"messages": [turn("user", [{"type": "image", "image": "x"}]), turn("assistant", "b")]}
    (drop,) = read_rows(value).drops
    assert drop.reason == "images, sound or video"


@pytest.mark.parametrize("column", ["answers", "answer"])
def test_a_list_in_a_cell_is_a_list_of_answers(column: str) -> None:
    dataset = read(f'question,{column}\nq,"[""a"", ""b""]"\n', "a.csv")
    assert dataset.examples[0].references == ("a", "b")
    (note,) = dataset.notes
    assert not note.is_warning


def test_brackets_that_are_the_answer_stay_text() -> None:
    assert read('question,answer\nq,"[2, 3]"\n', "a.csv").examples[0].references == ("[2, 3]",)
    assert read_rows({"question": "q", "answer": '["a"]'}).examples[0].references == ('["a"]',)


@pytest.mark.parametrize(
    "cell",
    [
        "['a', 'b']",
        "{'text': array(['a'], dtype=object), 'answer_start': array([1])}",
        "{'text': ['a'], 'answer_start': [1]}",
        "[None, 'a']",
    ],
)
def test_a_list_as_python_prints_it_is_refused_by_name(cell: str) -> None:
    (problem,) = refused(f'question,answers\nq,"{cell}"\n', "a.csv")
    assert "written as Python prints a value; write it as JSON, with json.dumps" in problem
    (problem,) = refused(lines({"messages": "[{'role': 'user', 'content': 'a'}]"}))
    assert "messages is text and written as Python prints a value" in problem


def test_squads_answers_in_a_cell_are_parsed() -> None:
    cell = json.dumps({"text": ["a", "b"], "answer_start": [0, 1]}).replace('"', '""')
    dataset = read(f'question,answers\nq,"{cell}"\n', "a.csv")
    assert dataset.examples[0].references == ("a", "b")


def test_empty_rows_and_columns_of_a_spreadsheet_are_none_and_unnamed_text_is_listed() -> None:
    dataset = read("question,,answer,,\nq,,a,,\n,,,,\nq2,more,a2,,\n , ,,,\n", "a.csv")
    assert [value.line for value in dataset.examples] == [2, 4]
    assert dataset.num_rows == 2
    assert dataset.fields[-1] == ("column 2", "", 1)
    (problem,) = refused("question,answer,\nq,a,more\n", "a.csv")
    assert "found 3 cells, but the header has 2" in problem


def parquet(columns: dict[str, pa.Array]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


FAR = pa.array([2**62, 0], pa.timestamp("us"))


def test_a_value_that_cannot_be_decoded_is_a_fault_only_where_it_is_used() -> None:
    texts = pa.array(["a", "b"])
    unused = parquet({"question": texts, "answer": texts, "when": FAR})
    assert len(read(unused, "a.parquet").examples) == 2
    nested = pa.array([{"at": 2**62}, {"at": 0}], pa.struct([("at", pa.timestamp("us"))]))
    assert (
        len(
            read(
                parquet({"question": texts, "answer": texts, "when": nested}), "a.parquet"
            ).examples
        )
        == 2
    )
    dataset = read(parquet({"question": texts, "answer": FAR}), "a.parquet")
    (drop,) = dataset.drops
    assert drop.problems == ["a.parquet:1: answer is a value that cannot be decoded; expected text"]
    assert dataset.examples[0].conversation.reply == datetime(1970, 1, 1).isoformat()


def test_a_column_of_bytes_that_are_not_utf8_ends_no_table_that_does_not_use_it() -> None:
    raw = pa.array([b"\xff\xfe", b"b"]).cast(pa.binary())
    bad = pa.StringArray.from_buffers(2, raw.buffers()[1], raw.buffers()[2])
    texts = pa.array(["a", "b"])
    table = pa.table({"question": texts, "answer": texts, "raw": bad})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    dataset = read(sink.getvalue(), "a.arrow")
    assert len(dataset.examples) == 2
    assert ("raw", "", 2) in dataset.fields


@pytest.mark.parametrize("word", ["NA", "N/A", "nan", "NaN", "None", "null", "NULL"])
def test_a_word_for_nothing_in_a_cell_is_flagged(word: str) -> None:
    dataset = read(f"question,answer\nq,{word}\n", "a.csv")
    assert dataset.examples[0].references == (word,)
    assert [note.is_warning for note in dataset.notes] == [True]
    assert not read(f"question,answer\nq,{word} is the answer\n", "a.csv").notes
    assert not read_rows({"question": "q", "answer": word}).notes, "JSON has null for that"
