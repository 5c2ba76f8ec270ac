"""Rows that are not rows: what a file holds in their place, and what to do about it.

{"train": [{...}, {...}]}                             rows under a key
{"1": {...}, "2": {...}}                              rows by their ids
{"role": "user", "content": "..."}                    a turn
{"question": ..., "distractor1": ..., ...}            choices under names of their own
"""

from __future__ import annotations

from loracle.data.faults import named
from loracle.data.reading.meanings import meaning_of
from loracle.data.reading.row_content import RowValue, is_blank

_MIN_CHOICE_COLUMNS = 2


def other_shape(row: RowValue) -> str | None:
    """What a row of no known form is, and what to do; None if that cannot be told."""
    under = next((key for key in row if _is_rows(row[key]) and meaning_of(key) is None), None)
    if under is not None:
        return f"the rows stand under {named(under)!r}: write them as lines, or as one list"
    if len(row) > 1 and all(isinstance(value, dict) and value for value in row.values()):
        return "it holds rows by their ids, or columns: write the rows as lines, or as one list"
    if {"role", "content"} <= row.keys() or {"from", "value"} <= row.keys():
        return (
            "this is a turn, and a row is a whole conversation: write its turns as "
            '{"messages": [...]}'
        )
    choices = [key for key in row if meaning_of(key) == "choices" and not is_blank(row[key])]
    if len(choices) >= _MIN_CHOICE_COLUMNS:
        return (
            f"for multiple choice, rename the columns of choices ({named(choices[0])}, "
            f"{named(choices[1])}, ...) to A, B, ..., and that of the right letter to answer"
        )
    if choices and isinstance(row[choices[0]], list | dict):
        options = f"options={named(choices[0])}"
        return f"for multiple choice: --format choice --column {options}"
    return None


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
