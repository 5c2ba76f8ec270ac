"""One half of an experiment, for a program that already has the model: only training, or only
answering.

Both read, check, render, train and answer as a whole experiment does, into a run folder; they
leave out results.json and report.html, which need both halves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from loracle.decision.evidence import read_evidence
from loracle.decision.judge import judge, judgement_record
from loracle.errors import TrialError
from loracle.experiment.attempt import take_up_trial
from loracle.experiment.planned import Planned, announce_data, read_planned
from loracle.experiment.preparing import Prepared, prepare_planned
from loracle.experiment.trial import Place, TrialModel, run_base, run_trial
from loracle.files import read_json_lines
from loracle.model import own_layers
from loracle.model.base import BaseModel
from loracle.plan import Plan
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter, View
from loracle.run_folder.trial_record import TrainingOutcome, TrialSummary
from loracle.trackers import listen
from loracle.trackers.client import Experiment


@dataclass(frozen=True)
class Trained:
    """One finished training."""

    model: Any
    """The PeftModel on the caller's base; it owns its adapter."""
    outcome: TrainingOutcome
    steps: list[dict[str, Any]]
    """The rows of steps.jsonl."""
    adapter: Path
    """Where it was saved; gone with a run folder that was not kept."""
    is_forest: bool
    """Whether shared prefixes were computed once; otherwise the batches were padded."""
    self_test: str
    """The self-test's result."""


@dataclass(frozen=True)
class Answered:
    """Every evaluation set of a plan, answered by one model."""

    has_adapter: bool
    """Whether an adapter answered, and not the base."""
    summary: TrialSummary
    predictions: dict[str, list[dict[str, Any]]]
    """By evaluation set, the rows of predictions/NAME.jsonl."""
    scores: dict[str, list[dict[str, Any]]]
    """Row by row, theirs."""
    estimates: list[dict[str, Any]]
    """Mean scores with their intervals, as in results.json."""
    batch_size: int
    """Questions answered together."""


def train_alone(
    plan: Plan, model: Any, tokenizer: Any, view: View, place: Place, out: str | Path | None
) -> Trained:
    """Train on the plan's only candidate with its only seed; or reuse what an earlier call
    finished.

    Args:
        model: The base, or a PeftModel; its adapter is taken off first.
        place: The training's name and its position among others, for messages.
        out: The run folder. None: one that is removed.

    Raises:
        UserError: the plan, the data, the model or the run folder cannot be used.
        TrialError: the training failed. After any error the model is unchanged.
    """
    with ExitStack() as stack:
        root = Path(out or stack.enter_context(TemporaryDirectory()))
        with own_layers.bared(model) as base, own_layers.as_it_was(base):
            frozen = own_layers.frozen(base, tokenizer)
            with _opened(plan, root, view, frozen) as run:
                summary = _trained(run, plan, place)
        assert summary.training is not None, "a trial has a seed"
        folder = run.folder.trial(summary.candidate, plan.seeds[0])
        return Trained(
            model=own_layers.put_on(base, folder.adapter),
            outcome=summary.training,
            steps=read_json_lines(folder.steps).rows,
            adapter=folder.adapter,
            is_forest=run.prepared.setup.training.forest,
            self_test=run.prepared.self_test.detail,
        )


def answer_alone(plan: Plan, model: Any, tokenizer: Any, view: View, name: str) -> Answered:
    """Answer and score the plan's evaluation sets with the current model.

    model: the base, which answers with the adapter that is on it, if one is; or a PeftModel, which
    answers with its own. name: the model's name in messages.

    Raises:
        UserError: the plan, the data or the model cannot be used.
    """
    base = own_layers.base_of(own_layers.ready(model))
    adapted = base if own_layers.has_adapter(base) else None
    with TemporaryDirectory() as out, own_layers.as_it_was(base):
        with _opened(plan, Path(out), view, own_layers.frozen(base, tokenizer)) as run:
            asked = TrialModel(name, adapted, run.folder.base)
            summary = run_base(run.prepared.setup, asked)
        folder, sets = run.folder.base, summary.evaluations
        return Answered(
            has_adapter=adapted is not None,
            summary=summary,
            predictions={one: read_json_lines(folder.predictions(one)).rows for one in sets},
            scores={one: read_json_lines(folder.scores(one)).rows for one in sets},
            estimates=judgement_record(judge(read_evidence(run.folder.root)))["estimates"],
            batch_size=run.prepared.setup.generation.batch_size,
        )


def _trained(run: _Run, plan: Plan, place: Place) -> TrialSummary:
    setup = run.prepared.setup
    (candidate,), (seed,) = plan.candidates, plan.seeds
    if reason := run.prepared.refusals.get(candidate.name):
        raise TrialError(reason)
    folder = run.folder.trial(candidate.name, seed)
    if folder.verify(setup.plan_fingerprint) is None:
        reason = "already finished, hashes match"
        run.report.emit("trial_skipped", **asdict(place), reason=reason)
        return folder.summary()
    take_up_trial(setup, folder, place.trial)
    started = time.perf_counter()
    training_set = run.prepared.training_sets[candidate.name]
    summary = run_trial(setup, training_set, seed, folder, place)
    seconds = time.perf_counter() - started
    run.report.emit("trial_finished", **asdict(place), seconds=seconds)
    return summary


class _Run(NamedTuple):
    planned: Planned
    prepared: Prepared
    folder: RunFolder
    report: Reporter


@contextmanager
def _opened(plan: Plan, out: Path, view: View, base: BaseModel) -> Iterator[_Run]:
    planned = read_planned(plan, out, base)
    fingerprint = planned.data.plan_fingerprint
    tracked = Experiment(out.absolute().name, out.absolute(), fingerprint)
    listeners = listen(plan.trackers, tracked, planned.frozen)
    with (
        RunFolder.open(out, planned.frozen, fingerprint) as folder,
        Reporter(folder, view, listeners) as report,
    ):
        announce_data(planned, report)
        yield _Run(planned, prepare_planned(planned, folder, report, base), folder, report)
