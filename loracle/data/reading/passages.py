"""A passage out of what rows keep one in: a text, a list of them, documents with titles.

"Oslo is ..."                                                    a text
["Oslo is ...", "Bergen is ..."]
[{"title": "Oslo", "paragraphs": ["Oslo is ..."]}]               DuReader
{"title": ["Oslo"], "sentences": [["Oslo is ..."]]}              HotpotQA
[["Oslo", ["Oslo is ..."]]]                                      HotpotQA, as published
{"passage_text": ["Oslo is ..."], "is_selected": [1]}            MS MARCO
[["City", "People"], ["Oslo", 717710]]                           a table
"""

from __future__ import annotations

import json

from loracle.data.faults import Faults, Reason, checked_text, kind_of
from loracle.data.reading.row_content import RowValue, as_text, is_blank

PASSAGE_FIELDS = ("context", "documents")

_TITLE = "title"
_BODIES = (
    *("paragraphs", "passages", "passage_text", "sentences", "contexts", "text", "texts"),
    *("content", "contents", "passage", "paragraph", "document", "body", "snippet", "abstract"),
    *("page_content", "context", "summary", "utterance", "value", "message"),
)
_SPEAKERS = ("speaker", "role", "from", "name")
_TABLE_KEYS = frozenset({"header", "headers", "columns", "rows", "cells"})
_MAX_DEPTH = 8
_MIN_TABLE, _MAX_CELL = 2, 60


def passage_of(row: RowValue, faults: Faults) -> str | None:
    """The passage of a row, its documents below each other; None where it has none."""
    if "documents" not in row and isinstance(context := row.get("context"), str):
        return None if is_blank(context) else checked_text(context, "context", faults)
    parts = [_passage(row.get(key), key, faults) for key in PASSAGE_FIELDS]
    return "\n".join(part for part in parts if part) or None


def _passage(value: object, place: str, faults: Faults) -> str | None:
    if is_blank(value):
        return None
    if isinstance(value, str) and place != "context" and value.lstrip().startswith(("[", "{")):
        # A cell of a table.
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return checked_text(value, place, faults)
    if not isinstance(value, list | dict):
        return checked_text(as_text(value), place, faults)
    texts: list[str] = []
    if not _collect(value, texts, 0):
        expected = "text, a list of texts, or documents with title and paragraphs or text"
        faults.add(Reason.WRONG_KIND, f"{place} is {kind_of(value)}; expected {expected}")
        return None
    checked = [checked_text(text, place, faults) for text in texts]
    return "\n".join(text for text in checked if text and text.strip()) or None


def _collect(value: object, texts: list[str], depth: int) -> bool:
    """Take the texts of a value, in order; whether it is of a known kind throughout."""
    if depth > _MAX_DEPTH:
        return False
    if value is None:
        return True
    if isinstance(value, str):
        texts.append(value)
        return True
    if isinstance(value, list) and _is_table(value):
        texts += (" | ".join(str(as_text(cell) or "") for cell in row) for row in value)
        return True
    if isinstance(value, list):
        return all(_collect(item, texts, depth + 1) for item in value)
    if not isinstance(value, dict):
        return False
    bodies = [value[key] for key in _BODIES if not is_blank(value.get(key))]
    if not bodies and not _TABLE_KEYS.isdisjoint(value):
        return _collect_json(value, texts)
    speaker = next((value[key] for key in _SPEAKERS if isinstance(value.get(key), str)), None)
    if speaker is not None and len(bodies) == 1 and isinstance(bodies[0], str):
        texts.append(f"{speaker}: {bodies[0]}")
        return True
    title = value.get(_TITLE)
    if isinstance(title, list) and len(bodies) == 1 and isinstance(bodies[0], list):
        # One list of titles beside one of bodies: they belong together by position.
        if len(title) != len(bodies[0]):
            return False
        pairs = [part for pair in zip(title, bodies[0], strict=True) for part in pair]
        return _collect(pairs, texts, depth + 1)
    return bool(bodies) and _collect([title, *bodies], texts, depth + 1)


def _is_table(rows: list[object]) -> bool:
    """Whether lists are the rows of a table: of one length, with short cells, numbers among them
    or a header."""
    if len(rows) < _MIN_TABLE or not all(isinstance(row, list) for row in rows):
        return False
    lists = [row for row in rows if isinstance(row, list)]
    if len({len(row) for row in lists}) != 1 or len(lists[0]) < _MIN_TABLE:
        return False
    return all(_is_cell(cell) for row in lists for cell in row)


def _is_cell(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_CELL and "\n" not in value
    return value is None or isinstance(value, bool | int | float)


def _collect_json(value: object, texts: list[str]) -> bool:
    try:
        texts.append(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return False
    return True
