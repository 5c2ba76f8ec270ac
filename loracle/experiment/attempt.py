"""Attempts: skip a finished, intact trial, resume an unfinished one, record a failure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from loracle.errors import LoracleError, ReplicaError, StorageError
from loracle.experiment.setup import ExperimentSetup, TrainingSet
from loracle.experiment.trial import Place, TrialModel, run_base, run_trial
from loracle.files import read_json_lines
from loracle.model.tokenizer import chat_template_sha256
from loracle.plan import BASE_NAME
from loracle.run_folder.folder import TrialFolder
from loracle.run_folder.leftovers import take_up
from loracle.run_folder.trial_record import TrialSummary
from loracle.safety.secrecy import without_secrets
from loracle.text import counted, duration

# Pauses before each new attempt at a trial whose files were refused, or whose replicas were lost.
_PAUSES_SECONDS = (1.0, 10.0)


class Outcome(NamedTuple):
    """How a trial ended: its summary, or why there is none. The base has no seed."""

    candidate: str
    seed: int | None
    summary: TrialSummary | None
    reason: str | None


def attempt_base(setup: ExperimentSetup, folder: TrialFolder) -> Outcome:
    """Evaluate the untrained base. If it cannot be evaluated, the run aborts."""
    if folder.verify(setup.plan_fingerprint) is None:
        return _finished_before(setup, folder, BASE_NAME, BASE_NAME, None)
    take_up_trial(setup, folder, BASE_NAME)
    setup.reporter.emit("base_started")
    started = time.perf_counter()
    summary = run_base(setup, TrialModel(BASE_NAME, None, folder))
    setup.reporter.emit("base_finished", seconds=time.perf_counter() - started)
    return Outcome(BASE_NAME, None, summary, None)


def attempt_trial(
    setup: ExperimentSetup, training_set: TrainingSet, seed: int, folder: TrialFolder, place: Place
) -> Outcome:
    """Run one trial unless it is finished. A failure is recorded as its outcome; the others still
    run."""
    if folder.verify(setup.plan_fingerprint) is None:
        setup.reporter.emit(
            "trial_skipped", **asdict(place), reason="already finished, hashes match"
        )
        return _finished_before(setup, folder, place.trial, training_set.name, seed)
    started = time.perf_counter()
    try:
        summary = _tried(setup, training_set, seed, folder, place)
    # No error from a model, a driver or a disk may stop the other trials.
    except Exception as error:  # noqa: BLE001
        known = isinstance(error, LoracleError)
        # An error from a client or library may contain an address with its password.
        reason = without_secrets(str(error) if known else f"{type(error).__name__}: {error}")
        _record_failure(setup, folder, place, reason)
        return Outcome(training_set.name, seed, None, reason)
    seconds = time.perf_counter() - started
    setup.reporter.emit("trial_finished", **asdict(place), seconds=seconds)
    return Outcome(training_set.name, seed, summary, None)


def _tried(
    setup: ExperimentSetup, training_set: TrainingSet, seed: int, folder: TrialFolder, place: Place
) -> TrialSummary:
    """Run the trial; repeat it with the same seed if a disk temporarily refused a file, or if
    a process that shared in its training was lost: it resumes from its checkpoint."""
    for pause in _PAUSES_SECONDS:
        take_up_trial(setup, folder, place.trial)
        try:
            return run_trial(setup, training_set, seed, folder, place)
        except (ReplicaError, StorageError) as error:
            if isinstance(error, StorageError) and not error.is_passing:
                raise
            message = f"{place.trial}: {error}; trying again in {duration(pause)}"
            setup.reporter.emit("warning", message=message)
            time.sleep(pause)
    take_up_trial(setup, folder, place.trial)
    return run_trial(setup, training_set, seed, folder, place)


def _record_failure(setup: ExperimentSetup, folder: TrialFolder, place: Place, reason: str) -> None:
    """Record why the trial failed. A disk that refuses even this is the matter of this trial."""
    try:
        folder.fail(reason)
    except StorageError as error:
        message = f"{place.trial}: its failure is in the logs and the results only: {error}"
        setup.reporter.emit("warning", message=message)
    setup.reporter.emit("trial_failed", **asdict(place), reason=reason)


def refuse_trial(
    setup: ExperimentSetup,
    candidate: str,
    seed: int,
    folder: TrialFolder,
    place: Place,
    reason: str,
) -> Outcome:
    """Record that a candidate must not be used for training, and why. The others still run."""
    _clear(setup, folder, place.trial)
    _record_failure(setup, folder, place, reason)
    return Outcome(candidate, seed, None, reason)


def places(names: Sequence[str], seeds: Sequence[int]) -> list[tuple[int, int, Place]]:
    """(candidate's index, seed, place) of every trial, in the order they run."""
    order = [(index, seed) for seed in seeds for index in range(len(names))]
    labels = [
        names[index] if len(seeds) == 1 else f"{names[index]}--s{seed}" for index, seed in order
    ]
    return [
        (index, seed, Place(label, number, len(order)))
        for number, ((index, seed), label) in enumerate(zip(order, labels, strict=True), 1)
    ]


def _finished_before(
    setup: ExperimentSetup, folder: TrialFolder, trial: str, candidate: str, seed: int | None
) -> Outcome:
    """Load a finished trial from its files, with its answers as drafts for the next ones."""
    summary = folder.summary()
    for evaluation in setup.evaluations:
        rows = read_json_lines(folder.predictions(evaluation.name)).rows
        answers = [tuple(row["token_ids"]) for row in rows]
        setup.drafts.add(evaluation.name, trial, answers)
        setup.drafts.note(summary.evaluations[evaluation.name].drafts)
    return Outcome(candidate, seed, summary, None)


def take_up_trial(setup: ExperimentSetup, folder: TrialFolder, trial: str) -> None:
    """Keep what an unfinished attempt left, if it was made under the same conditions."""
    conditions = {
        "base model": setup.base_fingerprint,
        "chat template": chat_template_sha256(setup.base.tokenizer),
    }
    if reason := take_up(folder, setup.plan_fingerprint, conditions):
        setup.reporter.emit("warning", message=f"{trial}: {reason}")


def _clear(setup: ExperimentSetup, folder: TrialFolder, trial: str) -> None:
    reason = folder.verify(setup.plan_fingerprint)
    removed = folder.clear()
    if removed:
        message = f"{trial}: {reason}; starting over ({counted(len(removed), 'file')} removed)"
        setup.reporter.emit("warning", message=message)
