"""Whether the answers of a dataset that are numbers can be places counted from 0.

    {"question": ..., "choices": ["4", "9", "11", "15"], "answer": 4}

One row cannot tell where counting starts, the whole dataset often can: a number equal to the number
of choices, and no 0 in any row, is counted from 1, and every other row would be read one too far.
"""

from __future__ import annotations

from loracle.data.reading.notes import Note
from loracle.data.reading.row_content import AnswerPlace

MIN_ROWS_WITHOUT_ZERO = 20
"""In so many rows an answer at the first of four places is missing by chance in 0.3 % of sets."""


class AnswerPlaces:
    """Grows with the rows of a reading."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._num_at_zero = 0
        self._num_past = 0
        self._first = ""
        self._first_past = ""

    def add(self, place: AnswerPlace | None, where: str) -> None:
        """Count the answer of a row, if it is a number."""
        if place is None:
            return
        self._num_rows += 1
        self._num_at_zero += place.number == 0
        self._num_past += place.number == place.num_choices
        self._first = self._first or where
        if place.number == place.num_choices:
            self._first_past = self._first_past or where

    def take(self, later: AnswerPlaces) -> None:
        """Count what was counted of the rows that follow."""
        self._num_rows += later._num_rows
        self._num_at_zero += later._num_at_zero
        self._num_past += later._num_past
        self._first = self._first or later._first
        self._first_past = self._first_past or later._first_past

    @property
    def problems(self) -> list[str]:
        """What the user must change before the rows can be used, in words."""
        if not 0 < self._num_past < self._num_rows or self._num_at_zero:
            return []
        return [
            f"{self._first_past}: the answers seem to be counted from 1: in {self._num_past:,} of "
            f"{self._num_rows:,} rows the answer is the number of choices, and in none it is 0, "
            "but a number is read as a place counted from 0; write the letter, or the choices as "
            'an object with their numbers, {"1": ..., "2": ...}'
        ]

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is doubtful, but may be right."""
        if self._num_at_zero or self._num_past or self._num_rows < MIN_ROWS_WITHOUT_ZERO:
            return ()
        found = f"{self._num_rows:,} answers that are numbers, none of them 0 ({self._first})"
        outcome = "they are read as places counted from 0; if they count from 1, write letters"
        return (Note(found, outcome, is_warning=True),)
