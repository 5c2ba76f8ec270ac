"""Rows that hold whole conversations: OpenAI's `messages`, ShareGPT's `conversations`.

{"messages": [{"role": "user", "content": "Weather in Oslo?"},
              {"role": "assistant", "content": null,
               "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]},
              {"role": "tool", "content": "rain"},
              {"role": "assistant", "content": "It rains."}],
 "tools": [{"type": "function", "function": {"name": "weather"}}]}

{"conversations": [{"from": "human", "value": "Weather in Oslo?"},
                   {"from": "function_call", "value": "{\\"name\\": \\"weather\\"}"},
                   {"from": "observation", "value": "rain"},
                   {"from": "gpt", "value": "It rains."}],
 "system": "Be brief.", "tools": "[{\\"name\\": \\"weather\\"}]"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

from loracle.data.conversation import ROLES, Message, Role, ToolCall
from loracle.data.faults import Faults, Reason, checked_text, is_seen, kind_of, listed, show
from loracle.data.reading.content_parts import content_text
from loracle.data.reading.marks import READ_MARKS, turn_weight
from loracle.data.reading.names import likely_meant
from loracle.data.reading.options import ReadOptions, TurnKeys
from loracle.data.reading.row_content import (
    RowContent,
    RowValue,
    answers_of,
    as_text,
    is_blank,
    keys_found,
    list_of,
    optional_text,
    system_turn,
)
from loracle.data.reading.tool_calls import calls_of, tools_of

TURN_COLUMNS = ("messages", "conversations", "conversation")
# What a turn has thought before its content: of vLLM and others, OpenRouter, OpenAI's gpt-oss.
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
# What is read of a turn; every other key with a value is accounted for as unused.
MESSAGE_KEYS = READ_MARKS | {
    *("role", "content", "tool_calls", "function_call", "tool_call_id", "name"),
    *REASONING_KEYS,
}
# A question and its answer in one object: ms-swift's `conversation`, and XTuner's.
_PAIR_QUESTIONS = ("human", "user", "input")
_PAIR_ANSWERS = ("assistant", "gpt", "output")
PAIR_KEYS = frozenset({"system", *_PAIR_QUESTIONS, *_PAIR_ANSWERS})


FUNCTION_CALL = "function_call"
# `developer` and `function` are OpenAI's, `tool_call` and `tool_response` ms-swift's.
_MESSAGE_ROLES: dict[str, str] = {
    "developer": "system",
    "function": "tool",
    "tool_response": "tool",
    "observation": "tool",
    "tool_call": FUNCTION_CALL,
    FUNCTION_CALL: FUNCTION_CALL,
}
_SHAREGPT_ROLES: dict[str, str] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "tool_call": FUNCTION_CALL,
    FUNCTION_CALL: FUNCTION_CALL,
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}


_OTHER_TURN_KEYS = {
    "role": ("from",),
    "from": ("role",),
    "content": ("value",),
    "value": ("content",),
}
_CALL_ROLES = frozenset({"tool_call", FUNCTION_CALL})


def turns_of(row: RowValue) -> object:
    """What stands in the column of turns, or None where the row has none."""
    return next((row[key] for key in TURN_COLUMNS if row.get(key) is not None), None)


def is_pair(turn: object) -> bool:
    """Whether a turn is a question and its answer in one."""
    if not isinstance(turn, dict) or "role" in turn or "from" in turn:
        return False
    asked, answered = not turn.keys().isdisjoint(_PAIR_QUESTIONS), turn.keys() & {*_PAIR_ANSWERS}
    return asked and bool(answered)


def parse_messages(row: RowValue, faults: Faults, options: ReadOptions) -> RowContent:
    """OpenAI's form, and pairs of question and answer."""
    turns = turns_of(row)
    if isinstance(turns, list) and turns and is_pair(turns[0]):
        return _content(row, list(_paired(turns, faults)), faults)
    messages: list[Message | None] = []
    for turn, place in _turns(row, "role", "content", faults):
        message = _message(turn, place, faults)
        if isinstance(turn["role"], str) and turn["role"] in _CALL_ROLES:
            _add_calls(messages, message)
        else:
            messages.append(message)
    return _content(row, messages, faults)


def _how_to_add(missing: Sequence[str], turn: Mapping[str, object]) -> str:
    """What to do where a turn lacks a key, which another program may call otherwise."""
    renamed = [
        f"{key!r} to {name!r}"
        for name in missing
        for key in _OTHER_TURN_KEYS.get(name, ())
        if key in turn
    ]
    return f"add it, or rename {' and '.join(renamed)}" if renamed else "add it"


def _add_calls(messages: list[Message | None], message: Message | None) -> None:
    """Add a turn that only calls tools; right after a reply it is part of the same turn."""
    last = messages[-1] if messages else None
    if message and last and last.role == "assistant":
        messages[-1] = replace(
            last,
            tool_calls=last.tool_calls + message.tool_calls,
            weight=min(last.weight, message.weight),
        )
    else:
        messages.append(message)


def _paired(turns: Sequence[object], faults: Faults) -> Iterator[Message | None]:
    """The turns of [{"human": ..., "assistant": ...}]."""
    for index, pair in enumerate(turns):
        place = f"conversation[{index}]"
        if not is_pair(pair):
            faults.add(
                Reason.WRONG_KIND,
                f'{place} is {kind_of(pair)}; expected {{"human": ..., "assistant": ...}}',
            )
            continue
        assert isinstance(pair, dict)
        if not is_blank(pair.get("system")):
            yield Message("system", optional_text_of(pair, "system", place, faults) or "")
        question = next(key for key in _PAIR_QUESTIONS if key in pair)
        answer = next(key for key in _PAIR_ANSWERS if key in pair)
        weight = turn_weight(pair, place, faults)
        # An empty question is one that only the system turn before it asks.
        if not (index == 0 and is_blank(pair[question]) and not is_blank(pair.get("system"))):
            yield _plain_message("user", pair[question], f"{place}.{question}", faults)
        reply = _plain_message("assistant", pair[answer], f"{place}.{answer}", faults)
        yield None if reply is None else replace(reply, weight=weight)


def _plain_message(role: Role, value: object, place: str, faults: Faults) -> Message | None:
    content = checked_text(as_text(value), place, faults)
    if content is None or _is_empty(role, content, place, faults):
        return None
    return Message(role, content)


def parse_sharegpt(row: RowValue, faults: Faults, options: ReadOptions) -> RowContent:
    """ShareGPT's form; a `function_call` turn right after text is part of the same turn."""
    keys = options.turn_keys
    messages: list[Message | None] = []
    for turn, place in _turns(row, keys.role, keys.content, faults):
        message = _sharegpt_message(turn, place, keys, faults)
        if message and message.tool_calls:
            _add_calls(messages, message)
        else:
            messages.append(message)
    return _content(row, messages, faults)


def _content(row: RowValue, turns: Sequence[Message | None], faults: Faults) -> RowContent:
    messages = [message for message in turns if message and not _is_blank_system(message)]
    if not messages or messages[0].role != "system":
        messages = [*system_turn(optional_text(row, "system", faults)), *messages]
    answers, tools = answers_of(row, "answers", faults), tools_of(row, faults)
    if not faults:
        add_order_faults(messages, faults)
    asked = [message.content for message in messages if message.role in ("system", "user")]
    context, question = (
        # Under names as common as these may stand anything: only what is asked counts.
        text if text and any(text in content for content in asked) else None
        for text in (optional_text(row, key, Faults()) for key in ("context", "question"))
    )
    return RowContent(tuple(messages), answers, tools, context, question)


def _is_blank_system(message: Message) -> bool:
    return message.role == "system" and not message.content.strip()


def _turns(
    row: RowValue, role: str, content: str, faults: Faults
) -> list[tuple[dict[str, object], str]]:
    """The row's turns with their places, those that are objects with both keys."""
    name = next((key for key in TURN_COLUMNS if row.get(key) is not None), None)
    if name is None:
        faults.add(
            Reason.MISSING,
            f"no messages (keys found: {keys_found(row)}); name their column, "
            "columns: {messages: ...}",
        )
        return []
    turns = []
    for index, turn in enumerate(list_of(row[name], name, "a list of turns", faults) or []):
        place = f"{name}[{index}]"
        if not isinstance(turn, dict):
            expected = f'{{"{role}": ..., "{content}": ...}}'
            faults.add(Reason.WRONG_KIND, f"{place} is {kind_of(turn)}; expected {expected}")
            continue
        # A turn that only calls a tool needs no content.
        calls = any(turn.get(key) for key in ("tool_calls", "function_call"))
        needed = [role] if calls else [role, content]
        if missing := [key for key in needed if key not in turn]:
            found = listed(map(show, turn)) or "no keys"
            faults.add(
                Reason.MISSING,
                f"{place} has no {' and no '.join(missing)} (found {found}); "
                f"{_how_to_add(missing, turn)}",
            )
            continue
        turns.append((turn, place))
    return turns


def _message(turn: dict[str, object], place: str, faults: Faults) -> Message | None:
    role = turn["role"]
    if isinstance(role, str) and role in _CALL_ROLES:
        return _call_turn(turn.get("content"), turn, f"{place}.content", place, faults)
    role = _MESSAGE_ROLES.get(role, role) if isinstance(role, str) else role
    calls: tuple[ToolCall, ...] = ()
    for key in ("tool_calls", "function_call"):
        if turn.get(key):
            calls += calls_of(turn[key], f"{place}.{key}", faults)
    has_calls = any(turn.get(key) for key in ("tool_calls", "function_call"))
    value = turn.get("content")
    value = as_text(value) if role == "assistant" else value
    content = content_text(value, f"{place}.content", has_calls, faults)
    weight = turn_weight(turn, place, faults)
    if role not in ROLES:
        near = likely_meant(role, ROLES) if isinstance(role, str) else None
        hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(ROLES)}"
        faults.add(Reason.ROLE, f"{place}.role is {show(role)}; {hint}")
        return None
    if calls and role != "assistant":
        faults.add(Reason.TOOLS, f"{place} is {role!r} and calls a tool; only the assistant can")
    if content is None or _is_empty(cast(Role, role), content, place, faults, has_calls=has_calls):
        return None
    return Message(
        cast(Role, role),
        content,
        calls,
        reasoning=_reasoning_of(turn, place, faults),
        tool_call_id=optional_text_of(turn, "tool_call_id", place, faults),
        name=optional_text_of(turn, "name", place, faults),
        weight=weight if role == "assistant" else 1.0,
    )


def _call_turn(
    value: object, turn: Mapping[str, object], value_place: str, place: str, faults: Faults
) -> Message | None:
    """A turn of a role of its own for calls, whose content is the call as JSON."""
    calls = calls_of(value, value_place, faults)
    weight = turn_weight(turn, place, faults)
    return Message("assistant", "", calls, weight=weight) if calls else None


def _reasoning_of(turn: Mapping[str, object], place: str, faults: Faults) -> str | None:
    """What the turn has thought: under the first of the names that has it."""
    key = next((key for key in REASONING_KEYS if not is_blank(turn.get(key))), REASONING_KEYS[0])
    return optional_text_of(turn, key, place, faults)


def optional_text_of(
    turn: Mapping[str, object], key: str, place: str, faults: Faults
) -> str | None:
    value = turn.get(key)
    return None if value is None else checked_text(value, f"{place}.{key}", faults)


def _sharegpt_message(
    turn: dict[str, object], place: str, keys: TurnKeys, faults: Faults
) -> Message | None:
    known = {**_SHAREGPT_ROLES, **keys.roles}
    name, value = turn[keys.role], turn[keys.content]
    role = known.get(name) if isinstance(name, str) else None
    if role is None:
        near = likely_meant(name, known) if isinstance(name, str) else None
        hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(known)}"
        faults.add(Reason.ROLE, f"{place}.{keys.role} is {show(name)}; {hint}")
        return None
    weight = turn_weight(turn, place, faults)
    if role == FUNCTION_CALL:
        return _call_turn(value, turn, f"{place}.{keys.content}", place, faults)
    value = as_text(value) if role == "assistant" else value
    content = content_text(value, f"{place}.{keys.content}", has_calls=False, faults=faults)
    if content is None or _is_empty(cast(Role, role), content, place, faults):
        return None
    return Message(cast(Role, role), content, weight=weight if role == "assistant" else 1.0)


def _is_empty(
    role: Role, content: str, place: str, faults: Faults, *, has_calls: bool = False
) -> bool:
    """Whether a turn says nothing, which only a call may do, a tool that has nothing to say, and a
    system turn, which is left out then."""
    if is_seen(content) or has_calls or role in ("tool", "system"):
        return False
    what = "an empty assistant reply" if role == "assistant" else f"an empty {role} turn"
    faults.add(Reason.EMPTY, f"{place} is {what}; fill it or leave the row out")
    return True


def add_order_faults(messages: Sequence[Message], faults: Faults) -> None:
    """What is wrong with the order of roles: the first thing, for others may follow from it."""
    roles: list[Role] = [message.role for message in messages]
    if "assistant" not in roles:
        faults.add(
            Reason.NO_REPLY,
            "no assistant turn; the last message must be the assistant's reply",
        )
        return
    if roles[-1] != "assistant":
        faults.add(
            Reason.ORDER, f"the last turn is {roles[-1]!r}; end the row with the assistant's reply"
        )
        return
    if "user" not in roles:
        faults.add(Reason.ORDER, "no user turn before the assistant's reply; add what it answers")
        return
    for index, role in enumerate(roles):
        if fault := _order_fault(roles, index, role):
            faults.add(Reason.ORDER, f"turn {index + 1} of {len(roles)} is {role!r} {fault}")
            return


def _order_fault(roles: Sequence[Role], index: int, role: Role) -> str | None:
    before = roles[index - 1] if index else None
    if role == "system" and index:
        return f"after {before!r}; the system turn must come first"
    if role == "assistant" and before in (None, "system"):
        return "before any user turn; a user turn must come first"
    if role == "tool" and before not in ("assistant", "tool"):
        return f"after {before!r}; a tool answers the assistant's call"
    if role == before and role != "tool":
        return "as is the turn before it; join the two, or leave the row out"
    return None
