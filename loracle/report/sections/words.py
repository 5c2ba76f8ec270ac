"""What the page's sections share: candidates' colours and places, and quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loracle.decision.wording import short_name
from loracle.plan import BASE_NAME
from loracle.report.charts import NUM_COLOURS
from loracle.report.run_record import RunRecord

Said = tuple[str, str]
"""A text in English and in Chinese."""

BASE_SERIES = "base"


OVERALL: Said = ("All sets", "全部评测集")


def places_of(plan: Mapping[str, Any]) -> dict[str, int]:
    """The place of every candidate in the plan, from 0."""
    return {entry["name"]: index for index, entry in enumerate(plan["candidates"])}


def series_of(name: str, places: Mapping[str, int]) -> str:
    """The CSS class of a candidate's colour; the base has its own grey."""
    return BASE_SERIES if name == BASE_NAME else str(places[name] % NUM_COLOURS)


def short_names(record: RunRecord) -> dict[str, str]:
    """What is shown for every name on the page: long ones are cut in the middle.

    Names of candidates, trials, evaluation sets and candidates' files.
    """
    plan = record.plan
    candidates = [entry["name"] for entry in plan["candidates"]]
    files = [Path(entry["path"]).name for entry in plan["candidates"]]
    shown: dict[str, str] = {}
    for names in (files, list(record.evaluations), candidates):
        shown |= {name: short_name(name, names) for name in names}
    for trial in record.trials:
        seed = trial.label.removeprefix(trial.candidate)
        shown[trial.label] = f"{shown.get(trial.candidate, trial.candidate)}{seed}"
    return shown


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed (nearest rank)."""
    if not values:
        return None
    rank = -int(-share * len(values) // 1)
    return sorted(values)[max(rank, 1) - 1]
