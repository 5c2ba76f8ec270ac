"""What a Parquet file's footer says of the size of its columns, read without Arrow.

Arrow's own `RowGroupMetaData.column` ends the whole process at some damage (size statistics, Arrow
26). The footer is one struct in Thrift's compact protocol, then its length and "PAR1":

    FileMetaData{4: [RowGroup{1: [ColumnChunk{3: ColumnMetaData{1: type, 5: num_values, ...}}]}]}

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from loracle.errors import DataError

_TAIL = struct.Struct("<I4s")
_ENDING = b"PAR1"

# Types of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_FIXED_BYTES = {_BYTE: 1, _DOUBLE: 8}
_LONG_LIST = 15
# More than any field of the format has; a Thrift reader refuses more than 64.
_MAX_DEPTH = 64

_ROW_GROUPS, _COLUMNS, _METADATA = 4, 1, 3
_TYPE, _NUM_VALUES, _UNCOMPRESSED, _DICTIONARY_AT = 1, 5, 6, 11


# Numbers of Parquet's own types.
BOOLEAN, INT64, DOUBLE = 0, 2, 5


class ColumnPart(NamedTuple):
    """What the footer says of one column's part of one row group."""

    physical_type: int
    """Parquet's number of it."""
    num_values: int
    uncompressed_bytes: int
    has_dictionary: bool


def column_parts(path: Path) -> list[ColumnPart]:
    """Every column's part of every row group.

    Raises:
        DataError: the footer is damaged.
    """
    try:
        return list(_Footer(_footer_bytes(path)).column_parts())
    except (IndexError, ValueError, struct.error) as error:
        raise DataError(
            f"{path}: what it says of its columns is damaged ({error}); write or download it again"
        ) from error


def _footer_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL.size))
        length, ending = _TAIL.unpack(file.read(_TAIL.size))
        if ending != _ENDING or length > size - _TAIL.size:
            raise ValueError("its last bytes are not those of a Parquet file")
        file.seek(size - _TAIL.size - length)
        return file.read(length)


class _Footer:
    """A place in the footer, which moves on as values are read."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def column_parts(self) -> Iterator[ColumnPart]:
        for number, kind in self._fields():
            if (number, kind) != (_ROW_GROUPS, _LIST):
                self._skip(kind)
                continue
            for _ in self._structs():
                yield from self._row_group()

    def _row_group(self) -> Iterator[ColumnPart]:
        for number, kind in self._fields():
            if (number, kind) != (_COLUMNS, _LIST):
                self._skip(kind)
                continue
            for _ in self._structs():
                yield from self._chunk()

    def _chunk(self) -> Iterator[ColumnPart]:
        for number, kind in self._fields():
            if (number, kind) == (_METADATA, _STRUCT):
                yield self._column()
            else:
                self._skip(kind)

    def _column(self) -> ColumnPart:
        found: dict[int, int] = {}
        for number, kind in self._fields():
            if kind in _INTEGERS:
                found[number] = self._integer()
            else:
                self._skip(kind)
        needed = [found.get(number) for number in (_TYPE, _NUM_VALUES, _UNCOMPRESSED)]
        if None in needed:
            raise ValueError("a column's type or size is missing")
        physical_type, num_values, num_bytes = (number or 0 for number in needed)
        if num_values < 0 or num_bytes < 0:
            raise ValueError("a column's size is negative")
        return ColumnPart(physical_type, num_values, num_bytes, _DICTIONARY_AT in found)

    def _fields(self) -> Iterator[tuple[int, int]]:
        """The fields of a struct, as (number, type); who takes one reads or skips its value."""
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._integer()
            yield number, kind

    def _structs(self) -> Iterator[None]:
        """A list's elements, which must be structs; who takes one reads it."""
        num, kind = self._list_head()
        if num and kind != _STRUCT:
            raise ValueError("a list holds something else than it should")
        for _ in range(num):
            yield

    def _skip(self, kind: int, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if kind in (_TRUE, _FALSE):
            return
        if kind in _INTEGERS:
            self._varint()
        elif kind in _FIXED_BYTES:
            self._move(_FIXED_BYTES[kind])
        elif kind == _BINARY:
            self._move(self._varint())
        elif kind in (_LIST, _SET):
            num, inner = self._list_head()
            self._skip_elements((inner,), num, depth + 1)
        elif kind == _MAP:
            if num := self._varint():
                kinds = self._byte()
                self._skip_elements((kinds >> 4, kinds & 15), num, depth + 1)
        elif kind == _STRUCT:
            for _, inner in self._fields():
                self._skip(inner, depth + 1)
        else:
            raise ValueError(f"a value of an unknown type, {kind}")

    def _skip_elements(self, kinds: tuple[int, ...], num: int, depth: int) -> None:
        for _ in range(num):
            for kind in kinds:
                # As elements, unlike as fields, booleans take a byte.
                self._skip(_BYTE if kind in (_TRUE, _FALSE) else kind, depth)

    def _list_head(self) -> tuple[int, int]:
        """How many elements, and their type."""
        head = self._byte()
        num = head >> 4
        return (self._varint() if num == _LONG_LIST else num), head & 15

    def _integer(self) -> int:
        coded = self._varint()
        return (coded >> 1) ^ -(coded & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number is too long")

    def _move(self, num_bytes: int) -> None:
        self._at += num_bytes

    def _byte(self) -> int:
        byte = self._content[self._at]
        self._at += 1
        return byte
