"""What every container gives: rows with their places, and the faults of what is no row."""

from __future__ import annotations

from typing import NamedTuple

from loracle.data.faults import Fault

MAX_ROW_BYTES = 16 * 2**20
"""A row may have this many bytes, over four million tokens; a larger one is refused. With it the
memory that reading takes is bounded, however large the file is."""


class Row(NamedTuple):
    """A row of a file.

    line: where it starts, from 1; the row's number in files without lines.
    value: a JSON value, or None where `faults` says why there is none.
    question_lines: of a row in SQuAD's nested form, where each of its questions starts.
    is_cells: whether it is a row of CSV or TSV, whose values are all text.
    """

    file: str
    line: int
    value: object
    faults: tuple[Fault, ...] = ()
    question_lines: tuple[int, ...] = ()
    is_cells: bool = False
