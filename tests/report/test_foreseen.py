"""Predicted next to measured: every trial and the base, whatever became of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from loracle.forecast.machines import named_machine
from loracle.forecast.record import CandidateForecast, ForecastRecord, write_forecast
from loracle.report.run_record import read_run
from loracle.report.sections.foreseen import foreseen
from loracle.text import NOTHING
from tests.forecast.test_forecast import forecast
from tests.report.runs import Shape, make_run


def test_every_trial_and_the_base_stand_with_predicted_and_measured_time(tmp_path: Path) -> None:
    quality = {"base": 0.2, "clean": 0.8, "noisy": 0.3, "broken": 0.5}
    shape = Shape(quality, num_questions=10, seeds=(0, 1), failed=("broken",))
    run = make_run(tmp_path / "demo", shape)
    (run / "trials/noisy--s1/DONE").unlink()
    candidates = tuple(
        CandidateForecast(name, 12, 900, 700, 60.0, 30.0, 10**9)
        for name in ("clean", "noisy", "broken")
    )
    made = dataclasses.replace(
        forecast(named_machine("h100", None, 1)), candidates=candidates, base_answering_seconds=40.0
    )
    write_forecast(run, ForecastRecord("f", made).with_measured(10**9, 100.0))
    rows = {row["what"][0]: row for row in foreseen(read_run(run))["rows"]}
    trials = [
        f"{name} (seed {seed}): {part}" if name != "base" else "base: answering"
        for name in ("base", "clean", "noisy", "broken")
        for seed in (0, 1)
        for part in ("training", "answering")
    ]
    assert list(rows)[-1] == "Peak memory"
    assert len(rows) == len(set(trials)) + 1
    measured = {name: row["measured"] != NOTHING for name, row in rows.items()}
    assert all(row["predicted"] != NOTHING for row in rows.values())
    assert [name for name, known in measured.items() if not known and "broken" not in name] == [
        name for name in rows if name.startswith("noisy") and "1" in name
    ]
    assert not any(known for name, known in measured.items() if "broken" in name)
