"""Why a text is no JSON, in words: the cause that people meet, where the text shows one."""

from __future__ import annotations

import json
import re

_SPACE = " \t\r\n"
_PYTHON_START = re.compile(
    r"""\s*[\[{(][\[{(\s]*(?:'|"[^"]*"\s*:\s*'|array\(|None\b|True\b|False\b)"""
)
_PYTHON_WORD = re.compile(r"(None|True|False|nan|inf)\b")
_COMMENT = re.compile(r"\s*(?:(?://|#)[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))", re.DOTALL)
_WHOLE_OBJECT = re.compile(r"\s*,?\s*\{")


def reason_of(error: ValueError | RecursionError) -> str:
    """What json says is wrong, and its cause, to be put behind "bad JSON"."""
    if isinstance(error, json.JSONDecodeError):
        cause = cause_of(error.doc, error.pos)
        return f" at column {error.colno} ({error.msg}){f': {cause}' if cause else ''}"
    return " (nested too deeply)" if isinstance(error, RecursionError) else f" ({error})"


def cause_of(text: str, position: int) -> str:
    """What stands where a text is no JSON any more, and what to do; "" where it is unknown."""
    found = text[position : position + 16]
    before = text[max(0, position - 64) : position].rstrip(_SPACE)
    if found.startswith(("//", "/*", "#")):
        return "a comment, which JSON does not have; remove it"
    if found.lstrip(_SPACE)[:1] in ("]", "}") and before.endswith(","):
        return "a comma after the last item; remove it"
    if found.startswith(",") and before.endswith(("]", "}")):
        rest = text[position + 1 :].strip(_SPACE)
        if not rest:
            return "a comma at the end of the line; remove it, lines are not separated by commas"
    if found.startswith("'") or before.endswith("'"):
        return "single quotes, as in Python; JSON has double quotes: write it with json.dumps"
    if _PYTHON_WORD.match(found):
        return "a Python word; JSON has null, true and false: write it with json.dumps"
    if before.endswith("}") and _WHOLE_OBJECT.match(text, position):
        return "a second object; write one object per line"
    return ""


def python_literal(text: str) -> str:
    """Where a text is a list or an object as Python prints it: what to say of it, else ""."""
    if not _PYTHON_START.match(text):
        return ""
    return "written as Python prints a value; write it as JSON, with json.dumps"


def without_leading_comments(text: str) -> str:
    """The text from its first character that is neither white space nor in a comment."""
    position = 0
    while match := _COMMENT.match(text, position):
        position = match.end()
    return text[position:].lstrip(_SPACE)
