"""Forms of rows: how a row's JSON object becomes messages and answers.

`messages` form; `answers` and `id` may be left out:

    {"id": "q1",
     "messages": [{"role": "user", "content": "Who won?"},
                  {"role": "assistant", "content": "The Broncos"}],
     "answers": ["The Broncos", "Denver Broncos"]}

`question` form; `context` may be left out:

    {"context": "The Broncos won.", "question": "Who won?", "answer": "The Broncos"}

A further form is one more entry of FORMATS. What is wrong with a row goes to a list of faults, so
that all of it is found at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, cast

from loracle.data.conversation import ROLES, Message, Role
from loracle.plan import nearest

NUM_SHOWN_KEYS = 8


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


def _parse_messages(row: Mapping[str, object], faults: list[str]) -> Content:
    turns = row["messages"]
    if isinstance(turns, list):
        messages = [_message(turn, f"messages[{i}]", faults) for i, turn in enumerate(turns)]
    else:
        messages = []
        faults.append(f"messages is {kind_of(turns)}; expected a list of turns")
    answers = _answers(row, "answers", faults)
    if not faults:
        faults += _order_faults([message for message in messages if message])
    return Content(tuple(message for message in messages if message), answers)


def _message(turn: object, place: str, faults: list[str]) -> Message | None:
    if not isinstance(turn, dict):
        faults.append(f'{place} is {kind_of(turn)}; expected {{"role": ..., "content": ...}}')
        return None
    missing = [key for key in ("role", "content") if key not in turn]
    if missing:
        found = ", ".join(show(key) for key in turn) or "no keys"
        faults.append(f"{place} has no {' and no '.join(missing)} (found {found}); add it")
        return None
    # Read as if it were not there, a call would be missing from what is trained on.
    for key in ("tool_calls", "function_call"):
        if turn.get(key):
            faults.append(f"{place}.{key} cannot be read; write the call as the turn's content")
    role, content = turn["role"], checked_text(turn["content"], f"{place}.content", faults)
    if role not in ROLES:
        near = nearest(role, ROLES) if isinstance(role, str) else None
        hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(ROLES)}"
        faults.append(f"{place}.role is {show(role)}; {hint}")
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
    question = checked_text(row["question"], "question", faults)
    context = (
        checked_text(row["context"], "context", faults) if row.get("context") is not None else ""
    )
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
        [checked_text(item, f"{key}[{i}]", faults) for i, item in enumerate(value)]
        if isinstance(value, list)
        else [checked_text(value, key, faults)]
    )
    return tuple(text for text in texts if text is not None)


FORMATS: tuple[Format, ...] = (
    Format("messages", '{"messages": [{"role": ..., "content": ...}, ...]}', _parse_messages),
    Format("question", '{"question": ..., "answer": ...}', _parse_question),
)


def expected_forms() -> str:
    """What a row may look like, as messages say it."""
    return "a row like " + " or ".join(known.example for known in FORMATS)


def no_form(row: Mapping[str, object]) -> str:
    """The message for a row that is of no known form, with the nearest key."""
    keys = ", ".join(show(key) for key in islice(row, NUM_SHOWN_KEYS)) or "none"
    near = {known.key: nearest(known.key, row) for known in FORMATS}
    hints = [f"did you mean {key!r} by {show(other)}?" for key, other in near.items() if other]
    names = " and no ".join(known.key for known in FORMATS)
    return (
        f"no {names} (keys found: {keys}); {hints[0] if hints else f'expected {expected_forms()}'}"
    )


def checked_text(value: object, place: str, faults: list[str]) -> str | None:
    """The value where it is text that can be written as UTF-8, else None and a fault."""
    if not isinstance(value, str):
        faults.append(f"{place} is {kind_of(value)}; expected text")
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"half of a surrogate pair, {value[error.start]!r}"
        faults.append(f"{place} has {found}, which is no character; remove it")
        return None
    return value


def kind_of(value: object) -> str:
    """What a JSON value is, in words; numbers and truth values as they are written."""
    kinds = {dict: "an object", list: "a list", str: "text", type(None): "null"}
    return kinds.get(type(value)) or f"{json.dumps(value)}"[:40]


def show(value: object) -> str:
    """A value as Python writes it, cut to a readable length."""
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
