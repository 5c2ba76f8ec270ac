"""How much a Parquet or Arrow file may unpack to: a small file must not fill the memory.

What compressed pages and buffers unpack to is written beside them, and added up before anything is
unpacked. What values take then, a dictionary's texts repeated row by row, is counted as they come,
and so is what Python takes for a row, before its objects are made.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from loracle.data.reading.parquet_footer import BOOLEAN, DOUBLE, INT64, ColumnPart
from loracle.data.reading.text_files import MAX_UNPACKED_BYTES, MAX_UNPACKED_TIMES
from loracle.errors import DataError

# A dictionary keeps a text that all rows share once: tables of real data repeat more than text
# packs.
_MAX_REPEATED_TIMES = 10 * MAX_UNPACKED_TIMES
# A batch of rows is of this size at most, unless it has the fewest rows.
_BATCH_BYTES = 64 * 2**20
_FEWEST_ROWS = 8

# The least that a value of a Parquet file takes in memory.
_WIDTHS = {BOOLEAN: 1 / 8, INT64: 8, DOUBLE: 8}
_OTHER_WIDTH = 4

MAX_OBJECT_BYTES = 256 * 2**20
"""What the objects made of one row may take; text of the longest row takes less."""
# About what Python takes for an empty object, a list, and any other value.
_STRUCT_BYTES, _LIST_BYTES, _VALUE_BYTES, _POINTER_BYTES = 240, 72, 48, 8

# Places of fields in the tables of Arrow's Message.fbs, as flatbuffers number them.
_HEADER_TYPE, _HEADER = 1, 2
_BUFFERS, _COMPRESSION = 2, 3
_DICTIONARY_DATA = 1
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def require_bounded_parquet(path: Path, metadata: Any, parts: Sequence[ColumnPart]) -> None:
    """Raise DataError if a Parquet file unpacks to more than data does: its pages, or the values
    that a few bytes of them repeat."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    _require(path, sum(group.total_byte_size for group in groups), MAX_UNPACKED_TIMES)
    least = sum(_WIDTHS.get(part.physical_type, _OTHER_WIDTH) * part.num_values for part in parts)
    _require(path, least, _MAX_REPEATED_TIMES)


def batch_rows(parts: Iterable[ColumnPart], most: int) -> int:
    """How many rows of a Parquet file to read at once: no value is larger than its column's part
    of a row group, and only a dictionary repeats it."""
    sizes = (part.uncompressed_bytes for part in parts if part.has_dictionary)
    return max(_FEWEST_ROWS, min(most, _BATCH_BYTES // max(1, max(sizes, default=1))))


def require_bounded_arrow(path: Path, source: Any) -> None:
    """Raise DataError if the buffers of an Arrow file or stream unpack to more than data does.

    source: at the first message; both kinds hold the same messages.
    """
    import pyarrow as pa

    total = 0
    reader = pa.ipc.MessageReader.open_stream(source)
    while True:
        try:
            message = reader.read_next_message()
        # Arrow itself says, when it reads the rows, what is damaged.
        except (StopIteration, pa.ArrowException, OSError):
            return
        try:
            total += _unpacked_bytes(message)
        except (struct.error, IndexError) as error:
            raise ValueError(f"the head of a message cannot be read ({error})") from error
        _require(path, total, MAX_UNPACKED_TIMES)


def bounded(path: Path, batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, as long as their values take no more than those of data do."""
    num_bytes = 0
    for batch in batches:
        num_bytes += sum(_value_bytes(column) for column in batch.columns)
        _require(path, num_bytes, _MAX_REPEATED_TIMES)
        yield batch


def _require(path: Path, num_bytes: float, times: int) -> None:
    size = path.stat().st_size
    if num_bytes > max(MAX_UNPACKED_BYTES, times * size):
        raise DataError(
            f"{path} unpacks to more than {times} times its {size:,} bytes, which is not plausible "
            "for data; if it is intended, write it again without compression and dictionaries, "
            "or as JSONL"
        )


def _value_bytes(column: Any) -> int:
    """What a column's values take; of a dictionary's, each as often as it is there."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    texts = column.dictionary
    longest = int(texts.nbytes) // max(1, len(texts))
    return int(column.indices.nbytes) + longest * len(column)


def object_bytes(column: Any) -> int:
    """About what Python takes for a column's values as objects: lists and structs of the smallest
    values take hundreds of times what they take in the column."""
    import pyarrow as pa

    kind, num = column.type, len(column)
    if isinstance(column, pa.ExtensionArray):
        return object_bytes(column.storage)
    if pa.types.is_dictionary(kind):
        texts = column.dictionary
        return num * (_VALUE_BYTES + object_bytes(texts) // max(1, len(texts)))
    if pa.types.is_struct(kind):
        return num * _STRUCT_BYTES + sum(map(object_bytes, column.flatten()))
    if pa.types.is_map(kind):
        entries = object_bytes(column.keys) + object_bytes(column.items)
        return num * _LIST_BYTES + len(column.keys) * _STRUCT_BYTES + entries
    if pa.types.is_nested(kind) and hasattr(column, "flatten"):
        values = column.flatten()
        return num * _LIST_BYTES + len(values) * _POINTER_BYTES + object_bytes(values)
    return num * _VALUE_BYTES + int(column.nbytes)


def _unpacked_bytes(message: Any) -> int:
    """What the buffers of one message of Arrow's format unpack to."""
    metadata, body = memoryview(message.metadata), message.body
    root = struct.unpack_from("<I", metadata)[0]
    kind_at, header_at = _field(metadata, root, _HEADER_TYPE), _field(metadata, root, _HEADER)
    if kind_at is None or header_at is None or body is None:
        return 0
    batch = header_at + _u32(metadata, header_at)
    if metadata[kind_at] == _DICTIONARY_BATCH:
        data_at = _field(metadata, batch, _DICTIONARY_DATA)
        if data_at is None:
            return 0
        batch = data_at + _u32(metadata, data_at)
    elif metadata[kind_at] != _RECORD_BATCH:
        return 0
    buffers_at = _field(metadata, batch, _BUFFERS)
    if buffers_at is None or _field(metadata, batch, _COMPRESSION) is None:
        return int(body.size)
    vector = buffers_at + _u32(metadata, buffers_at)
    packed = memoryview(body)
    total = 0
    for i in range(_u32(metadata, vector)):
        start, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * i)
        # Each begins with its unpacked length; -1: it is not packed.
        unpacked = struct.unpack_from("<q", packed, start)[0] if length else 0
        total += length if unpacked < 0 else unpacked
    return total


def _field(metadata: memoryview, table: int, number: int) -> int | None:
    """Where a field of a flatbuffers table is; None: it is not there."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    (size,) = struct.unpack_from("<H", metadata, vtable)
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", metadata, vtable + at)[0] if at < size else 0
    return table + offset if offset else None


def _u32(metadata: memoryview, at: int) -> int:
    number: int = struct.unpack_from("<I", metadata, at)[0]
    return number
