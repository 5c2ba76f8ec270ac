"""One half of an experiment, for a program that already has the model: only training, or only
answering.

Both read, check, render, train and answer as a whole experiment does, into a run folder; they
leave out results.json and report.html, which need both halves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from loracle.decision.evidence import read_evidence
from loracle.decision.judge import judge, judgement_record
from loracle.errors import TrialError
from loracle.experiment.attempt import take_up_trial
from loracle.experiment.run import (
    Planned,
    Prepared,
    announce_data,
    prepare_planned,
    read_planned,
)
from loracle.experiment.trial import Place, TrialModel, run_base, run_trial
from loracle.model.base import BaseModel
from loracle.plan import Plan
from loracle.run_folder.folder import RunFolder, TrialFolder
from loracle.run_folder.reporter import Reporter, View
from loracle.run_folder.trial_record import TrainingOutcome, TrialSummary


@dataclass(frozen=True)
class Trained:
    """One finished training."""

    outcome: TrainingOutcome
    folder: TrialFolder
    """The folder with its adapter and its steps."""
    is_forest: bool
    """Whether shared prefixes were computed once; otherwise the batches were padded."""
    self_test: str
    """The self-test's result."""


@dataclass(frozen=True)
class Answered:
    """Every evaluation set of a plan, answered by one model."""

    summary: TrialSummary
    folder: TrialFolder
    """The folder with its predictions and scores."""
    estimates: list[dict[str, Any]]
    """Mean scores with their intervals, as in results.json."""


def train_alone(plan: Plan, out: Path, view: View, base: BaseModel, place: Place) -> Trained:
    """Train on the plan's only candidate with its only seed; or reuse what an earlier call
    finished.

    place: its name and its position among others, for messages.

    Raises:
        UserError: the plan, the data, the model or the run folder cannot be used.
        TrialError: the training failed; the base is unchanged.
    """
    with _opened(plan, out, view, base) as run:
        setup = run.prepared.setup
        (candidate,), (seed,) = plan.candidates, plan.seeds
        if reason := run.prepared.refusals.get(candidate.name):
            raise TrialError(reason)
        folder = run.folder.trial(candidate.name, seed)
        if folder.verify(setup.plan_fingerprint) is None:
            reason = "already finished, hashes match"
            run.report.emit("trial_skipped", **asdict(place), reason=reason)
            summary = folder.summary()
        else:
            take_up_trial(setup, folder, place.trial)
            started = time.perf_counter()
            training_set = run.prepared.training_sets[candidate.name]
            summary = run_trial(setup, training_set, seed, folder, place)
            seconds = time.perf_counter() - started
            run.report.emit("trial_finished", **asdict(place), seconds=seconds)
        assert summary.training is not None, "a trial has a seed"
        self_test = run.prepared.self_test.detail
        return Trained(summary.training, folder, setup.training.forest, self_test)


def answer_alone(
    plan: Plan, out: Path, view: View, base: BaseModel, adapted: Any | None, name: str
) -> Answered:
    """Answer and score the plan's evaluation sets with the current model.

    adapted: the module with the base's adapter; None if there is none.
    name: the model's name in messages.

    Raises:
        UserError: the plan, the data, the model or the run folder cannot be used.
    """
    with _opened(plan, out, view, base) as run:
        model = TrialModel(name, adapted, run.folder.base)
        summary = run_base(run.prepared.setup, model)
        record = judgement_record(judge(read_evidence(run.folder.root)))
        return Answered(summary, run.folder.base, record["estimates"])


class _Run(NamedTuple):
    planned: Planned
    prepared: Prepared
    folder: RunFolder
    report: Reporter


@contextmanager
def _opened(plan: Plan, out: Path, view: View, base: BaseModel) -> Iterator[_Run]:
    planned = read_planned(plan, out, base)
    with (
        RunFolder.open(out, planned.frozen, planned.data.plan_fingerprint) as folder,
        Reporter(folder, view) as report,
    ):
        announce_data(planned, report)
        yield _Run(planned, prepare_planned(planned, folder, report, base), folder, report)
