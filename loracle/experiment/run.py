"""The whole experiment: read, check, load, evaluate the base, run every trial, write the results.

All problems with the plan, the data or the run folder are found before a model is loaded, and are
shown together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from loracle import metrics
from loracle.data.clusters import kinds_of
from loracle.data.holdout import HELD_OUT_FILE, Holdout
from loracle.data.hubs.fetching import fetch_plan
from loracle.data.reading.locations import deciding_files
from loracle.data.reading.options import options_of
from loracle.data_check.cached import RunData, check_run, refuse_unreadable
from loracle.data_check.datasets import read_plan_data
from loracle.decision.evidence import read_evidence
from loracle.decision.judge import judge, judgement_record
from loracle.errors import PlanError, RunFolderError, UserError
from loracle.experiment.attempt import Outcome, attempt_base, attempt_trial, places, refuse_trial
from loracle.experiment.foreseeing import note_measured, settled
from loracle.experiment.selection import Selection, left_alone
from loracle.experiment.setup import (
    NLL_METRIC,
    ExperimentSetup,
    TrainingSet,
    given_base_facts,
    load_model,
    prepare,
    tokenizing_of,
)
from loracle.experiment.space import require_disk, warn_of_memory
from loracle.experiment.trial import Place
from loracle.experiment.unchanged import keep_inputs, metric_names
from loracle.model.adapter import lora_config
from loracle.model.base import BaseModel, require_local_folder
from loracle.model.placement import chosen_device
from loracle.model.quantization import PACKED_SHARE
from loracle.model.self_test import SelfTest
from loracle.plan import EMBEDDED, EntryKey, Plan, fingerprint, freeze, recorded_commits
from loracle.plan.locations import parse_model
from loracle.report.page import write_report
from loracle.report.results import EvaluationFacts, ModelFacts, ResultRow, RunFacts, build_results
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.naming import default_run_folder
from loracle.run_folder.questions import keep_questions
from loracle.run_folder.reporter import Reporter, View
from loracle.run_folder.trial_record import TrialSummary
from loracle.trackers import check_trackers, listen
from loracle.trackers.client import Experiment
from loracle.training.loop import num_steps_planned


def run(
    plan: Plan,
    out: Path | None,
    view: View,
    base: BaseModel | None = None,
    selection: Selection = Selection(),  # noqa: B008
) -> dict[str, Any]:
    """Run the experiment, or resume it; returns the content of results.json.

    out: the run folder; None puts it under `runs/`, named by date and candidates; the same plan
    finds it again.
    base: a model that is already loaded, instead of the plan's. The frozen plan then contains its
    fingerprint and its tokenizer's, and the run resumes when the same ones are given again.
    selection: which trials to run; without it all, including those that failed before.

    Raises:
        UserError: the plan, the data, the model or the run folder cannot be used.
    """
    planned = read_planned(plan, out, base)
    root, plan_fingerprint = planned.root, planned.data.plan_fingerprint
    tracked = Experiment(root.absolute().name, root.absolute(), plan_fingerprint)
    listeners = listen(plan.trackers, tracked, planned.frozen)
    with (
        RunFolder.open(root, planned.frozen, plan_fingerprint) as folder,
        Reporter(folder, view, listeners) as report,
    ):
        started = time.perf_counter()
        announce(planned, report)
        for repair in folder.repairs:
            report.emit("warning", message=repair)
        if base is None:
            source = keep_inputs(folder, planned.data.plan, planned.data.model_folder, report)
            device_type = chosen_device(plan.model.device).type
            share = PACKED_SHARE[plan.model.quantization]
            warn_of_memory(source, device_type, report, share)
        _keep_held_out(planned.data.holdout, folder)
        prepared = prepare_planned(planned, folder, report, base)
        _keep_questions(prepared.setup, folder)
        require_disk(prepared.setup, folder, _num_unfinished(planned, folder), report)
        _announce_work(planned, prepared, report)
        outcomes = _attempt_all(planned, prepared, folder, selection)
        results = _results(planned, prepared, outcomes)
        folder.write_json(folder.results, results)
        _announce_decisions(results, report)
        note_measured(folder, prepared.setup.base.device.type, time.perf_counter() - started)
        report_path = _write_report(folder, report)
        report.emit(
            "run_finished",
            run=str(root),
            num_failed=results["num_failed"],
            seconds=time.perf_counter() - started,
            report=report_path and str(root / report_path.name),
        )
    return results


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


class Prepared(NamedTuple):
    """The base model, loaded and tested, and its training data. refusals: by candidate, why it
    must not be used for training."""

    setup: ExperimentSetup
    training_sets: dict[str, TrainingSet]
    self_test: SelfTest
    refusals: Mapping[str, str]


def read_planned(plan: Plan, out: Path | None, base: BaseModel | None) -> Planned:
    """Find all problems that can be found without a model, read the data, and freeze the plan with
    it."""
    lora = check_plan(plan)
    check_trackers(plan.trackers)
    if base is None and plan.model.name != EMBEDDED and parse_model(plan.model.name) is None:
        require_local_folder(plan.model.name)
    fetched = fetch_plan(plan, *_recorded_commits(plan, out), with_model=base is None)
    datasets, holdout = read_plan_data(fetched.pinned(plan))
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


def _keep_held_out(holdout: Holdout | None, folder: RunFolder) -> None:
    if holdout is not None:
        folder.write(folder.root / HELD_OUT_FILE, holdout.content)


def prepare_planned(
    planned: Planned, folder: RunFolder, report: Reporter, base: BaseModel | None
) -> Prepared:
    """Check the data, load the model. Rows are lists only up to here: training gets them packed."""
    data = planned.data
    ready = check_run(data, folder, report)
    base = base or load_model(data.plan, data.model_folder)
    setup, training_sets, self_test = prepare(
        data.plan, ready, base, planned.lora, report, data.plan_fingerprint
    )
    setup = settled(data.plan, setup, training_sets, folder, report)
    return Prepared(setup, training_sets, self_test, ready.refusals)


def _keep_questions(setup: ExperimentSetup, folder: RunFolder) -> None:
    for evaluation in setup.evaluations:
        keep_questions(folder, evaluation.name, evaluation.examples)


def _announce_work(planned: Planned, prepared: Prepared, report: Reporter) -> None:
    """Report all the planned work, for estimates of the remaining time."""
    setup, candidates = prepared.setup, planned.data.plan.candidates
    sets = prepared.training_sets
    num_steps = {
        place.trial: num_steps_planned(
            sets[name].sequences, sets[name].groups, replace(setup.training, seed=seed)
        )
        for index, seed, place in planned.trials
        if (name := candidates[index].name) in sets
    }
    num_questions = sum(len(evaluation.examples) for evaluation in setup.evaluations)
    report.emit("work_planned", num_steps=num_steps, num_questions=num_questions)


def _num_unfinished(planned: Planned, folder: RunFolder) -> int:
    names = [candidate.name for candidate in planned.data.plan.candidates]
    folders = (folder.trial(names[index], seed) for index, seed, _ in planned.trials)
    return sum(not trial.done.exists() for trial in folders)


def _attempt_all(
    planned: Planned, prepared: Prepared, folder: RunFolder, selection: Selection
) -> list[Outcome]:
    """The base's outcome, then that of every trial."""
    setup, candidates = prepared.setup, planned.data.plan.candidates

    def attempt(trial: tuple[int, int, Place]) -> Outcome:
        index, seed, place = trial
        name = candidates[index].name
        trial_folder = folder.trial(name, seed)
        if selection.leaves(name, trial_folder):
            return left_alone(name, seed, trial_folder, planned.data.plan_fingerprint)
        if reason := prepared.refusals.get(name):
            return refuse_trial(setup, name, seed, trial_folder, place, reason)
        return attempt_trial(setup, prepared.training_sets[name], seed, trial_folder, place)

    return [attempt_base(setup, folder.base), *(attempt(trial) for trial in planned.trials)]


def _announce_decisions(results: Mapping[str, Any], report: Reporter) -> None:
    for decision in results["decisions"]:
        report.emit(
            "decided", evaluation=decision["evaluation"], sentence=decision["sentence"]["en"]
        )


def _write_report(folder: RunFolder, report: Reporter) -> Path | None:
    """Write report.html. The results are already saved, and are safe whatever happens here."""
    try:
        return write_report(folder.root)
    except Exception as error:  # noqa: BLE001
        report.emit(
            "warning",
            message=f"report.html was not written ({type(error).__name__}: {error}); "
            f"run `loracle report {folder.root}` to try again",
        )
        return None


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


def _results(planned: Planned, prepared: Prepared, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    plan, root = planned.data.plan, planned.root
    base_summary = outcomes[0].summary
    assert base_summary is not None, "the base's failure ends the run"
    facts = RunFacts(
        run=str(root),
        plan_fingerprint=prepared.setup.plan_fingerprint,
        model=_model_facts(planned, prepared),
        evaluations=_evaluation_facts(planned.data.holdout, prepared.setup, base_summary),
        decision_metric=plan.decision.metric,
        higher_is_better=metrics.get_metric(plan.decision.metric).higher_is_better,
    )
    rows = [_row(outcome) for outcome in outcomes]
    return build_results(facts, rows, judgement_record(judge(read_evidence(root))))


def _model_facts(planned: Planned, prepared: Prepared) -> ModelFacts:
    plan, setup = planned.data.plan, prepared.setup
    return ModelFacts(
        name=setup.base.name,
        revision=planned.model_commit or plan.model.revision,
        dtype=str(setup.base.dtype).removeprefix("torch."),
        quantization=setup.base.quantization,
        num_parameters=setup.base.num_parameters,
        base_fingerprint=setup.base_fingerprint,
        batching="forest" if setup.training.forest else "padded",
        batching_reason=_batching_reason(plan, prepared.self_test),
    )


def _evaluation_facts(
    holdout: Holdout | None, setup: ExperimentSetup, base_summary: TrialSummary
) -> list[EvaluationFacts]:
    return [
        EvaluationFacts(
            name=evaluation.name,
            num_examples=len(evaluation.examples),
            metrics=tuple(base_summary.evaluations[evaluation.name].means),
            tokenisation=base_summary.evaluations[evaluation.name].scripts,
            num_clusters=len(set(evaluation.clusters)),
            clusters_by=kinds_of(evaluation.clusters),
            held_out=holdout.num_held_out if holdout else None,
        )
        for evaluation in setup.evaluations
    ]


def _batching_reason(plan: Plan, self_test: SelfTest) -> str:
    asked = "" if plan.training.batching == "auto" else f"batching: {plan.training.batching}; "
    return asked + self_test.detail


def _row(outcome: Outcome) -> ResultRow:
    if outcome.summary is not None:
        return ResultRow.of(outcome.summary)
    return ResultRow(outcome.candidate, outcome.seed, "failed", outcome.reason)
