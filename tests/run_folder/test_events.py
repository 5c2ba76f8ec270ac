from __future__ import annotations

import io

import pytest

from loracle.run_folder.reporter import Reporter
from loracle.run_folder.views import PlainView
from loracle.text import duration
from tests.run_events import STARTED, STEP


def test_the_remaining_time_is_that_of_the_trials_own_steps_so_far() -> None:
    stream = io.StringIO()
    with Reporter(None, PlainView(stream)) as reporter:
        for index, seconds in ((1, (1.0, 3.0)), (2, (10.0, 20.0))):
            reporter.emit("trial_started", **(STARTED | {"index": index, "num_steps": 3}))
            for step, spent in enumerate(seconds, start=1):
                fields = {"step": step, "num_steps": 3, "seconds": spent}
                reporter.emit("step", **(STEP | fields))
    remaining = [line.partition("ETA ")[2] for line in stream.getvalue().splitlines()]
    assert [text for text in remaining if text] == ["2.0 s", "2.0 s", "20 s", "15 s"]


def test_a_step_that_took_no_time_has_no_rate() -> None:
    stream = io.StringIO()
    with Reporter(None, PlainView(stream)) as reporter:
        reporter.emit("step", **(STEP | {"seconds": 0.0}))
    assert "· – tokens/s · ETA 0.0 s" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.23, "4.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (80, "1 min 20 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_times_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
