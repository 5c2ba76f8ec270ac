"""Rows of tables: CSV and TSV with a header, Parquet, Arrow.

CSV cells are text, and an empty one is no value; the empty columns and rows that spreadsheets
write at the end are none. Rows of Parquet and Arrow are read a few hundred at a time and have their
number in place of a line; a value that cannot be decoded comes as Undecoded, and is a fault where
it is used.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from loracle.data.faults import Fault, Reason, shortened, show
from loracle.data.reading.parquet_footer import column_parts
from loracle.data.reading.rows import MAX_ROW_BYTES, Row
from loracle.data.reading.table_bounds import (
    MAX_OBJECT_BYTES,
    batch_rows,
    bounded,
    object_bytes,
    require_bounded_arrow,
    require_bounded_parquet,
)
from loracle.data.reading.text_files import TextFile
from loracle.errors import DataError
from loracle.plan.names import repeated
from loracle.text import counted

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

_BATCH_ROWS = 256
_TOO_LARGE = Fault(
    Reason.TOO_LARGE,
    f"the row's values take more than {MAX_OBJECT_BYTES // 2**20} MiB as objects; split its lists, "
    "or leave the row out",
)
# An Arrow file is its mark, padded, and then a stream.
_FILE_HEAD_BYTES = 8


class _BadLine(Exception):
    """A line that cannot be had, while csv reads on."""

    def __init__(self, line: int, fault: Fault) -> None:
        super().__init__(line, fault)
        self.line, self.fault = line, fault


def delimiter_of(source: TextFile, *, tabs: bool) -> str:
    """The delimiter: tabs for TSV, commas for CSV unless its header has none but others."""
    if tabs:
        return "\t"
    for line in source.lines():
        header = line.text or ""
        others = [mark for mark in (";", "\t") if mark in header]
        return others[0] if "," not in header and len(others) == 1 else ","
    return ","


def rows_of_csv(source: TextFile, delimiter: str) -> Iterator[Row]:
    """The rows under the header, each with the line where it starts.

    Raises DataError if there is no usable header or a quote is never closed.
    """
    file = str(source.path)
    # The limit is the process's own; csv has no other way to say it.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    reader = csv.reader(_csv_lines(source), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except _BadLine as error:
            raise DataError(f"{file}:{error.line}: {error.fault.text}") from error
        except csv.Error as error:
            raise DataError(f"{file}:{line}: {_why_no_csv(error)}") from error
        if cells is None:
            return
        if not any(cell and not cell.isspace() for cell in cells):
            continue
        if header is None:
            header = _header(cells, f"{file}:{line}")
        else:
            yield _row_of_cells(file, line, header, cells)


def _why_no_csv(error: csv.Error) -> str:
    if "new-line character" in str(error):
        return (
            "the row that starts here has line ends of CR alone, as old Mac programs write them; "
            "save the file with line ends of LF or CRLF, or put quotes around texts of several "
            "lines"
        )
    return (
        f"the row that starts here is not CSV ({error}); look for a quote that is not closed: a "
        'quote inside a text is written twice, ""'
    )


def _csv_lines(source: TextFile) -> Iterator[str]:
    for line in source.lines():
        if line.text is None:
            assert line.fault is not None
            raise _BadLine(line.number, line.fault)
        yield f"{line.text}\n"


def _header(cells: list[str], where: str) -> list[str]:
    """The columns' names; those without one at the end are none, others get their number."""
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if any("\0" in name for name in names):
        raise DataError(
            f"{where}: found NUL bytes in the header; the file is damaged, or UTF-16 without a "
            "byte-order mark: save it as UTF-8, or name its encoding (encoding: utf-16)"
        )
    if len(names) == 1 and names[0].startswith("sep="):
        raise DataError(f"{where}: remove the line {show(names[0])}; the header must come first")
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    if twice := repeated(names):
        raise DataError(f"{where}: the header names {show(twice[0])} twice; rename one")
    return names


def _row_of_cells(file: str, line: int, header: list[str], cells: list[str]) -> Row:
    while len(cells) > len(header) and not cells[-1].strip():
        cells.pop()
    if len(cells) != len(header):
        text = (
            f"found {counted(len(cells), 'cell')}, but the header has {len(header)}; put quotes "
            "around text "
            "that contains the delimiter"
        )
        if len(header) == 1:
            text = f"{text}, or, if {show(header[0])} is a title, remove it: the header comes first"
        return Row(file, line, None, (Fault(Reason.CELLS, text),))
    value: dict[str, object] = {
        name: cell for name, cell in zip(header, cells, strict=True) if cell != ""
    }
    return Row(file, line, value, is_cells=True)


class Undecoded:
    """A value of a table that cannot be had: a timestamp out of range, text that is not UTF-8."""


def rows_of_parquet(path: Path) -> Iterator[Row]:
    """Raises DataError if the file is damaged, or unpacks to more than data does."""
    import pyarrow.parquet as parquet

    with _readable_by_arrow(path), parquet.ParquetFile(path) as file:
        parts = column_parts(path)
        require_bounded_parquet(path, file.metadata, parts)
        num_rows = batch_rows(parts, _BATCH_ROWS)
        yield from _rows_of_batches(path, file.iter_batches(batch_size=num_rows))


def rows_of_arrow(path: Path) -> Iterator[Row]:
    """An Arrow file, or an Arrow stream as the datasets library writes it.

    Raises DataError if the file is damaged, or unpacks to more than data does.
    """
    import pyarrow as pa

    with _readable_by_arrow(path), pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(_FILE_HEAD_BYTES if is_file else 0)
        require_bounded_arrow(path, source)
        source.seek(0)
        if is_file:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(source))
        yield from _rows_of_batches(path, batches)


def _rows_of_batches(path: Path, batches: Iterable[Any]) -> Iterator[Row]:
    slices = chain.from_iterable(
        (batch.slice(start, _BATCH_ROWS) for start in range(0, batch.num_rows, _BATCH_ROWS))
        for batch in bounded(path, map(_validated, batches))
    )
    number = 0
    for part in chain.from_iterable(map(_small_parts, slices)):
        if _objects_bytes(part) > MAX_OBJECT_BYTES:
            number += 1
            yield Row(str(path), number, None, (_TOO_LARGE,))
            continue
        for value in _values(part):
            number += 1
            yield Row(str(path), number, value)


def _small_parts(part: Any) -> Iterator[Any]:
    """The rows together, or one by one where they are large as objects."""
    if _objects_bytes(part) <= MAX_OBJECT_BYTES:
        yield part
    else:
        yield from (part.slice(row, 1) for row in range(part.num_rows))


def _objects_bytes(part: Any) -> int:
    return sum(map(object_bytes, part.columns))


def _validated(batch: Any) -> Any:
    """The batch with null in place of columns that cannot be read; they are marked by their type.

    Arrow trusts offsets and UTF-8 in a file; unchecked, a damaged one ends the process.
    """
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowException:
        bad = [index for index, column in enumerate(batch.columns) if not _is_valid(column)]
        if not bad or len(bad) == batch.num_columns:
            raise
        columns = list(batch.columns)
        for index in bad:
            # A type that no file has: its values are Undecoded.
            columns[index] = pa.nulls(batch.num_rows, pa.null())
        names = [f"{n}{_BAD}" if i in bad else n for i, n in enumerate(batch.schema.names)]
        batch = pa.RecordBatch.from_arrays(columns, names=names)
    return batch


_BAD = "\0bad"
# Arrow's own words quote the names and bytes that it found.
_MAX_REASON = 300


def _is_valid(column: Any) -> bool:
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowException:
        return False
    return True


def _values(part: Any) -> list[dict[str, object]]:
    """The rows of a few hundred as objects."""
    part = _with_short_decimals(part)
    if not any(name.endswith(_BAD) for name in part.schema.names):
        try:
            values: list[dict[str, object]] = part.to_pylist()
        except (ValueError, OverflowError, ArithmeticError):
            # One value that Python cannot hold; which one is found column by column.
            pass
        else:
            return values
    columns: dict[str, list[object]] = {}
    for name, column in zip(part.schema.names, part.columns, strict=True):
        if name.endswith(_BAD):
            columns[name.removesuffix(_BAD)] = [Undecoded()] * part.num_rows
        else:
            columns[name] = [_value(cell) for cell in column]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _with_short_decimals(part: Any) -> Any:
    """Columns of 16 and 32 bits as the shortest decimals that mean them: 0.1, which as a number of
    64 bits would be 0.10000000149011612."""
    import numpy as np
    import pyarrow as pa

    columns, names = list(part.columns), part.schema.names
    narrow = (pa.float16(), pa.float32())
    if not any(column.type in narrow for column in columns):
        return part
    for index, column in enumerate(columns):
        if column.type in narrow:
            kind = np.float16 if column.type == pa.float16() else np.float32
            columns[index] = pa.array(
                [None if v is None else float(str(kind(v))) for v in column.to_pylist()],
                pa.float64(),
            )
    return pa.RecordBatch.from_arrays(columns, names=names)


def _value(cell: Any) -> object:
    try:
        value: object = cell.as_py()
    except (ValueError, OverflowError, ArithmeticError):
        return Undecoded()
    return value


@contextmanager
def _readable_by_arrow(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reason = shortened(reason, _MAX_REASON)
        raise DataError(
            f"{path} is damaged, or Arrow cannot read it: {reason}; write it again"
        ) from error
