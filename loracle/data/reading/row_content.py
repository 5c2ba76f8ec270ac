"""What a format takes from a row, and the parts that several formats share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from loracle.data.conversation import JsonObject, Message
from loracle.data.faults import Faults, Reason, checked_text, kind_of, show
from loracle.data.reading.json_cursor import reason_of

NUM_SHOWN_KEYS = 8

RowValue = Mapping[str, object]


class RowContent(NamedTuple):
    """What a format takes from a row. context, question: where the row keeps the two apart."""

    messages: tuple[Message, ...]
    answers: tuple[str, ...] = ()
    tools: tuple[JsonObject, ...] = ()
    context: str | None = None
    question: str | None = None
    is_unanswerable: bool = False


def answers_of(row: RowValue, key: str, faults: Faults) -> tuple[str, ...]:
    """The texts of a list, or of a single text; none where the key is missing or null."""
    value = row.get(key)
    if value is None:
        return ()
    if value == []:
        faults.add(Reason.MISSING, f"{key} is an empty list; fill it or leave it out")
    texts = (
        [checked_text(item, f"{key}[{i}]", faults) for i, item in enumerate(value)]
        if isinstance(value, list)
        else [checked_text(value, key, faults)]
    )
    return tuple(text for text in texts if text is not None)


def optional_text(row: RowValue, key: str, faults: Faults) -> str | None:
    """The text under a key, or None where it is missing, null, or white space alone."""
    value = row.get(key)
    if value is None:
        return None
    text = checked_text(value, key, faults)
    return text if text and text.strip() else None


def list_of(value: object, place: str, what: str, faults: Faults) -> list[object] | None:
    """A list, or what a text holds of one as JSON: tables have no other way to hold it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            faults.add(
                Reason.BAD_JSON, f"{place} is text and no JSON{reason_of(error)}; expected {what}"
            )
            return None
    if not isinstance(value, list):
        faults.add(Reason.WRONG_KIND, f"{place} is {kind_of(value)}; expected {what}")
        return None
    return value


def keys_found(row: RowValue) -> str:
    """The first keys of a row that have a value, as messages name them."""
    return ", ".join(show(key) for key in islice(filled(row), NUM_SHOWN_KEYS)) or "none"


def filled(row: RowValue) -> list[str]:
    """The keys that have a value: in tables every row has every column, null where unused."""
    return [key for key, value in row.items() if value is not None]


def dialogue(*turns: Message | None) -> tuple[Message, ...]:
    return tuple(turn for turn in turns if turn is not None)


def system_turn(text: str | None) -> Sequence[Message]:
    return [] if text is None else [Message("system", text)]
