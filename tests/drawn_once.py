"""Charts of one shape are drawn once in a process of pytest; the next ones get the same picture.

Every run writes a report of six charts, each 35 ms of the renderer, and only tests/report/ looks
at them. So every kind of chart still passes through the renderer, and what it cannot draw shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from loracle.report import drawing

_draw = drawing._Child.draw
# What follows from the rows and the names of candidates.
_OF_THE_DATA = {
    *("labelExpr", "minExtent", "maxExtent", "width", "height", "domain", "sort", "name"),
}


def shape(chart: Any) -> Any:
    """A chart in Vega-Lite without its rows and what follows from them; fields keep their types."""
    if isinstance(chart, dict):
        return {
            key: _fields(value) if key == "datasets" else shape(value)
            for key, value in chart.items()
            if key not in _OF_THE_DATA
        }
    return [shape(part) for part in chart] if isinstance(chart, list) else chart


def _fields(datasets: dict[str, list[dict[str, Any]]]) -> list[Any]:
    """The fields of all rows of a chart with their types."""
    rows = [row for rows in datasets.values() for row in rows]
    return sorted({(key, type(value).__name__) for row in rows for key, value in row.items()})


@contextmanager
def charts_drawn_once() -> Iterator[None]:
    """Inside, a renderer draws the first chart of every shape, and answers the others with it."""
    drawn: dict[str, str] = {}

    def once(child: drawing._Child, vega_lite: str) -> str:
        key = json.dumps(shape(json.loads(vega_lite)), sort_keys=True)
        if key not in drawn:
            drawn[key] = _draw(child, vega_lite)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing._Child, "draw", once)
        yield


@contextmanager
def every_chart_drawn() -> Iterator[None]:
    """Inside, every chart is drawn, also within `charts_drawn_once`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing._Child, "draw", _draw)
        yield
