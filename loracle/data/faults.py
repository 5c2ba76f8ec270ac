"""What can be wrong with a row: a reason, used to count rows, and a message."""

from __future__ import annotations

import json
import reprlib
import string
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from loracle.text import first_few

MAX_SHOWN_CHARACTERS = 60
MAX_MESSAGE_CHARACTERS = 1500
"""The longest message about a row; what is longer is cut in the middle."""
_NUM_SHOWN_NAMES = 12
_MAX_UNSEEN = 16
MAX_NESTING = 64
"""The deepest nesting of a JSON value that is accepted: chat templates walk it recursively."""


class Reason(StrEnum):
    """Why a row cannot be used; the value is shown in counts of dropped rows."""

    BAD_JSON = "not JSON"
    BAD_ENCODING = "not in the file's encoding"
    BAD_CHARACTER = "NUL or half of a surrogate pair"
    TOO_LARGE = "row too large"
    DUPLICATE_KEY = "key given twice"
    CELLS = "wrong number of cells"
    MISSING = "field missing"
    WRONG_KIND = "field of the wrong kind"
    EMPTY = "empty text"
    ROLE = "unknown role"
    ORDER = "roles in the wrong order"
    NO_REPLY = "no assistant turn"
    TOOLS = "unusable tools or tool calls"
    UNANSWERABLE = "unanswerable question"
    CHOICE = "answer that is not one of the choices"
    MEDIA = "images, sound or video"
    PREFERENCE = "preference data"
    MARK = "excluded from the loss"


class Fault(NamedTuple):
    """One problem with a row: what was found, and what to do."""

    reason: Reason
    text: str


class Faults(list[Fault]):
    """Everything that is wrong with one row."""

    def add(self, reason: Reason, text: str) -> None:
        self.append(Fault(reason, shortened(text, MAX_MESSAGE_CHARACTERS)))


def checked_text(value: object, place: str, faults: Faults) -> str | None:
    """The value if it is text that a tokenizer can take, else None and a fault."""
    if not isinstance(value, str):
        faults.add(Reason.WRONG_KIND, f"{place} is {kind_of(value)}; expected text")
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"half of a surrogate pair, {value[error.start]!r}"
        faults.add(
            Reason.BAD_CHARACTER, f"{place} has {found}, which is not a character; remove it"
        )
        return None
    if "\0" in value:
        faults.add(Reason.BAD_CHARACTER, f"{place} has a NUL character (\\u0000); remove it")
        return None
    return value


_UNSEEN = string.whitespace + "".join(map(chr, (0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xAD)))


def is_seen(text: str) -> bool:
    """Whether a text has more than white space and characters of no width."""
    stripped = text.strip()
    return bool(stripped) and (len(stripped) > _MAX_UNSEEN or bool(stripped.strip(_UNSEEN)))


def filled_text(value: object, place: str, faults: Faults) -> str | None:
    """Like checked_text, but text of only white space is also a fault."""
    text = checked_text(value, place, faults)
    if text is not None and not is_seen(text):
        faults.add(Reason.EMPTY, f"{place} is empty; fill it or leave the row out")
        return None
    return text


def checked_json(value: object, place: str, faults: Faults) -> bool:
    """Whether a JSON value can be passed to a chat template: valid text, finite numbers, no deep
    nesting. Adds a fault if it cannot."""
    before = len(faults)
    _check_json(value, place, faults, depth=0)
    return len(faults) == before


def _check_json(value: object, place: str, faults: Faults, depth: int) -> None:
    if depth > MAX_NESTING:
        faults.add(Reason.WRONG_KIND, f"{place} is nested more than {MAX_NESTING} deep; flatten it")
    elif isinstance(value, dict):
        for key, item in value.items():
            checked_text(key, f"a key of {place}", faults)
            _check_json(item, f"{place}.{named(key)}"[:MAX_SHOWN_CHARACTERS], faults, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_json(item, f"{place}[{index}]"[:MAX_SHOWN_CHARACTERS], faults, depth + 1)
    elif isinstance(value, str):
        checked_text(value, place, faults)
    elif isinstance(value, float) and (value != value or abs(value) == float("inf")):
        faults.add(
            Reason.WRONG_KIND, f"{place} is {kind_of(value)}, which JSON does not have; replace it"
        )
    elif not isinstance(value, bool | int | float | None):
        faults.add(Reason.WRONG_KIND, f"{place} is {kind_of(value)}; expected a JSON value")


def kind_of(value: object) -> str:
    """What a value is, in words; numbers and booleans as in JSON."""
    kinds = {dict: "an object", list: "a list", str: "text", type(None): "null"}
    if known := kinds.get(type(value)):
        return known
    if isinstance(value, bool | int | float):
        # A number of over 4,300 digits cannot be written; one read from JSON is shorter.
        return json.dumps(value)[:40]
    if type(value).__name__ == "Undecoded":
        return "a value that cannot be decoded"
    return f"a value of type {type(value).__name__}"


def shortened(text: str, max_characters: int) -> str:
    """A text cut in the middle if it is longer: names that differ at their ends stay different."""
    if len(text) <= max_characters:
        return text
    num_before = (max_characters - 3) // 2
    return f"{text[:num_before]}...{text[num_before + 3 - max_characters :]}"


def named(name: str) -> str:
    """The name of a column or a key as messages say it: on one line, and of readable length."""
    if not name.isprintable():
        name = repr(name)
    return shortened(name, MAX_SHOWN_CHARACTERS)


def listed(names: Iterable[str], max_names: int = _NUM_SHOWN_NAMES) -> str:
    """The first of some names, and how many more there are."""
    return first_few(list(names), max_names)


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = MAX_SHOWN_CHARACTERS


def show(value: object) -> str:
    """A value as Python prints it, cut to a readable length; deep nesting is cut first, because a
    value that could be parsed may be too deep to print."""
    text = repr(value) if isinstance(value, str) else _SHORT.repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 3]}..."
