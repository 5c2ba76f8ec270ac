"""The plan as a run takes it: checked, its data read, frozen over its files. Nothing is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from loracle import metrics
from loracle.data.following import Reached, tell
from loracle.data.hubs.fetching import fetch_plan
from loracle.data.reading.locations import deciding_files
from loracle.data.reading.options import options_of
from loracle.data.workers import beside
from loracle.data_check.cached import RunData, refuse_unreadable
from loracle.data_check.datasets import read_plan_data
from loracle.errors import PlanError, RunFolderError, UserError
from loracle.experiment.attempt import places
from loracle.experiment.setup import NLL_METRIC, Place, given_base_facts, tokenizing_of
from loracle.experiment.unchanged import metric_names
from loracle.model.adapter import lora_config
from loracle.model.base import BaseModel, require_local_folder
from loracle.plan import EMBEDDED, EntryKey, Plan, fingerprint, freeze, recorded_commits
from loracle.plan.locations import parse_model
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.naming import default_run_folder
from loracle.run_folder.reporter import Reporter
from loracle.trackers import check_trackers


class Planned(NamedTuple):
    """The plan, frozen, and the data it names, read."""

    data: RunData
    lora: Any
    frozen: dict[str, Any]
    model_commit: str | None
    root: Path

    @property
    def trials(self) -> list[tuple[int, int, Place]]:
        """By candidate and seed: the candidate's index, the seed, the trial's position in the
        run."""
        plan = self.data.plan
        return places([candidate.name for candidate in plan.candidates], plan.seeds)

    def sharing(self, num_replicas: int) -> Planned:
        """The same, with the number of processes that share a training. It decides no result."""
        training = self.data.plan.training.model_copy(update={"data_parallel": num_replicas})
        plan = self.data.plan.model_copy(update={"training": training})
        return self._replace(data=dataclasses.replace(self.data, plan=plan))


def read_planned(plan: Plan, out: Path | None, base: BaseModel | None) -> Planned:
    """Find all problems that can be found without a model, read the data, and freeze the plan with
    it."""
    lora = check_plan(plan)
    check_trackers(plan.trackers)
    if base is None and plan.model.name != EMBEDDED and parse_model(plan.model.name) is None:
        require_local_folder(plan.model.name)
    fetched = fetch_plan(plan, *_recorded_commits(plan, out), with_model=base is None)
    with beside() as workers:
        datasets, holdout = read_plan_data(fetched.pinned(plan), workers)
    tell(Reached("read", "", 0, 0, 0))
    refuse_unreadable(datasets)
    model_commit = fetched.model.commit if fetched.model else None
    frozen = freeze(
        plan,
        lambda entry: deciding_files(entry.path, options_of(entry)),
        fetched.data,
        model_commit,
        holdout.file if holdout else None,
        metrics.module_hashes(metric_names(plan)),
    )
    if base is not None:
        frozen["model"] |= given_base_facts(base)
    plan_fingerprint = fingerprint(frozen)
    names = [candidate.name for candidate in plan.candidates]
    root = out if out is not None else default_run_folder(plan_fingerprint, names)
    model_folder = fetched.model.folder if fetched.model else None
    tokenizing = tokenizing_of(base) if base is not None else None
    data = RunData(plan, plan_fingerprint, datasets, holdout, model_folder, tokenizing)
    return Planned(data, lora, frozen, model_commit, root)


def announce(planned: Planned, report: Reporter) -> None:
    """Report what is about to run."""
    report.emit(
        "run_started",
        run=str(planned.root),
        num_trials=len(planned.trials),
        candidates=[candidate.name for candidate in planned.data.plan.candidates],
    )
    announce_data(planned, report)


def announce_data(planned: Planned, report: Reporter) -> None:
    """Report how each file was read."""
    for dataset in planned.data.datasets:
        report.emit("dataset_read", name=dataset.name, description=dataset.description)


def _recorded_commits(plan: Plan, out: Path | None) -> tuple[dict[EntryKey, str], str | None]:
    """The commits in the run folder's plan, if there is one to resume."""
    if out is None or not RunFolder(out).plan.is_file():
        return {}, None
    try:
        return recorded_commits(RunFolder(out).frozen_plan(), plan)
    # Damaged: once the plan is frozen, the folder is opened and repaired if possible.
    except RunFolderError:
        return {}, None


def check_plan(plan: Plan) -> Any:
    """Check what the plan's schema cannot: metric names and LoRA fields.

    Returns the peft.LoraConfig. Raises PlanError with all problems.
    """
    problems: list[str] = []
    names = metric_names(plan)
    for name in dict.fromkeys(names):
        try:
            metrics.check_usable(name)
        except UserError as error:
            problems += error.problems
    if NLL_METRIC in names or plan.generation.answer_nll:
        if plan.generation.do_sample:
            problems.append(f"{NLL_METRIC} cannot be computed with generation.do_sample: true")
        if plan.generation.num_beams > 1:
            problems.append(f"{NLL_METRIC} cannot be computed with generation.num_beams above 1")
    try:
        config = lora_config(plan.lora.model_dump())
    except PlanError as error:
        problems += error.problems
    if problems:
        raise PlanError(problems)
    return config
