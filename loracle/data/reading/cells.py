"""Cells of CSV and TSV, which are text alone: lists and objects in them, and words for nothing.

question,answers
Who won?,"[""Denver"", ""The Broncos""]"
"""

from __future__ import annotations

import json

from loracle.data.faults import Faults, Reason, named, show
from loracle.data.reading.json_reasons import python_literal
from loracle.data.reading.notes import NoteKind, Notes
from loracle.data.reading.row_content import RowValue

_NOTHING = frozenset(
    {
        "NA",
        "N/A",
        "n/a",
        "<NA>",
        "#N/A",
        "nan",
        "NaN",
        "NAN",
        "None",
        "none",
        "null",
        "NULL",
        "Null",
    }
)
_LIST_FIELDS = ("answers", "answer")
_WORDS = NoteKind(
    "cell holds only NA, nan, None or null, and is read as text",
    "cells hold only NA, nan, None or null, and are read as text",
)
_LISTS = NoteKind(
    "cell holds a list as JSON, and is read as a list of answers",
    "cells hold a list as JSON, and are read as a list of answers",
)


def with_lists(row: RowValue, faults: Faults, notes: Notes, where: str) -> RowValue:
    """The row with the lists and objects in its answers' cells read."""
    for key in _LIST_FIELDS:
        cell = row.get(key)
        if not isinstance(cell, str) or cell[:1] not in ("[", "{"):
            continue
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            if why := python_literal(cell):
                faults.add(Reason.BAD_JSON, f"{key} is {show(cell)}, {why}")
            continue
        texts = value if isinstance(value, list) else []
        # Numbers in brackets may be an answer as it stands; a list of texts is a list.
        if key == "answers" or (texts and all(isinstance(text, str) for text in texts)):
            row = {**row, key: value}
            notes.add(_LISTS, where, f"{key} {show(cell)}", "nothing needs to be done")
    return row


def note_words(row: RowValue, notes: Notes, where: str) -> None:
    """Count cells whose only text stands for nothing elsewhere."""
    if _NOTHING.isdisjoint(value for value in row.values() if isinstance(value, str)):
        return
    for key, cell in row.items():
        if isinstance(cell, str) and cell in _NOTHING:
            outcome = "leave a cell empty if there is no value"
            notes.add(_WORDS, where, f"{named(key)} is {cell}", outcome, is_warning=True)
