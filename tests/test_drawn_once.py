"""Reports of the tests: charts of one shape share a picture, others do not."""

from __future__ import annotations

from loracle.report.charts import NARROW, LineRow, PointRow, estimates_chart, loss_chart
from tests.drawn_once import charts_drawn_once, every_chart_drawn

ONE = [PointRow("a", 0, "0.5", 0.5, 0.4, 0.6)]
TWO = [*ONE, PointRow("another", 1, "0.7", 0.7, 0.6, 0.8)]
BASE = [PointRow("base", None, "0.1", 0.1, None, None)]


def test_charts_of_one_shape_are_drawn_once() -> None:
    with charts_drawn_once():
        first = estimates_chart(ONE)
        assert estimates_chart(TWO) == first
        assert estimates_chart(BASE) != first
        assert estimates_chart(TWO, width=NARROW) != first
        assert loss_chart([LineRow("a", 0, [1, 2], [2.0, 1.0])]) != first
        with every_chart_drawn():
            assert estimates_chart(TWO) != first
    assert estimates_chart(TWO) != first
