"""The whole experiment: read, check, load, evaluate the base, run every trial, write the results.

All problems with the plan, the data or the run folder are found before a model is loaded, and are
shown together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loracle import metrics
from loracle.data.clusters import kinds_of
from loracle.data.holdout import HELD_OUT_FILE, Holdout
from loracle.decision.evidence import read_evidence
from loracle.decision.judge import judge, judgement_record
from loracle.errors import PlanError
from loracle.executors.placement import Left, address_of
from loracle.experiment.attempt import Outcome
from loracle.experiment.executing import Ahead, Workplace, started_ahead, workplace
from loracle.experiment.foreseeing import note_measured
from loracle.experiment.planned import Planned, announce, read_planned
from loracle.experiment.preparing import BaseFacts
from loracle.experiment.selection import Selection, left_alone
from loracle.experiment.setup import Rendered
from loracle.experiment.space import TrialSize, require_disk, warn_of_memory
from loracle.experiment.unchanged import keep_inputs
from loracle.experiment.workload import Workload
from loracle.model.base import BaseModel
from loracle.model.placement import chosen_device
from loracle.model.quantization import PACKED_SHARE
from loracle.plan import BASE_NAME, Plan
from loracle.report.page import write_report
from loracle.report.results import EvaluationFacts, ModelFacts, ResultRow, RunFacts, build_results
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.local_copies import url_of_copy
from loracle.run_folder.questions import keep_questions
from loracle.run_folder.reporter import Reporter, View
from loracle.run_folder.trial_record import TrialSummary
from loracle.safety.secrecy import without_secrets
from loracle.trackers import listen
from loracle.trackers.client import Experiment
from loracle.training.optimizers import moment_bytes


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
    with started_ahead(plan, base) as ahead:
        return _run(plan, out, view, base, selection, ahead)


def _run(
    plan: Plan,
    out: Path | None,
    view: View,
    base: BaseModel | None,
    selection: Selection,
    ahead: Ahead,
) -> dict[str, Any]:
    planned = read_planned(plan, out, base)
    _refuse_cluster(plan, planned.root)
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
        left = _left_alone(planned, folder, selection)
        unfinished = _unfinished(planned, folder, left)
        with workplace(planned, folder, report, base, unfinished, ahead) as place:
            for evaluation in place.rendered.evaluations:
                keep_questions(folder, evaluation.name, evaluation.examples)
            work = Workload(planned, folder, place.rendered)
            require_disk(_trial_size(plan, place, work), folder, unfinished.num_trials, report)
            _announce_work(work, report)
            outcomes = _attempt_all(planned, folder, left, place)
            peak_memory_bytes = place.peak_memory_bytes()
        results = _results(planned, place, outcomes)
        folder.write_json(folder.results, results)
        _announce_decisions(results, report)
        note_measured(folder, peak_memory_bytes, time.perf_counter() - started)
        report_path = _write_report(folder, report)
        report.emit(
            "run_finished",
            run=str(root),
            num_failed=results["num_failed"],
            seconds=time.perf_counter() - started,
            report=report_path and str(root / report_path.name),
        )
    return results


def _refuse_cluster(plan: Plan, root: Path) -> None:
    """Raise PlanError if machines of a cluster would have to see a copy that only this one has."""
    address = address_of(plan.ray.address, os.environ.get("RAY_ADDRESS"))
    if address is not None and (url := url_of_copy(root)) is not None:
        raise PlanError(
            f"{without_secrets(url)}: a run folder at a URL works with the devices of one machine, "
            f"and ray.address is {address}; give a folder that all machines share, or "
            "`ray.address: local`"
        )


def _keep_held_out(holdout: Holdout | None, folder: RunFolder) -> None:
    if holdout is not None:
        folder.write(folder.root / HELD_OUT_FILE, holdout.content)


def _announce_work(work: Workload, report: Reporter) -> None:
    """Report all the planned work, for estimates of the remaining time."""
    report.emit("work_planned", num_steps=work.num_steps, num_questions=work.num_questions)


def _left_alone(planned: Planned, folder: RunFolder, selection: Selection) -> dict[str, Outcome]:
    """The outcomes of the trials that this start does not run."""
    names = [candidate.name for candidate in planned.data.plan.candidates]
    plan_fingerprint = planned.data.plan_fingerprint
    return {
        place.trial: left_alone(names[index], seed, trial_folder, plan_fingerprint)
        for index, seed, place in planned.trials
        if selection.leaves(names[index], trial_folder := folder.trial(names[index], seed))
    }


def _unfinished(planned: Planned, folder: RunFolder, left: Mapping[str, Outcome]) -> Left:
    """What this start has to do."""
    names = [candidate.name for candidate in planned.data.plan.candidates]
    folders = [
        folder.trial(names[index], seed)
        for index, seed, place in planned.trials
        if place.trial not in left
    ]
    num_trainings = sum(not trial.done.exists() for trial in folders)
    return Left(num_trainings + (not folder.base.done.exists()), num_trainings)


def _attempt_all(
    planned: Planned, folder: RunFolder, left: Mapping[str, Outcome], place: Workplace
) -> list[Outcome]:
    """The base's outcome, then that of every trial."""
    names = [candidate.name for candidate in planned.data.plan.candidates]
    wanted = [p.trial for _, _, p in planned.trials if p.trial not in left]
    reasons = {}
    for ended in place.run([BASE_NAME, *wanted]):
        folder.require_own()
        reasons[ended.trial] = ended.reason

    def outcome(index: int, seed: int, trial: str) -> Outcome:
        if trial in left:
            return left[trial]
        name, reason = names[index], reasons[trial]
        summary = folder.trial(name, seed).summary() if reason is None else None
        return Outcome(name, seed, summary, reason)

    base = Outcome(BASE_NAME, None, folder.base.summary(), None)
    return [base, *(outcome(index, seed, p.trial) for index, seed, p in planned.trials)]


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


def _trial_size(plan: Plan, place: Workplace, work: Workload) -> TrialSize:
    return TrialSize(
        place.base.num_adapter_parameters,
        work.num_questions,
        plan.generation.max_new_tokens,
        place.num_at_once,
        moment_bytes(plan.training.optimizer, [place.base.num_adapter_parameters]),
    )


def _results(planned: Planned, place: Workplace, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    plan, root = planned.data.plan, planned.root
    base_summary = outcomes[0].summary
    assert base_summary is not None, "the base's failure ends the run"
    facts = RunFacts(
        run=str(root),
        plan_fingerprint=planned.data.plan_fingerprint,
        model=_model_facts(planned, place.base),
        evaluations=_evaluation_facts(planned.data.holdout, place.rendered, base_summary),
        decision_metric=plan.decision.metric,
        higher_is_better=metrics.get_metric(plan.decision.metric).higher_is_better,
    )
    rows = [_row(outcome) for outcome in outcomes]
    return build_results(facts, rows, judgement_record(judge(read_evidence(root))))


def _model_facts(planned: Planned, base: BaseFacts) -> ModelFacts:
    plan = planned.data.plan
    return ModelFacts(
        name=base.name,
        revision=planned.model_commit or plan.model.revision,
        dtype=base.dtype,
        quantization=base.quantization,
        num_parameters=base.num_parameters,
        base_fingerprint=base.fingerprint,
        batching="forest" if base.forest else "padded",
        batching_reason=_batching_reason(plan, base.self_test),
        attention=base.attention,
        attention_replaced=list(base.attention_replaced),
    )


def _evaluation_facts(
    holdout: Holdout | None, rendered: Rendered, base_summary: TrialSummary
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
        for evaluation in rendered.evaluations
    ]


def _batching_reason(plan: Plan, self_test: str) -> str:
    asked = "" if plan.training.batching == "auto" else f"batching: {plan.training.batching}; "
    return asked + self_test


def _row(outcome: Outcome) -> ResultRow:
    if outcome.summary is not None:
        return ResultRow.of(outcome.summary)
    return ResultRow(outcome.candidate, outcome.seed, "failed", outcome.reason)
