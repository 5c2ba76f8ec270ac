"""Any dataset as messages JSONL, the form that every trainer reads.

{"id": "q1", "messages": [{"role": "user", "content": ...}, ...], "answers": [...]}
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from loracle.data.conversation import Example, Message
from loracle.data.reading.dataset import Drop, Reading
from loracle.data.reading.fields import FieldUse
from loracle.data.reading.notes import Note
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError


class Conversion(NamedTuple):
    """What was written, and what was left out and why; fields and notes: as returned by reading."""

    description: str
    num_written: int
    drops: tuple[Drop, ...]
    fields: tuple[FieldUse, ...] = ()
    notes: tuple[Note, ...] = ()


def row_of(example: Example) -> dict[str, object]:
    """An example as a row of messages; absent fields are left out."""
    row: dict[str, object] = {
        "id": example.id,
        "messages": [_turn_of(message) for message in example.conversation.messages],
    }
    optional = {
        "answers": list(example.answers),
        "tools": list(example.conversation.tools),
        "context": example.context,
        "question": example.question,
        "group": example.group,
    }
    return row | {key: value for key, value in optional.items() if value}


def _turn_of(message: Message) -> dict[str, object]:
    """A turn, with its loss weight under OpenAI's key for it unless it is 1."""
    turn = message.as_json()
    return turn if message.weight == 1 else {**turn, "weight": message.weight}


def convert(location: str, out: Path, options: ReadOptions) -> Conversion:
    """Write a dataset to `out`, row by row; the file appears only when it is complete.

    Rows that cannot be used are left out and returned. Raises DataError if the dataset cannot be
    read, none of its rows can be used, or `out` cannot be written.
    """
    reading = Reading(location, options)
    if out.exists() and any(path.samefile(out) for path in reading.source.files if path.exists()):
        raise DataError(f"{out} is an input file; name another file to write to")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    num_written = 0
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for example in reading:
                text = json.dumps(row_of(example), ensure_ascii=False, allow_nan=False)
                file.write(f"{text}\n")
                num_written += 1
            file.flush()
            os.fsync(file.fileno())
        if not num_written:
            raise DataError([p for drop in reading.drops[:20] for p in drop.problems])
        partial.replace(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    account = reading.account([])
    return Conversion(
        account.description, num_written, account.drops, account.fields, account.notes
    )
