"""What a format takes from a row, and the parts that several formats share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from itertools import islice
from typing import NamedTuple

from loracle.data.conversation import JsonObject, Message
from loracle.data.faults import Faults, Reason, checked_text, kind_of, show
from loracle.data.reading.json_reasons import python_literal, reason_of

NUM_SHOWN_KEYS = 8
_MAX_WHOLE = 2.0**53

RowValue = Mapping[str, object]


class AnswerPlace(NamedTuple):
    """A number given as the answer, to be read as the place of one of so many choices."""

    number: int
    num_choices: int


class RowContent(NamedTuple):
    """What a format takes from a row. context, question: where the row keeps the two apart."""

    messages: tuple[Message, ...]
    answers: tuple[str, ...] = ()
    tools: tuple[JsonObject, ...] = ()
    context: str | None = None
    question: str | None = None
    is_unanswerable: bool = False
    answer_place: AnswerPlace | None = None


def is_blank(value: object) -> bool:
    """Whether an optional field is as good as absent: null, NaN, white space, nothing inside."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value or value.isspace()
    if isinstance(value, float):
        return value != value
    return isinstance(value, list | dict) and not value


def as_text(value: object) -> object:
    """A number, a truth value or a date as text; every other value as it is.

    5.0 is "5": tables hold whole numbers as floats where one is missing.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, float) and abs(value) < float("inf"):
        return str(int(value)) if value.is_integer() and abs(value) < _MAX_WHOLE else repr(value)
    return value.isoformat() if isinstance(value, date | time) else value


def answers_of(row: RowValue, key: str, faults: Faults) -> tuple[str, ...]:
    """The texts of a list, or of a single text; none where the key is missing or null."""
    value = row.get(key)
    if value is None or (key == "answers" and isinstance(value, str) and is_blank(value)):
        return ()
    if value == []:
        faults.add(Reason.MISSING, f"{key} is an empty list; fill it or leave it out")
    texts = (
        [checked_text(as_text(item), f"{key}[{i}]", faults) for i, item in enumerate(value)]
        if isinstance(value, list)
        else [checked_text(as_text(value), key, faults)]
    )
    return tuple(text for text in texts if text is not None)


def optional_text(row: RowValue, key: str, faults: Faults) -> str | None:
    """The text under a key, or None where it is blank."""
    value = row.get(key)
    if is_blank(value):
        return None
    return checked_text(as_text(value), key, faults)


def list_of(value: object, place: str, what: str, faults: Faults) -> list[object] | None:
    """A list, or what a text holds of one as JSON: tables have no other way to hold it."""
    if isinstance(value, str):
        text = value
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            why = python_literal(text) or f"not JSON{reason_of(error)}"
            faults.add(Reason.BAD_JSON, f"{place} is text and {why}; expected {what}")
            return None
    if not isinstance(value, list):
        faults.add(Reason.WRONG_KIND, f"{place} is {kind_of(value)}; expected {what}")
        return None
    return value


def columns_for_rows(row: RowValue) -> bool:
    """Whether a row is a table by its columns: every value a list, or an object, of one length."""
    values = list(row.values())
    sizes = {len(value) for value in values if isinstance(value, list | dict)}
    kinds = {type(value) for value in values}
    return len(values) > 1 and len(sizes) == 1 and len(kinds) == 1 and kinds <= {list, dict}


def keys_found(row: RowValue) -> str:
    """The first keys of a row that have a value, as messages name them."""
    return ", ".join(show(key) for key in islice(filled(row), NUM_SHOWN_KEYS)) or "none"


def filled(row: RowValue) -> list[str]:
    """The keys that have a value: in tables every row has every column, null where unused."""
    return [key for key, value in row.items() if value is not None]


def system_turn(text: str | None) -> Sequence[Message]:
    return [] if text is None else [Message("system", text)]
