"""Rows of JSON text, in any of three layouts that the content tells apart:

    lines    {"question": ...}\\n{"question": ...}\\n        one row a line (JSONL)
    array    [{"question": ...}, {"question": ...}]
    object   {"version": "1.1", "data": [{...}, {...}]}     the rows stand under `data`

Rows are given one by one. A bad line of JSONL is a fault of its own; a syntax error in the other
two ends the file, for what follows it cannot be told apart.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Literal

from loracle.data.faults import Fault, Faults, Reason, show
from loracle.data.reading.json_cursor import (
    Cursor,
    Decoder,
    JsonError,
    incremental_reader,
)
from loracle.data.reading.json_reasons import reason_of, without_leading_comments
from loracle.data.reading.rows import MAX_ROW_BYTES, Row
from loracle.data.reading.squad_nesting import NESTING_KEYS, question_lines
from loracle.data.reading.text_files import BUFFER_BYTES, Line, TextFile, not_utf8
from loracle.errors import DataError

Layout = Literal["lines", "array", "object"]

ROWS_KEY = "data"
_SPACE = " \t\r\n"


def layout_of(source: TextFile) -> Layout:
    """Which layout a file has, by its first megabyte."""
    with source.open() as content:
        head = content.read(BUFFER_BYTES)
        is_whole = len(head) < BUFFER_BYTES
    text = head.decode("utf-8", errors="replace").lstrip(_SPACE)
    if without_leading_comments(text).startswith("["):
        return "array"
    first_line, _, rest = text.partition("\n")
    is_row = _is_object(first_line)
    if is_row and (rest.strip(_SPACE) or not is_whole):
        return "lines"
    return "object" if _has_rows_inside(text) else "lines"


def rows_of(source: TextFile, layout: Layout) -> Iterator[Row]:
    """The rows of a file. Raises DataError where what follows cannot be told apart."""
    if layout == "lines":
        yield from rows_of_lines(source, str(source.path), source.lines())
        return
    file = str(source.path)
    with source.open() as content:
        cursor = Cursor(incremental_reader(content.read))
        try:
            yield from _rows_of_array(cursor, file, layout)
        except JsonError as error:
            cause = f": {error.cause}" if error.cause else ""
            raise DataError(f"{file}:{error.line}: bad JSON{error.text}{cause}") from error
        except UnicodeDecodeError as error:
            line, fault = _first_bad_line(source, error)
            raise DataError(f"{file}:{line}: {fault.text}") from error


def _rows_of_array(cursor: Cursor, file: str, layout: Layout) -> Iterator[Row]:
    if layout == "object":
        for key in cursor.members():
            if key == ROWS_KEY and cursor.peek() == "[":
                yield from _items(cursor, file)
            else:
                cursor.value()
    else:
        yield from _items(cursor, file)
    if after := cursor.peek():
        end = "]" if layout == "array" else "}"
        cause = "several lists in sequence; join them into one" if after == "[" else ""
        raise JsonError(
            cursor.line, f": found {after!r} after the closing {end}; expected nothing more", cause
        )


def _items(cursor: Cursor, file: str) -> Iterator[Row]:
    for _ in cursor.items():
        cursor.peek()
        line = cursor.line
        try:
            value = cursor.value()
        except JsonError as error:
            place = f", in the row that starts at line {line}"
            raise JsonError(error.line, f"{error.text}{place}", error.cause) from error
        yield _row(file, line, value, cursor.decoder, cursor.taken_text)


def rows_of_lines(
    source: TextFile,
    file: str,
    lines: Iterable[Line],
    *,
    is_start: bool = True,
    is_end: bool = True,
) -> Iterator[Row]:
    """The rows of lines. file: its name in the rows. is_start, is_end: whether the first line and
    the last one are the file's."""
    decoder, nothing_read = Decoder(), is_start
    pending: Line | None = None
    # One line late, so that the last one is known to be the last.
    for line in lines:
        if pending is not None:
            yield _row_of_line(file, pending, decoder, source, nothing_read, is_last=False)
            nothing_read = False
        pending = line if line.text is None or line.text.strip(_SPACE) else None
    if pending is not None:
        yield _row_of_line(file, pending, decoder, source, nothing_read, is_last=is_end)


def _row_of_line(
    file: str, line: Line, decoder: Decoder, source: TextFile, is_first: bool, *, is_last: bool
) -> Row:
    if line.text is None:
        assert line.fault is not None
        return Row(file, line.number, None, (line.fault,))
    decoder.take_repeated()
    try:
        value = decoder.decode(line.text)
    except (ValueError, RecursionError) as error:
        if is_first and (found := _objects_over_lines(source)):
            raise DataError(
                f"{file}:{line.number}: found {found} over several lines; write one object per "
                f"line, or an array of rows, or an object with its rows under {ROWS_KEY!r}"
            ) from error
        text = _why_no_row(line.text, error, is_last=is_last)
        return Row(file, line.number, None, (Fault(Reason.BAD_JSON, text),))
    return _row(file, line.number, value, decoder, line.text)


def _why_no_row(text: str, error: ValueError | RecursionError, *, is_last: bool) -> str:
    if "\0" in text:
        column = text.index("\0") + 1
        return (
            f"found a NUL byte at column {column}; the file is damaged, or UTF-16 without a "
            "byte-order mark: write it again as UTF-8, or name its encoding (encoding: utf-16)"
        )
    cut = isinstance(error, json.JSONDecodeError) and (
        error.pos >= len(text.rstrip(_SPACE)) or error.msg.startswith("Unterminated string")
    )
    if is_last and cut:
        return (
            f"the file ends inside this row (bad JSON{reason_of(error)}); copy the whole file again"
        )
    return f"bad JSON{reason_of(error)}; a line must be one whole JSON object"


def _row(file: str, line: int, value: object, decoder: Decoder, text: str) -> Row:
    repeated = dict.fromkeys(decoder.take_repeated())
    faults = Faults()
    for key in repeated:
        faults.add(
            Reason.DUPLICATE_KEY, f"the key {show(key)} appears twice in one object; keep one"
        )
    nested = isinstance(value, dict) and not NESTING_KEYS.isdisjoint(value)
    return Row(file, line, value, tuple(faults), question_lines(text, line) if nested else ())


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _objects_over_lines(source: TextFile) -> str:
    """What a file is that has objects of several lines in place of lines; "" where it is not."""
    with source.open() as content:
        data = content.read(MAX_ROW_BYTES + 1)
    text = data.decode("utf-8", errors="replace").lstrip(_SPACE)
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict) or "\n" not in text[:end]:
        return ""
    rest = text[end:].lstrip(_SPACE)
    if not rest:
        return "one JSON object" if len(data) <= MAX_ROW_BYTES else ""
    return "a sequence of JSON objects, each" if rest.startswith(("{", ",")) else ""


def _has_rows_inside(head: str) -> bool:
    """Whether the text begins as an object with a list of objects under `data`."""
    stream = io.StringIO(head)
    cursor = Cursor(stream.read)
    try:
        for key in cursor.members():
            if key == ROWS_KEY and cursor.peek() == "[":
                for _ in cursor.items():
                    return cursor.peek() == "{"
                return True
            cursor.value()
    except JsonError:
        return False
    return False


def _first_bad_line(source: TextFile, error: UnicodeDecodeError) -> tuple[int, Fault]:
    for line in source.lines():
        if line.fault is not None and line.fault.reason is Reason.BAD_ENCODING:
            return line.number, line.fault
    # Only a line too large to be looked at is left.
    return 1, not_utf8(error.object, error)
