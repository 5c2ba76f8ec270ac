"""A table for the terminal that fits its width: names give way, figures are never cut.

If not all columns fit inside borders, the borders go; then names lose their middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from loracle.text import cell_width, shortened

DEFAULT_WIDTH = 100
"""Columns of a terminal whose width is unknown."""
_MOST_NAME_COLUMNS = 32
_LEAST_NAME_COLUMNS = 10
# A name with less room than this gets the space between the columns as well.
_SCARCE_NAME_COLUMNS = 20
_BORDER_COLUMNS = 3


class Column(NamedTuple):
    """header: its lines. is_name: the column that gives way; its first line is a name."""

    header: str
    is_number: bool = True
    is_name: bool = False


class Row(NamedTuple):
    """One row's cells, and its style."""

    cells: Sequence[str]
    style: str = ""


def terminal_table(
    title: str, caption: str, columns: Sequence[Column], rows: Sequence[Row], width: int
) -> Table:
    """The table, for a terminal of `width` columns."""
    needed = [_needed(column, place, rows) for place, column in enumerate(columns)]
    names = next(place for place, column in enumerate(columns) if column.is_name)
    if sum(needed) + _BORDER_COLUMNS * len(columns) + 1 <= width:
        table = Table(title=Text(title), caption=Text(caption))
    else:
        others = sum(needed) - needed[names]
        gap = 2 if width - others - 2 * (len(columns) - 1) >= _SCARCE_NAME_COLUMNS else 1
        room = width - others - gap * (len(columns) - 1)
        needed[names] = max(min(needed[names], room), _LEAST_NAME_COLUMNS)
        table = Table(
            title=Text(title),
            caption=Text(caption),
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            # One column between two of them is the box's own.
            padding=(0, gap - 1, 0, 0),
        )
    for column, column_width in zip(columns, needed, strict=True):
        table.add_column(
            Text(column.header),
            justify="right" if column.is_number else "left",
            overflow="fold",
            min_width=column_width,
            # Under a name more may stand, such as why it failed: it is broken into lines.
            no_wrap=not column.is_name,
        )
    for row in rows:
        cells = list(row.cells)
        cells[names] = _fitted(cells[names], needed[names])
        table.add_row(*map(Text, cells), style=row.style)
    return table


def _needed(column: Column, place: int, rows: Sequence[Row]) -> int:
    """Columns for the widest line; of a name's cell only the first line counts."""
    cells = [row.cells[place].split("\n") for row in rows]
    lines = [line for cell in cells for line in (cell[:1] if column.is_name else cell)]
    widest = max(map(cell_width, (*lines, *column.header.split("\n"))))
    return min(widest, _MOST_NAME_COLUMNS) if column.is_name else widest


def _fitted(cell: str, width: int) -> str:
    name, *rest = cell.split("\n")
    return "\n".join([shortened(name, width), *rest])
