"""Tools and calls of them, as OpenAI and ShareGPT write them, in the one form templates take.

    {"type": "function", "function": {"name": "f", "description": ..., "parameters": {...}}}
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"city": "Oslo"}}}

Arguments may also be JSON in a text, as OpenAI sends them: templates would quote a text twice.
"""

from __future__ import annotations

import json

from loracle.data.conversation import JsonObject, ToolCall
from loracle.data.faults import Faults, Reason, checked_json, checked_text, kind_of
from loracle.data.reading.json_reasons import reason_of
from loracle.data.reading.row_content import RowValue, is_blank, list_of

_TOOL = '{"type": "function", "function": {"name": ..., "parameters": ...}}'
_CALL = '{"function": {"name": ..., "arguments": {...}}}'
TOOL_KEYS = ("tools", "functions")


def tools_of(row: RowValue, faults: Faults) -> tuple[JsonObject, ...]:
    """The tools that a row declares; none where the key is missing, null, empty text or empty."""
    tools = []
    for key in TOOL_KEYS:
        value = row.get(key)
        if (is_blank(value) and value != {}) or value == "null":
            continue
        items = list_of(value, key, f"a list of {_TOOL}", faults)
        tools += [_tool(item, f"{key}[{i}]", faults) for i, item in enumerate(items or [])]
    return tuple(tool for tool in tools if tool is not None)


def _tool(value: object, place: str, faults: Faults) -> JsonObject | None:
    if not isinstance(value, dict):
        faults.add(Reason.TOOLS, f"{place} is {kind_of(value)}; expected {_TOOL}")
        return None
    function = value.get("function", value)
    if not isinstance(function, dict) or not function.get("name"):
        faults.add(Reason.TOOLS, f"{place} has no name; expected {_TOOL}")
        return None
    if not checked_json(function, place, faults):
        return None
    return {"type": "function", "function": function}


def calls_of(value: object, place: str, faults: Faults) -> tuple[ToolCall, ...]:
    """The calls of a turn: OpenAI's `tool_calls`, one of its older `function_call`, or what
    ShareGPT has as the text of a function_call turn."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            faults.add(
                Reason.TOOLS,
                f"{place} is not JSON{reason_of(error)}; expected "
                '{"name": ..., "arguments": ...}',
            )
            return ()
    items = value if isinstance(value, list) else [value]
    names = [f"{place}[{i}]" for i in range(len(items))] if isinstance(value, list) else [place]
    calls = [_call(item, name, faults) for item, name in zip(items, names, strict=True)]
    if not items:
        faults.add(Reason.TOOLS, f"{place} is an empty list; expected {_CALL}")
    return tuple(call for call in calls if call is not None)


def _call(value: object, place: str, faults: Faults) -> ToolCall | None:
    function = value.get("function", value) if isinstance(value, dict) else value
    if not isinstance(value, dict) or not isinstance(function, dict):
        faults.add(Reason.TOOLS, f"{place} is {kind_of(value)}; expected {_CALL}")
        return None
    name = function.get("name")
    if not isinstance(name, str) or not name or checked_text(name, place, faults) is None:
        faults.add(Reason.TOOLS, f"{place} has no name; expected {_CALL}")
        return None
    arguments = _arguments(function.get("arguments"), f"{place}.arguments", faults)
    identifier = value.get("id")
    if identifier is not None and checked_text(identifier, f"{place}.id", faults) is None:
        return None
    return None if arguments is None else ToolCall(name, arguments, identifier)


def _arguments(value: object, place: str, faults: Faults) -> JsonObject | None:
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            faults.add(Reason.TOOLS, f"{place} is not JSON{reason_of(error)}; expected an object")
            return None
    if not isinstance(value, dict):
        faults.add(Reason.TOOLS, f"{place} is {kind_of(value)}; expected an object")
        return None
    return value if checked_json(value, place, faults) else None
