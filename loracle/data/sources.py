"""Examples from data files: JSON (one array of rows) and JSONL (one row a line).

A row in `messages` form; `answers` and `id` may be left out:

    {"id": "q1",
     "messages": [{"role": "user", "content": "Who won?"},
                  {"role": "assistant", "content": "The Broncos"}],
     "answers": ["The Broncos", "Denver Broncos"]}

A row in `question` form; `context` may be left out:

    {"context": "The Broncos won.", "question": "Who won?", "answer": "The Broncos"}

bytes -> rows with their line (`_rows_of_lines`, `_rows_of_array`) -> a Format's Content -> Example.
A further form of rows is one more entry of FORMATS. Every row is used or named as a problem.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

from loracle.data.conversation import ROLES, Conversation, Example, Message, Role
from loracle.errors import DataError
from loracle.plan import file_problem, nearest

NUM_SHOWN_PROBLEMS = 20
NUM_SHOWN_KEYS = 8

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Row(NamedTuple):
    """A JSON value and the line (from 1) where it starts."""

    line: int
    value: object


class Content(NamedTuple):
    """What a Format takes from a row."""

    messages: tuple[Message, ...]
    answers: tuple[str, ...]


class Format(NamedTuple):
    """A form of rows, known by one key. `parse` adds what is wrong with a row to the list that it
    is given; its content counts only where it added nothing."""

    key: str
    example: str
    parse: Callable[[Mapping[str, object], list[str]], Content]


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


def read_examples(path: str | Path, *, limit: int | None = None) -> list[Example]:
    """Read all examples of a JSON or JSONL file, or the first `limit` rows; none is left out.

    The content, not the file's ending, says which of the two it is. Rows without an `id` are
    called `STEM-N`, N being the row's number from 1.

    Raises DataError where the file is missing, is not UTF-8 JSON, has no rows, or has rows that
    cannot be used: all of them, each with file:line, the first 20 in words. Rows behind the limit
    are not looked at.
    """
    assert limit is None or limit > 0, "a plan's limit is positive"
    path = Path(path)
    data = _read_bytes(path)
    problems = _Problems(str(path))
    rows = islice(_rows(data, problems), limit)
    examples = _examples(rows, path, problems)
    problems.raise_if_any()
    if not examples:
        raise DataError(f"{path}:1: found no rows; expected {_forms()}")
    return examples


def _read_bytes(path: Path) -> bytes:
    if problem := file_problem(path):
        raise DataError(problem)
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _examples(rows: Iterable[Row], path: Path, problems: _Problems) -> list[Example]:
    examples = []
    line_of_id: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        faults: list[str] = []
        example = _example(row, number, path, faults)
        if example is not None and example.id in line_of_id:
            first = line_of_id[example.id]
            faults.append(f"id {_show(example.id)} is also at line {first}; make ids unique")
        elif example is not None:
            line_of_id[example.id] = row.line
            examples.append(example)
        for fault in faults:
            problems.add(row.line, fault)
    return examples


def _example(row: Row, number: int, path: Path, faults: list[str]) -> Example | None:
    """The row as an example, or None where it has faults."""
    if not isinstance(row.value, dict):
        faults.append(f"found {_kind(row.value)}; expected {_forms()}")
        return None
    known = next((known for known in FORMATS if known.key in row.value), None)
    if known is None:
        faults.append(_no_form(row.value))
        return None
    content = known.parse(row.value, faults)
    identifier = _identifier(row.value.get("id"), f"{path.stem}-{number}", faults)
    if faults:
        return None
    conversation = Conversation(content.messages)
    return Example(identifier, conversation, content.answers, str(path), row.line)


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
    text = _text(value, "id", faults)
    if text == "":
        faults.append("id is empty; give it text or leave it out")
    return text or ""


def _parse_messages(row: Mapping[str, object], faults: list[str]) -> Content:
    turns = row["messages"]
    if isinstance(turns, list):
        messages = [_message(turn, f"messages[{i}]", faults) for i, turn in enumerate(turns)]
    else:
        messages = []
        faults.append(f"messages is {_kind(turns)}; expected a list of turns")
    answers = _answers(row, "answers", faults)
    if not faults:
        faults += _order_faults([message for message in messages if message])
    return Content(tuple(message for message in messages if message), answers)


def _message(turn: object, place: str, faults: list[str]) -> Message | None:
    if not isinstance(turn, dict):
        faults.append(f'{place} is {_kind(turn)}; expected {{"role": ..., "content": ...}}')
        return None
    missing = [key for key in ("role", "content") if key not in turn]
    if missing:
        found = ", ".join(_show(key) for key in turn) or "no keys"
        faults.append(f"{place} has no {' and no '.join(missing)} (found {found}); add it")
        return None
    # Read as if it were not there, a call would be missing from what is trained on.
    for key in ("tool_calls", "function_call"):
        if turn.get(key):
            faults.append(f"{place}.{key} cannot be read; write the call as the turn's content")
    role, content = turn["role"], _text(turn["content"], f"{place}.content", faults)
    if role not in ROLES:
        near = nearest(role, ROLES) if isinstance(role, str) else None
        hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(ROLES)}"
        faults.append(f"{place}.role is {_show(role)}; {hint}")
    elif role == "assistant" and content is not None and not content.strip():
        faults.append(f"{place} is an empty assistant reply; fill it or leave the row out")
    elif content is not None:
        return Message(cast(Role, role), content)
    return None


def _order_faults(messages: Sequence[Message]) -> list[str]:
    roles = [message.role for message in messages]
    if "assistant" not in roles:
        return ["no assistant turn; the last of the messages must be the assistant's reply"]
    if roles[-1] != "assistant":
        return [f"the last turn is {roles[-1]!r}; end the row with the assistant's reply"]
    if "user" not in roles:
        return ["no user turn before the assistant's reply; add what it answers"]
    return []


def _parse_question(row: Mapping[str, object], faults: list[str]) -> Content:
    question = _text(row["question"], "question", faults)
    context = _text(row["context"], "context", faults) if row.get("context") is not None else ""
    replies = _answers(row, "answer", faults)
    answers = _answers(row, "answers", faults) or (replies if len(replies) > 1 else ())
    reply = next(iter(replies or answers), None)
    if question is not None and not question.strip():
        faults.append("question is empty; fill it or leave the row out")
    if reply is None and not faults:
        faults.append("no answer; add one, text or a list of texts")
    elif reply is not None and not reply.strip():
        faults.append("answer is empty; fill it or leave the row out")
    prompt = f"Context: {context}\nQuestion: {question}" if context else f"{question}"
    return Content((Message("user", prompt), Message("assistant", reply or "")), answers)


def _answers(row: Mapping[str, object], key: str, faults: list[str]) -> tuple[str, ...]:
    """The texts of a list, or of a single text; none where the key is missing or null."""
    value = row.get(key)
    if value is None:
        return ()
    if value == []:
        faults.append(f"{key} is an empty list; fill it or leave it out")
    texts = (
        [_text(item, f"{key}[{i}]", faults) for i, item in enumerate(value)]
        if isinstance(value, list)
        else [_text(value, key, faults)]
    )
    return tuple(text for text in texts if text is not None)


FORMATS: tuple[Format, ...] = (
    Format("messages", '{"messages": [{"role": ..., "content": ...}, ...]}', _parse_messages),
    Format("question", '{"question": ..., "answer": ...}', _parse_question),
)


def _forms() -> str:
    return "a row like " + " or ".join(known.example for known in FORMATS)


def _no_form(row: Mapping[str, object]) -> str:
    keys = ", ".join(_show(key) for key in islice(row, NUM_SHOWN_KEYS)) or "none"
    near = {known.key: nearest(known.key, row) for known in FORMATS}
    hints = [f"did you mean {key!r} by {_show(other)}?" for key, other in near.items() if other]
    names = " and no ".join(known.key for known in FORMATS)
    return f"no {names} (keys found: {keys}); {hints[0] if hints else f'expected {_forms()}'}"


def _text(value: object, place: str, faults: list[str]) -> str | None:
    """The value where it is text that can be written as UTF-8, else None and a fault."""
    if not isinstance(value, str):
        faults.append(f"{place} is {_kind(value)}; expected text")
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"half of a surrogate pair, {value[error.start]!r}"
        faults.append(f"{place} has {found}, which is no character; remove it")
        return None
    return value


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", type(None): "null"}
    return kinds.get(type(value)) or f"{json.dumps(value)}"[:40]


def _show(value: object) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
