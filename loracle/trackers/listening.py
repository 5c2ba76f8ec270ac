"""From the events of a run to a tracker's runs.

base_started · trial_started            -> a run starts, with its config
step                                    -> log
scored                                  -> kept for the end
base_finished · trial_finished/_failed  -> the run ends, with its scores
decided, run_finished                   -> one more run, `decision`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loracle.plan import BASE_NAME
from loracle.run_folder.events import STEP_RECORD_FIELDS
from loracle.trackers.client import Config, TrackedRun, Tracker, speaking_to_stderr

DECISION_RUN = "decision"
# The fields of the step event that are worth plotting.
_STEP_VALUES = tuple(name for name in STEP_RECORD_FIELDS if name != "step")


class TrackerListener:
    """Follows a run's events and forwards them to a tracker. Trials may overlap."""

    def __init__(self, name: str, tracker: Tracker, frozen_plan: Mapping[str, Any]) -> None:
        self.name = f"tracker {name}"
        self._tracker = tracker
        self._plan = frozen_plan
        self._runs: dict[str, TrackedRun] = {}
        self._scores: dict[str, dict[str, float]] = {}
        self._decisions: dict[str, str] = {}

    def hear(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Handle one event. Raises whatever the tracker's client raises."""
        with speaking_to_stderr():
            self._take(kind, fields)

    def close(self) -> None:
        """End, as failed, any runs left open because the run was stopped."""
        with speaking_to_stderr():
            for trial in list(self._runs):
                self._finish(trial, {"status": "stopped"}, failed=True)

    def _take(self, kind: str, fields: Mapping[str, Any]) -> None:
        match kind:
            case "base_started":
                self._start(BASE_NAME, {})
            case "trial_started":
                self._start(fields["trial"], fields)
            case "step":
                self._runs[fields["trial"]].log(_step_values(fields), fields["step"])
            case "scored":
                self._scores.setdefault(fields["trial"], {}).update(
                    (f"eval/{fields['evaluation']}/{metric}", mean)
                    for metric, mean in fields["means"].items()
                )
            case "base_finished":
                self._finish(BASE_NAME, {}, failed=False)
            case "trial_finished":
                self._finish(fields["trial"], {}, failed=False)
            # A refused trial was never started.
            case "trial_failed" if fields["trial"] in self._runs:
                self._finish(fields["trial"], {"reason": fields["reason"]}, failed=True)
            case "decided":
                # The first covers all sets, or is that of the only set.
                first = not self._decisions
                key = DECISION_RUN if first else f"{DECISION_RUN}/{fields['evaluation']}"
                self._decisions[key] = fields["sentence"]
            case "run_finished":
                run = self._tracker.start(DECISION_RUN, flat(self._plan))
                run.finish({}, self._decisions, failed=False)

    def _start(self, trial: str, fields: Mapping[str, Any]) -> None:
        plan = {key: value for key, value in self._plan.items() if key != "candidates"}
        known = {key: fields[key] for key in ("seed", "num_examples", "num_steps") if fields}
        if fields:
            candidates = {entry["name"]: entry for entry in self._plan["candidates"]}
            known["candidate"] = candidates[fields["candidate"]]
        self._scores[trial] = {}
        self._runs[trial] = self._tracker.start(trial, flat(plan | known))

    def _finish(self, trial: str, texts: Mapping[str, str], *, failed: bool) -> None:
        self._runs.pop(trial).finish(self._scores.pop(trial), texts, failed=failed)


def _step_values(fields: Mapping[str, Any]) -> dict[str, float]:
    values = {f"train/{key}": fields[key] for key in _STEP_VALUES}
    if fields["seconds"] > 0:
        values["train/tokens_per_second"] = fields["tokens_read"] / fields["seconds"]
    return values


def flat(values: Mapping[str, Any], prefix: str = "") -> Config:
    """Nested values under flat names: {"lora": {"r": 8}} -> {"lora.r": 8}.

    Lists and null become JSON text, which every tracker can show.
    """
    found: dict[str, str | int | float | bool] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float):
            found[f"{prefix}{key}"] = value
        else:
            found[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False)
    return found
