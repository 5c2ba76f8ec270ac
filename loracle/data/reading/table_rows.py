"""Rows of tables: CSV and TSV with a header, Parquet, Arrow.

CSV cells are text, and an empty one is no value. Rows of Parquet and Arrow are read a few hundred
at a time and have their number in place of a line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from loracle.data.faults import Fault, Reason, show
from loracle.data.reading.rows import MAX_ROW_BYTES, Row
from loracle.data.reading.text_files import TextFile
from loracle.errors import DataError
from loracle.plan.names import repeated

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

_BATCH_ROWS = 256


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

    Raises DataError where there is no usable header or a quote is never closed.
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
            raise DataError(
                f"{file}:{line}: the row that starts here is not CSV ({error}); look for a quote "
                'that is not closed: a quote inside a text is written twice, ""'
            ) from error
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = _header(cells, f"{file}:{line}")
        else:
            yield _row_of_cells(file, line, header, cells)


def _csv_lines(source: TextFile) -> Iterator[str]:
    for line in source.lines():
        if line.text is None:
            assert line.fault is not None
            raise _BadLine(line.number, line.fault)
        yield f"{line.text}\n"


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := repeated(names):
        raise DataError(f"{where}: the header names {show(twice[0])} twice; rename one")
    return names


def _row_of_cells(file: str, line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        text = (
            f"found {len(cells)} cells, the header has {len(header)}; put a text that holds the "
            "delimiter into quotes"
        )
        return Row(file, line, None, (Fault(Reason.CELLS, text),))
    value: dict[str, object] = {
        name: cell for name, cell in zip(header, cells, strict=True) if cell != ""
    }
    return Row(file, line, value)


def rows_of_parquet(path: Path) -> Iterator[Row]:
    """Raises DataError where the file is damaged."""
    import pyarrow.parquet as parquet

    with _readable_by_arrow(path), parquet.ParquetFile(path) as file:
        yield from _rows_of_batches(path, file.iter_batches(batch_size=_BATCH_ROWS))


def rows_of_arrow(path: Path) -> Iterator[Row]:
    """An Arrow file, or an Arrow stream as the datasets library writes it.

    Raises DataError where the file is damaged.
    """
    import pyarrow as pa

    with _readable_by_arrow(path), pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
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
        for batch in map(_validated, batches)
    )
    number = 0
    for part in slices:
        for value in part.to_pylist():
            number += 1
            yield Row(str(path), number, value)


def _validated(batch: Any) -> Any:
    # Arrow trusts offsets and UTF-8 in a file; unchecked, a damaged one ends the process.
    batch.validate(full=True)
    return batch


@contextmanager
def _readable_by_arrow(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path} is damaged or of a kind that Arrow cannot read: {reason}; write it again"
        ) from error
