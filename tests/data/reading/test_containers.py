"""Every container gives the same rows, and says what it is."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from loracle.data.reading.dataset import read_dataset
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError
from tests.data.files import lines, read, refused, row, turns

ROWS = [
    {"id": "a", "question": "Who won?", "answer": "The Broncos"},
    {"id": "b", "question": "谁赢了？", "answer": 'Say "Denver",\nthen stop'},
]
CSV = 'id,question,answer\na,Who won?,The Broncos\nb,谁赢了？,"Say ""Denver"",\nthen stop"\n'


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)


def arrow_file(path: Path) -> None:
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), path)


def arrow_stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


def text(content: str | bytes) -> Callable[[Path], None]:
    return lambda path: (
        path.write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


CONTAINERS = [
    ("a.jsonl", text(lines(*ROWS)), "JSONL", [1, 2]),
    ("a.json", text(json.dumps(ROWS, ensure_ascii=False)), "JSON", [1, 1]),
    ("a.json", text(json.dumps({"data": ROWS}, indent=1)), "JSON, rows under data", [3, 8]),
    ("a.jsonl.gz", text(gzip.compress(lines(*ROWS).encode(), mtime=0)), "JSONL (gz)", [1, 2]),
    ("a.jsonl.zst", text(zstd(lines(*ROWS).encode())), "JSONL (zst)", [1, 2]),
    ("a.json.zst", text(zstd(json.dumps(ROWS).encode())), "JSON (zst)", [1, 1]),
    ("a.csv", text(CSV), "CSV", [2, 3]),
    ("a.csv", text(CSV.replace(",", ";").replace('";', '",')), "CSV with semicolons", [2, 3]),
    ("a.csv.gz", text(gzip.compress(CSV.encode(), mtime=0)), "CSV (gz)", [2, 3]),
    (
        "a.tsv",
        text(
            "id\tquestion\tanswer\r\na\tWho won?\tThe Broncos\r\n\r\n"
            'b\t谁赢了？\t"Say ""Denver"",\nthen stop"\r\n'
        ),
        "TSV",
        [2, 4],
    ),
    ("a.parquet", parquet, "Parquet", [1, 2]),
    ("a.arrow", arrow_file, "Arrow", [1, 2]),
    ("a.arrow", arrow_stream, "Arrow", [1, 2]),
    ("no_ending", parquet, "Parquet", [1, 2]),
]


@pytest.mark.parametrize(("name", "write", "container", "at"), CONTAINERS)
def test_every_container_gives_the_same_rows(
    name: str, write: Callable[[Path], None], container: str, at: list[int]
) -> None:
    write(Path(name))

    dataset = read_dataset(name, strict=True)

    assert dataset.container == container
    assert dataset.format == "question_answer"
    assert [value.id for value in dataset.examples] == ["a", "b"]
    assert [value.line for value in dataset.examples] == at
    assert [value.conversation.reply for value in dataset.examples] == [
        value["answer"] for value in ROWS
    ]
    assert [value.question for value in dataset.examples] == [value["question"] for value in ROWS]


def test_parquet_keeps_turns_tools_and_leaves_nulls_out() -> None:
    call = {"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    rows = [
        {**row(), "tools": None},
        {
            "messages": [
                {"role": "user", "content": "Weather?", "tool_calls": None},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "rain", "tool_calls": None},
                {"role": "assistant", "content": "It rains.", "tool_calls": None},
            ],
            "tools": json.dumps([{"name": "weather"}]),
        },
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), "a.parquet")

    dataset = read_dataset("a.parquet", strict=True)

    assert [len(value.conversation.messages) for value in dataset.examples] == [2, 4]
    assert dataset.examples[1].conversation.messages[1].tool_calls[0].arguments == {"city": "Oslo"}
    assert [len(value.conversation.tools) for value in dataset.examples] == [0, 1]


def test_a_column_that_is_no_text_is_named() -> None:
    pyarrow.parquet.write_table(pa.table({"question": ["a"], "answer": [b"\xff"]}), "a.parquet")
    with pytest.raises(DataError, match=r"^a.parquet:1: answer is a value of type bytes; expected"):
        read_dataset("a.parquet", strict=True)


def test_turns_in_a_csv_cell_are_json() -> None:
    cell = json.dumps(row()["messages"]).replace('"', '""')
    dataset = read(f'messages,group\n"{cell}",g1\n', "a.csv")
    assert turns(dataset) == [("user", "Who won?"), ("assistant", "The Broncos")]
    assert dataset.examples[0].group == "g1"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("question,answer\na\n", "a.csv:2: found 1 cell, but the header has 2"),
        ("question,question\na,b\n", "a.csv:1: the header names 'question' twice; rename one"),
        (
            'question,answer\na,b\nc,"d\ne\n',
            "a.csv:3: the row that starts here is not CSV (unexpected end of data)",
        ),
        ('question,answer\na,"b" c\n', "a.csv:2: the row that starts here is not CSV"),
        (
            b"question,answer\na,\xb0\xa1\xb0\xa2\xb0\xa1\n",
            "a.csv:2: byte 3 of the line, 0xb0, is not UTF-8",
        ),
        ("question,answer\na,\n", "a.csv:2: no answer (keys found: 'question'); add one"),
        ("q,a\nx,y\n", "a.csv:2: no known format (keys found: 'q', 'a'); "),
        ("question,answer\n", "a.csv:1: found no rows; expected "),
        ("", "a.csv:1: found no rows; expected "),
        ("messages\n[x\n", "a.csv:2: messages is text and not JSON at column 2"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(content: str | bytes, problem: str) -> None:
    (found,) = refused(content, "a.csv")
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "a.parquet",
            b"",
            "a.parquet: found b'' instead of the signature of a .parquet file; it is damaged",
        ),
        (
            "a.parquet",
            b"PAR1 and no more",
            "a.parquet is damaged, or Arrow cannot read it: ",
        ),
        (
            "a.arrow",
            b"ARROW1\0\0 and no more",
            "a.arrow is damaged, or Arrow cannot read it: ",
        ),
        (
            "a.arrow",
            b"\xff\xff\xff\xff\x10\0\0\0",
            "a.arrow is damaged, or Arrow cannot read it: ",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"question": "a"}\n' * 99, mtime=0)[:-9],
            "a.jsonl.gz is damaged: Compressed file",
        ),
        ("a.jsonl.gz", b"\x1f\x8bxxxxxxxxxxxx", "a.jsonl.gz is damaged: "),
        (
            "a.jsonl.zst",
            zstd(b"x" * 999)[:-3],
            "a.jsonl.zst cannot be read: Truncated compressed stream",
        ),
        ("a.xlsx", b"PK\x03\x04....", "a.xlsx is a zip archive or an Excel file"),
        (
            "a.jsonl",
            b"version https://git-lfs.github.com/spec/v1\n",
            "a.jsonl is a Git LFS pointer",
        ),
    ],
)
def test_a_damaged_or_foreign_file_is_named(name: str, content: bytes, problem: str) -> None:
    (found,) = refused(content, name)
    assert found.startswith(problem)


def test_a_parquet_file_is_read_a_few_rows_at_a_time() -> None:
    rows = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(1000)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), "a.parquet", row_group_size=300)

    dataset = read_dataset("a.parquet", ReadOptions(limit=700))

    assert [value.line for value in dataset.examples] == list(range(1, 701))
    assert dataset.examples[-1].conversation.reply == "a699"


def test_several_compressed_parts_in_one_file_are_all_read() -> None:
    first, second = (lines(value).encode() for value in ROWS)
    assert (
        read(gzip.compress(first, mtime=0) + gzip.compress(second, mtime=0), "a.jsonl.gz").num_rows
        == 2
    )
    assert read(zstd(first) + zstd(second), "a.jsonl.zst").num_rows == 2


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_byte_order_mark_says_the_encoding_and_it_is_shown(encoding: str, name: str) -> None:
    content = lines(*ROWS) if name == "a.jsonl" else CSV

    dataset = read(f"\ufeff{content}".encode(encoding), name)

    assert dataset.examples[1].question == "谁赢了？"
    assert dataset.encoding == encoding.rpartition("-")[0]
    assert dataset.encoding in dataset.description


def test_a_named_encoding_is_followed() -> None:
    dataset = read(CSV.encode("gb18030"), "a.csv", encoding="GBK")
    assert dataset.examples[1].question == "谁赢了？"
    assert dataset.encoding == "gbk"
    (problem,) = refused(b'{"a": 1}\n\xff\xff', encoding="gbk")
    assert problem.startswith("rows.jsonl:1: found bytes that are not gbk in this line or below")


def test_more_rows_than_one_buffer_come_back_from_an_array() -> None:
    rows = [
        {"question": f"q{i} " + "x" * (i % 997), "answer": "\\u00e9 é \U0001f600"}
        for i in range(3000)
    ]

    dataset = read(json.dumps(rows, indent=1, ensure_ascii=False), "a.json")

    assert [value.question for value in dataset.examples] == [value["question"] for value in rows]
    assert [value.line for value in dataset.examples] == list(range(2, 2 + 4 * 3000, 4))


def test_damage_at_which_arrow_aborts_the_process_is_an_error_of_the_file() -> None:
    # Two bits of the size statistics, found by fuzzing.py; `column()` of this metadata aborts.
    damaged = Path(__file__).with_name("damaged_sizes.parquet")
    message = r"damaged_sizes.parquet is damaged, .* Definition level histogram size mismatch"
    with pytest.raises(DataError, match=message):
        read_dataset(damaged)
