"""The worker of an experiment: runs trials by their names, in this process or in one of its own.

In a process of its own it starts from the run folder alone: the plan is read and frozen again, the
data checked against it, the base loaded. What it needs of the run itself it reads; what it writes
are its trials' folders and its events.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from loracle.errors import RunFolderError
from loracle.executors.event_files import EventFile
from loracle.executors.worker import WorkerPlace
from loracle.experiment.attempt import attempt_base, attempt_trial, refuse_trial
from loracle.experiment.planned import Planned, read_planned
from loracle.experiment.preparing import (
    BaseFacts,
    Prepared,
    prepare_planned,
    reporting_to,
    with_settings,
)
from loracle.experiment.setup import ProcessesOfOne
from loracle.forecast.record import FORECAST_NAME
from loracle.model.peak_memory import overall_peak_bytes
from loracle.plan import BASE_NAME, difference, plan_of
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter


class TrialRunner:
    """Runs trials with a base that is loaded."""

    def __init__(self, planned: Planned, prepared: Prepared, folder: RunFolder) -> None:
        self._prepared, self._folder = prepared, folder
        names = [candidate.name for candidate in planned.data.plan.candidates]
        self._trials = {
            place.trial: (names[index], seed, place) for index, seed, place in planned.trials
        }

    def facts(self) -> BaseFacts:
        return BaseFacts.of(self._prepared)

    def run(self, trial: str) -> str | None:
        """Make one trial, unless it is finished: why it failed, or None.

        Raises whatever keeps the base from being evaluated, which the run needs.
        """
        setup = self._prepared.setup
        if trial == BASE_NAME:
            attempt_base(setup, self._folder.base)
            return None
        name, seed, place = self._trials[trial]
        folder = self._folder.trial(name, seed)
        if reason := self._prepared.refusals.get(name):
            return refuse_trial(setup, name, seed, folder, place, reason).reason
        training_set = self._prepared.training_sets[name]
        return attempt_trial(setup, training_set, seed, folder, place).reason

    def peak_memory_bytes(self) -> int:
        return overall_peak_bytes(self._prepared.setup.base.device.type)

    def close(self) -> None:
        """End the processes that shared in its trainings."""
        if self._prepared.setup.replicas is not None:
            self._prepared.setup.replicas.close()


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker in a process of its own tells the driver.

    forecast: forecast.json as this worker would write it; None: the run has one, or there can be
    none. warnings: of its start.
    """

    base: BaseFacts
    forecast: bytes | None
    warnings: tuple[str, ...]


class RunWorker:
    """A worker in a process of its own."""

    def __init__(self, planned: Planned, folder: _WorkersView, place: WorkerPlace) -> None:
        self._planned, self._folder, self._place = planned, folder, place
        self._heard = _Warnings()
        self._runner: TrialRunner | None = None

    def facts(self) -> WorkerFacts:
        """Load the base. The driver has checked the data by then."""
        base = BaseFacts.of(self._prepared)
        return WorkerFacts(base, self._folder.forecast, tuple(self._heard.messages))

    @cached_property
    def _prepared(self) -> Prepared:
        report = Reporter(None, self._heard)
        # Torch has the cores of this slot, not all that there are.
        processes = ProcessesOfOne(num_threads=torch.get_num_threads())
        num_slots = self._place.num_slots
        prepared = prepare_planned(self._planned, self._folder, report, None, num_slots, processes)
        return _without_other_trials(prepared)

    def run(self, trial: str) -> str | None:
        if self._runner is None:
            # By now forecast.json is the first worker's: all take what it says.
            events = Reporter(None, EventFile(self._place.events))
            prepared = reporting_to(self._prepared, events)
            prepared = with_settings(
                self._planned, prepared, self._folder, events, self._place.num_slots
            )
            self._runner = TrialRunner(self._planned, prepared, self._folder)
        return self._runner.run(trial)

    def peak_memory_bytes(self) -> int:
        return overall_peak_bytes(self._prepared.setup.base.device.type)


def open_worker(place: WorkerPlace) -> RunWorker:
    """Make a worker from the run folder alone: its plan and data are read, no model is loaded.

    Raises:
        UserError: the data or Loracle here are not what the run began with.
    """
    folder = _WorkersView(place.root)
    frozen = folder.frozen_plan()
    # Trackers follow the driver.
    plan = plan_of(frozen).model_copy(update={"trackers": []})
    planned = read_planned(plan, place.root, None)
    if changes := difference(frozen, planned.frozen):
        raise RunFolderError(
            "a worker reads other data than the run started with; every machine must see the same "
            "files under the same paths. What differs:\n  " + "\n  ".join(changes)
        )
    return RunWorker(planned.sharing(place.num_replicas), folder, place)


def _without_other_trials(prepared: Prepared) -> Prepared:
    """Which trials are finished when one starts depends on time, so none takes others' answers."""
    setup = prepared.setup
    if setup.drafts_from != "all":
        return prepared
    return prepared._replace(setup=dataclasses.replace(setup, drafts_from="references"))


class _WorkersView(RunFolder):
    """A run folder as a worker may use it: the driver alone writes the files of the run itself."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.forecast: bytes | None = None

    def write(self, path: Path, content: bytes) -> None:
        if path.name != FORECAST_NAME:
            raise RunFolderError(
                f"a worker would write {path.name} again: it has another version of Loracle, or "
                "other rows, than the driver; install the same everywhere"
            )
        self.forecast = content


class _Warnings:
    """A view that keeps what is warned of."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        if kind == "warning":
            self.messages.append(fields["message"])

    def close(self) -> None:
        """Nothing is open."""
