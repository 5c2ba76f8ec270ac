"""However long a name or a value is, a message about it stays short and can be printed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from loracle.data.reading.dataset import read_dataset
from loracle.data.reading.fields import columns_line
from loracle.data.reading.llama_factory import registry_entry
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError
from tests.data.files import lines, read_rows, row, turn, written

LONG = "n" * 9000
MAX_CHARACTERS = 2000
QA = {"question": "Who won?", "answer": "Denver"}


def messages(content: str, options: ReadOptions | None = None) -> tuple[str, ...]:
    """All that is said of a file."""
    try:
        dataset = read_dataset(written(content), options, strict=True)
    except DataError as error:
        return error.problems
    return (columns_line(dataset.fields), *map(str, dataset.notes))


@pytest.mark.parametrize(
    "content",
    [
        {**QA, f"image_{'0' * 9000}": "a.png"},
        {**QA, f"option_{'0' * 9000}": "a"},
        {**QA, **{f"option_{i}": "a" for i in range(500)}},
        {"question": LONG, LONG: 1},
        {LONG: LONG},
        {f"{LONG}{i}": 1 for i in range(50)},
        {**QA, f"{LONG}1": 1, f"{LONG}2": 1},
        {**QA, **{f"{i}{LONG}": 1 for i in range(500)}},
        {**QA, "id": {LONG: 1}},
        {**QA, "answer": {LONG: 1}},
        {"messages": [turn(LONG, "a"), turn("assistant", "b")]},
        {"messages": [{LONG: "user", "text": "a"}]},
        {"messages": [{f"{i}{LONG}": 1 for i in range(90)}]},
        {"messages": [turn("user", [{"type": LONG}]), turn("assistant", "b")]},
        {"messages": [turn("user", "a", **{f"image{'0' * 9000}": "x"}), turn("assistant", "b")]},
        {"conversations": [{"from": LONG, "value": "a"}]},
        {"question": "Q?", "options": {LONG: 5, "b": {}}, "answer": "b"},
        {"question": "Q?", "options": {LONG: "a\0", "b": "c"}, "answer": "b"},
        {"question": "Q?", "options": [LONG, f"{LONG}b"], "answer": LONG[:500]},
        {"question": "Q?", "options": [LONG, "b"], "answer": "a", "label": LONG},
        row(tools=[{"name": "f", LONG: {LONG: {LONG: "\0"}}}]),
        row(tools=[{"name": "f", "\ud83d": {"a": float("inf")}}]),
        {**QA, "option_\ud83d": "a"},
        {**QA, "image\n\n": "a.png"},
        {"prompt": "p", f"chosen{'s' * 9000}": "a", "rejected": "b"},
    ],
)
def test_a_message_about_a_row_is_short(content: dict[str, object]) -> None:
    for message in messages(f"{json.dumps(content)}\n"):
        assert len(message) <= MAX_CHARACTERS
        assert message.encode()


def test_many_lost_columns_are_named_together() -> None:
    problems = messages(lines({**QA, **{f"distractor_{i}": f"choice {i}" for i in range(500)}}))
    assert len(problems) == 13
    assert "so are 488 more columns: distractor_12, distractor_13" in problems[-1]


def test_names_that_differ_at_the_end_stay_different() -> None:
    first, second = (f"image_{'0' * 200}{i}" for i in (1, 2))
    problems = messages(lines({**QA, first: "a.png", second: "b.png"}))
    assert len(set(problems)) == 2
    assert "00001 holds images" in problems[0]


def test_a_repeated_key_and_a_named_column_are_short() -> None:
    twice = f'{{"{LONG}": 1, "{LONG}": 2, "question": "q", "answer": "a"}}\n'
    named = messages(lines(QA), ReadOptions(columns={"context": LONG}))
    for message in (*messages(twice), *named):
        assert len(message) <= MAX_CHARACTERS


def test_a_header_and_a_cell_are_short() -> None:
    header = f"question,answer,{LONG},{LONG}\nq,a,b,c\n"
    word = f"question,answer,{LONG}\nq,a,nan\n"
    for content in (header, word):
        path = Path("rows.csv")
        path.write_text(content)
        try:
            said = [str(note) for note in read_dataset(path).notes]
        except DataError as error:
            said = list(error.problems)
        assert said
        assert all(len(message) <= MAX_CHARACTERS for message in said)


def test_what_arrow_says_of_a_damaged_table_is_short() -> None:
    path = Path("rows.parquet")
    pyarrow.parquet.write_table(pa.table({"question": ["q"], LONG: ["a"]}), path)
    whole = path.read_bytes()
    said: list[str] = []
    for at in range(4, len(whole), 211):
        path.write_bytes(whole[:at] + b"\xff\xff\xff" + whole[at + 3 :])
        try:
            read_dataset(path, strict=True)
        except DataError as error:
            said += error.problems
    assert said
    assert max(map(len, said)) <= MAX_CHARACTERS


def test_a_registry_with_long_names_is_short() -> None:
    written(lines(QA))
    for entry in (
        {LONG: 1},
        {"file_name": "rows.jsonl", "columns": {LONG: "a"}},
        {"file_name": "rows.jsonl", "formatting": "openai", "tags": {"role_tag": LONG}},
        {"file_name": "rows.jsonl", "formatting": LONG},
    ):
        written(lines({"a": entry, f"{LONG}b": {}}), "dataset_info.json")
        for name in ("a", LONG):
            with pytest.raises(DataError) as caught:
                registry_entry(Path("dataset_info.json"), name, ReadOptions())
            assert all(len(message) <= MAX_CHARACTERS for message in caught.value.problems)


def test_short_names_are_shown_as_they_are() -> None:
    dataset = read_rows({**QA, "说明 文字": "x"})
    assert columns_line(dataset.fields).endswith("not used: 说明 文字 (1 row)")
