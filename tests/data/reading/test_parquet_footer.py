"""The footer of a Parquet file, read without Arrow: as Arrow reads it, and all damage is said."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from loracle.data.reading.dataset import read_dataset
from loracle.data.reading.parquet_footer import ColumnPart, column_parts
from loracle.errors import DataError

PHYSICAL_TYPES = (
    "BOOLEAN",
    "INT32",
    "INT64",
    "INT96",
    "FLOAT",
    "DOUBLE",
    "BYTE_ARRAY",
    "FIXED_LEN_BYTE_ARRAY",
)
TABLE = pa.table(
    {
        "flags": [True, False, None] * 9,
        "numbers": list(range(27)),
        "fractions": [0.5] * 27,
        "texts": ["a text", "another", ""] * 9,
        "turns": [[{"role": "user", "content": "a?"}], [], None] * 9,
        "nothing": [None] * 27,
        "days": pa.array([1000] * 27, pa.timestamp("ns")),
        "halves": pa.array([b"ab"] * 27, pa.binary(2)),
    }
)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"row_group_size": 2, "use_dictionary": False, "compression": "zstd"},
    {"version": "1.0", "data_page_version": "2.0", "write_statistics": False},
    {"write_page_index": True, "write_page_checksum": True, "store_schema": False},
    {"use_deprecated_int96_timestamps": True, "row_group_size": 5},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_parts_of_columns_are_those_that_arrow_reads(
    options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(TABLE, path, **options)
    metadata = parquet.ParquetFile(path).metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    assert column_parts(path) == [
        ColumnPart(
            PHYSICAL_TYPES.index(column.physical_type),
            column.num_values,
            column.total_uncompressed_size,
            column.has_dictionary_page,
        )
        for column in columns
    ]


def test_every_flipped_bit_of_a_footer_gives_parts_or_an_error_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"prompt": ["a", "b"], "flags": [True, None]}), path)
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    messages = []
    for place in range(8 * (len(content) - length - 8), 8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert len(column_parts(path)) <= 4
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all("a.parquet: what it says of its columns is damaged (" in text for text in messages)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"\xff\xff\xff\x7fPAR1", b"\x00\x00\x00\x00PARE"]
)
def test_what_is_no_parquet_file_is_an_error_of_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: what it says of its columns is damaged"):
        column_parts(path)


def test_a_parquet_file_is_read_without_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise AssertionError("a process was forked beside Arrow's threads")

    monkeypatch.setattr(os, "fork", refuse)
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"prompt": ["a?"], "completion": ["b"]}), path)
    assert len(read_dataset(path).examples) == 1
