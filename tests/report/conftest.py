"""Every chart of these tests is drawn, and Altair holds each against Vega-Lite's schema."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loracle.report import charts
from tests.drawn_once import every_chart_drawn


@pytest.fixture(scope="package", autouse=True)
def _charts_are_checked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, every_chart_drawn():
        patch.setattr(charts, "CHECKED", True)
        yield
