"""Charts as SVG text to embed in a page, without scripts, fonts or addresses.

Colours are CSS variables of the page (`var(--ink)`), so a chart follows its light and dark theme.
Words are in the page, in its two languages; a chart holds only numbers and names of candidates,
which vl-convert escapes: hence `Markup`. Altair describes a chart (Vega-Lite), vl-convert draws
it (drawing.py), both without a browser. A chart that cannot be drawn is an `Undrawn`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from markupsafe import Markup

from loracle.report.drawing import UndrawnError, draw
from loracle.text import cell_width, shortened

if TYPE_CHECKING:
    import altair

WIDE = 900
"""Width of a chart in pixels, for a screen."""
NARROW = 342
"""For a phone of 390 pixels, less the page's margins."""
_ROW_HEIGHT = 34
_LINE_HEIGHT = 280
_Y_AXIS_WIDTH = 60
MAX_LINE_POINTS = 300
_NUM_STEP_TICKS = 8
_FONT_SIZE = 12
_PADDING = {"left": 2, "right": 16, "top": 14, "bottom": 2}
_CHARACTER_WIDTH = 7.2
_MAX_LABEL_WIDTH = 26
_MAX_NARROW_LABEL_WIDTH = 15
# Beyond these, the colours repeat with dashes.
NUM_COLOURS = 8
_DASHES = ([1, 0], [6, 3], [2, 2])
CHECKED = False
"""Let Altair hold every part of a chart against Vega-Lite's schema: most of its time. Tests do."""
_P = ParamSpec("_P")
_R = TypeVar("_R")
_SIZE = re.compile(r'^<svg([^>]*?) width="[^"]*" height="[^"]*"')


class Undrawn(NamedTuple):
    """Shown in place of a chart that could not be drawn."""

    reason: str


class PointRow(NamedTuple):
    """One candidate of the plot of estimates, in the axis' unit; the interval may be unknown."""

    label: str
    series: int | None
    """The candidate's place in the plan, which gives its colour; None is the base."""
    shown: str
    """The mean as text."""
    mean: float
    low: float | None
    high: float | None


class SizeRow(NamedTuple):
    """One candidate of the plot of scores against rows of training data."""

    series: int
    num_rows: int
    mean: float
    low: float | None
    high: float | None


class LineRow(NamedTuple):
    """One training's loss, by optimizer step."""

    label: str
    series: int
    steps: Sequence[int]
    values: Sequence[float]


def colour(series: int | None) -> str:
    """The CSS variable of a candidate's colour."""
    return "var(--base)" if series is None else f"var(--c{series % NUM_COLOURS})"


def _checked_or_not(build: Callable[_P, _R]) -> Callable[_P, _R]:
    """Build a chart without Altair's checks of every part, unless CHECKED."""

    @wraps(build)
    def built(*arguments: _P.args, **named: _P.kwargs) -> _R:
        from altair.utils import schemapi

        with schemapi.debug_mode(CHECKED):
            return build(*arguments, **named)

    return built


@_checked_or_not
def estimates_chart(
    rows: Sequence[PointRow], ends: tuple[float, float] | None = None, width: int = WIDE
) -> Markup | Undrawn:
    """Every mean with its interval, one line each in the given order; the base's as a rule.

    ends: of the axis, so that several charts share it; None: those of the rows.
    """
    import altair as alt

    most_columns = _MAX_LABEL_WIDTH if width == WIDE else _MAX_NARROW_LABEL_WIDTH
    labels = {str(place): shortened(row.label, most_columns) for place, row in enumerate(rows)}
    # The page's font may be wider than the one vl-convert measures with.
    extent = 14 + _CHARACTER_WIDTH * max(map(cell_width, labels.values()))
    axis = alt.Axis(
        ticks=False,
        domain=False,
        minExtent=extent,
        maxExtent=extent,
        labelLimit=0,
        # Labels by position: two candidates may shorten to the same label.
        labelExpr=f"({json.dumps(labels)})[datum.value]",
    )
    data = [
        {**row._asdict(), "colour": colour(row.series), "place": str(place)}
        for place, row in enumerate(rows)
    ]
    x = alt.X(
        "mean:Q",
        title=None,
        scale=_scale(ends, padding=14),
        axis=alt.Axis(tickCount=8 if width == WIDE else 4),
    )
    y = alt.Y("place:N", title=None, sort=list(labels), axis=axis)
    fill = alt.Color("colour:N", scale=None)
    layers = [
        alt.Chart(_data([row for row in data if row["series"] is None]))
        .mark_rule(stroke="var(--base)", strokeDash=[3, 3])
        .encode(x=x),
        alt.Chart(_data([row for row in data if row["low"] is not None]))
        .mark_rule(strokeWidth=4, strokeCap="round", opacity=0.45)
        .encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=fill),
        alt.Chart(_data(data)).mark_circle(size=90, opacity=1).encode(x=x, y=y, color=fill),
        alt.Chart(_data(data))
        .mark_text(dy=-12, fontSize=_FONT_SIZE, fill="var(--ink)")
        .encode(x=x, y=y, text="shown:N"),
    ]
    inner = width - int(extent)
    return _svg(alt.layer(*layers).properties(width=inner, height=_ROW_HEIGHT * len(rows)))


def _scale(ends: tuple[float, float] | None, padding: int) -> altair.Scale:
    import altair as alt

    if ends is None or ends[0] == ends[1]:
        return alt.Scale(zero=False, padding=padding)
    return alt.Scale(domain=list(ends), zero=False, nice=False, padding=padding)


@_checked_or_not
def sizes_chart(rows: Sequence[SizeRow], base: float | None, width: int = WIDE) -> Markup | Undrawn:
    """Every candidate's score with its interval against its rows; the base's as a dashed rule."""
    import altair as alt

    data = [{**row._asdict(), "colour": colour(row.series)} for row in rows]
    x = alt.X(
        "num_rows:Q",
        title=None,
        scale=alt.Scale(zero=False, padding=24, nice=False),
        axis=alt.Axis(tickCount=8 if width == WIDE else 4, tickMinStep=1, format=",d", grid=False),
    )
    y = alt.Y("mean:Q", title=None, scale=alt.Scale(zero=False, padding=14))
    fill = alt.Color("colour:N", scale=None)
    layers = [
        alt.Chart(_data([] if base is None else [{"mean": base}]))
        .mark_rule(stroke="var(--base)", strokeDash=[3, 3])
        .encode(y=y),
        alt.Chart(_data([row for row in data if row["low"] is not None]))
        .mark_rule(strokeWidth=4, strokeCap="round", opacity=0.45)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=fill),
        alt.Chart(_data(data)).mark_circle(size=90, opacity=1).encode(x=x, y=y, color=fill),
    ]
    chart = alt.layer(*layers).properties(width=width - _Y_AXIS_WIDTH, height=_LINE_HEIGHT)
    return _svg(chart)


@_checked_or_not
def loss_chart(lines: Sequence[LineRow], width: int = WIDE) -> Markup | Undrawn:
    """The loss of every training by step. Long ones are shown by means of equal spans."""
    import altair as alt

    data = [
        {
            "line": index,
            "step": step,
            "loss": value,
            "colour": colour(line.series),
            "dash": line.series // NUM_COLOURS % len(_DASHES),
        }
        for index, line in enumerate(lines)
        for step, value in zip(*thinned(line.steps, line.values), strict=True)
    ]
    last_step = max((int(line.steps[-1]) for line in lines if len(line.steps)), default=1)
    few = last_step <= _NUM_STEP_TICKS
    steps = alt.Axis(
        values=list(range(1, last_step + 1)) if few else alt.Undefined,
        tickMinStep=1,
        tickCount=_NUM_STEP_TICKS if width == WIDE else _NUM_STEP_TICKS // 2,
        format=",d",
        grid=False,
    )
    chart = (
        alt.Chart(_data(data))
        .mark_line(strokeWidth=1.75, interpolate="linear")
        .encode(
            x=alt.X("step:Q", title=None, axis=steps),
            y=alt.Y("loss:Q", title=None, axis=alt.Axis(tickCount=5)),
            color=alt.Color("colour:N", scale=None),
            strokeDash=alt.StrokeDash(
                "dash:N",
                legend=None,
                scale=alt.Scale(domain=list(range(len(_DASHES))), range=list(_DASHES)),
            ),
            detail="line:N",
        )
        .properties(width=width - _Y_AXIS_WIDTH, height=_LINE_HEIGHT)
    )
    return _svg(chart)


def thinned(
    steps: Sequence[int], values: Sequence[float], max_points: int = MAX_LINE_POINTS
) -> tuple[list[float], list[float]]:
    """At most `max_points` points: the means of equally many neighbouring steps each."""
    span = -(-len(steps) // max_points) or 1
    starts = range(0, len(steps), span)
    return (
        [_mean(steps[start : start + span]) for start in starts],
        [_mean(values[start : start + span]) for start in starts],
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _data(rows: Sequence[Mapping[str, Any]]) -> altair.InlineData:
    import altair as alt

    return alt.InlineData(values=[dict(row) for row in rows])


def _svg(chart: altair.Chart | altair.LayerChart | altair.FacetChart) -> Markup | Undrawn:
    import altair as alt

    # In one call: each makes a copy of the whole chart.
    configured = chart.configure(
        aria=False,
        background="transparent",
        padding=_PADDING,
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelColor="var(--soft)",
            labelFontSize=_FONT_SIZE,
            labelFlush=False,
            gridColor="var(--line)",
            tickColor="var(--line-2)",
            domainColor="var(--line-2)",
        ),
        axisY=alt.AxisConfig(labelColor="var(--ink)", labelPadding=10),
    )
    try:
        svg = draw(configured.to_json(validate=CHECKED))
    except UndrawnError as error:
        return Undrawn(str(error))
    # The page sets the size; the viewBox keeps the proportions.
    return Markup(_SIZE.sub(r"<svg\1", svg))
