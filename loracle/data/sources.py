"""Examples from data files: JSON (one array of rows) and JSONL (one row a line).

    bytes --_rows_of_lines, _rows_of_array--> Row (with its line) --a Format--> Content -> Example

formats.py says what a row may look like. Every row is used or named as a problem.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from loracle.data.conversation import Conversation, Example
from loracle.data.formats import FORMATS, checked_text, expected_forms, kind_of, no_form, show
from loracle.errors import DataError
from loracle.plan import file_problem
from loracle.plan.locations import LocalFile

NUM_SHOWN_PROBLEMS = 20

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Row(NamedTuple):
    """A JSON value and the line (from 1) where it starts."""

    line: int
    value: object


@dataclass
class _Problems:
    """The problems of one file: the first ones in words, the others counted."""

    file: str
    shown: list[str] = field(default_factory=list)
    num_more: int = 0

    def add(self, line: int, text: str) -> None:
        if len(self.shown) < NUM_SHOWN_PROBLEMS:
            self.shown.append(f"{self.file}:{line}: {text}")
        else:
            self.num_more += 1

    def raise_if_any(self) -> None:
        more = [f"{self.file}: and {self.num_more} more"] if self.num_more else []
        if self.shown:
            raise DataError([*self.shown, *more])


def read_files(files: Sequence[LocalFile], *, limit: int | None = None) -> list[Example]:
    """Read the examples of several files in their order, as if they were one.

    Messages show each file by its name. Raises DataError with the problems of all files.
    """
    examples: list[Example] = []
    problems: list[str] = []
    for file in files:
        if limit is not None and len(examples) >= limit:
            break
        left = None if limit is None else limit - len(examples)
        try:
            examples += read_examples(file.path, limit=left, shown_as=file.name)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return examples


def read_examples(
    path: str | Path, *, limit: int | None = None, shown_as: str | None = None
) -> list[Example]:
    """Read all examples of a JSON or JSONL file, or the first `limit` rows; none is left out.

    shown_as: the file's name in messages, and without its suffix in ids that are made up; None is
    the path, and its stem.

    The content, not the file's ending, says which of the two it is. Rows without an `id` are
    called `STEM-N`, N being the row's number from 1.

    Raises DataError where the file is missing, is not UTF-8 JSON, has no rows, or has rows that
    cannot be used: all of them, each with file:line, the first 20 in words. Rows behind the limit
    are not looked at.
    """
    assert limit is None or limit > 0, "a plan's limit is positive"
    path = Path(path)
    data = _read_bytes(path)
    problems = _Problems(shown_as or str(path))
    stem = path.stem if shown_as is None else str(PurePosixPath(shown_as).with_suffix(""))
    rows = islice(_rows(data, problems), limit)
    examples = _examples(rows, stem, problems)
    problems.raise_if_any()
    if not examples:
        raise DataError(f"{problems.file}:1: found no rows; expected {expected_forms()}")
    return examples


def _read_bytes(path: Path) -> bytes:
    if problem := file_problem(path):
        raise DataError(problem)
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _examples(rows: Iterable[Row], stem: str, problems: _Problems) -> list[Example]:
    examples = []
    line_of_id: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        faults: list[str] = []
        example = _example(row, f"{stem}-{number}", problems.file, faults)
        if example is not None and example.id in line_of_id:
            first = line_of_id[example.id]
            faults.append(f"id {show(example.id)} is also at line {first}; make ids unique")
        elif example is not None:
            line_of_id[example.id] = row.line
            examples.append(example)
        for fault in faults:
            problems.add(row.line, fault)
    return examples


def _example(row: Row, derived_id: str, file: str, faults: list[str]) -> Example | None:
    """The row as an example, or None where it has faults."""
    if not isinstance(row.value, dict):
        faults.append(f"found {kind_of(row.value)}; expected {expected_forms()}")
        return None
    known = next((known for known in FORMATS if known.key in row.value), None)
    if known is None:
        faults.append(no_form(row.value))
        return None
    content = known.parse(row.value, faults)
    identifier = _identifier(row.value.get("id"), derived_id, faults)
    if faults:
        return None
    conversation = Conversation(content.messages)
    return Example(identifier, conversation, content.answers, file, row.line)


def _rows(data: bytes, problems: _Problems) -> Iterator[Row]:
    """The rows of the file; what is no JSON goes to the problems."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        problems.add(1, "found UTF-16; save the file as UTF-8")
    elif data.lstrip(b" \t\r\n").startswith(b"["):
        text = _decoded(data, 1, problems)
        if text is not None:
            yield from _rows_of_array(text, problems)
    else:
        yield from _rows_of_lines(data, problems)


def _decoded(data: bytes, line: int, problems: _Problems) -> str | None:
    """The bytes as text, `line` being the number of their first line."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        byte = error.start - data.rfind(b"\n", 0, error.start)
        found = f"byte {byte} of the line, 0x{data[error.start]:02x}, is not UTF-8"
        problems.add(line, f"{found}; save the file as UTF-8")
        return None


def _rows_of_lines(data: bytes, problems: _Problems) -> Iterator[Row]:
    nothing_read = True
    # Split at \n bytes alone: str.splitlines also breaks at U+2028, which JSON strings may hold.
    for line, raw in enumerate(data.split(b"\n"), start=1):
        text = _decoded(raw, line, problems)
        if text is None or not text.strip(" \t\r"):
            continue
        try:
            yield Row(line, json.loads(text))
        except (ValueError, RecursionError) as error:
            if nothing_read and _is_one_object(data):
                found = "found one JSON object over several lines"
                problems.add(line, f"{found}; write one object a line, or an array of rows")
                return
            problems.add(line, f"bad JSON{_reason(error)}; a line must be one whole JSON object")
        nothing_read = False


def _is_one_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def _rows_of_array(text: str, problems: _Problems) -> Iterator[Row]:
    """The array's rows; the first syntax error ends it, for what follows cannot be told apart."""
    position = _skip_space(text, text.index("[") + 1)
    counted, line = 0, 1
    closed = text.startswith("]", position)
    while not closed:
        line += text.count("\n", counted, position)
        counted = position
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            place = error.lineno if isinstance(error, json.JSONDecodeError) else line
            problems.add(place, f"bad JSON{_reason(error)}, in the row that starts at line {line}")
            return
        yield Row(line, value)
        position = _skip_space(text, position)
        closed = text.startswith("]", position)
        if not closed and not text.startswith(",", position):
            _misplaced(text, position, "after a row; expected a comma or the closing ]", problems)
            return
        if not closed:
            position = _skip_space(text, position + 1)
    end = _skip_space(text, position + 1)
    if end < len(text):
        _misplaced(text, end, "after the closing ]; expected nothing more", problems)


def _misplaced(text: str, position: int, why: str, problems: _Problems) -> None:
    found = f"found {text[position]!r}" if position < len(text) else "the file ends"
    problems.add(1 + text.count("\n", 0, position), f"bad JSON: {found} {why}")


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None, "the pattern matches the empty string"
    return match.end()


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f" at column {error.colno} ({error.msg})"
    return " (nested too deeply)" if isinstance(error, RecursionError) else f" ({error})"


def _identifier(value: object, derived: str, faults: list[str]) -> str:
    if value is None:
        return derived
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = checked_text(value, "id", faults)
    if text == "":
        faults.append("id is empty; give it text or leave it out")
    return text or ""
