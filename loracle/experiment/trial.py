"""One trial: train a fresh adapter on one candidate, answer every evaluation set, score, finish.

TRIAL/steps.jsonl · adapter/ · predictions/EVAL.jsonl · scores/EVAL.jsonl · trial.json · DONE
"""

from __future__ import annotations

import time

from loracle.errors import TrialError
from loracle.experiment.answering import TrialModel, evaluate
from loracle.experiment.learning import require_as_trained, trained_adapter
from loracle.experiment.setup import ExperimentSetup, Place, TrainingSet
from loracle.model import adapter
from loracle.model.base import base_fingerprint
from loracle.model.peak_memory import peak_bytes, start_peak
from loracle.plan import BASE_NAME
from loracle.run_folder.folder import TrialFolder
from loracle.run_folder.trial_record import TrialSummary

__all__ = ["Place", "TrialModel", "require_unchanged", "run_base", "run_trial"]


def run_trial(
    setup: ExperimentSetup, training_set: TrainingSet, seed: int, folder: TrialFolder, place: Place
) -> TrialSummary:
    """Train, evaluate, write DONE. Returns the content of trial.json.

    Raises:
        TrialError: it failed while running; the base is still unchanged.
    """
    device_type = setup.base.device.type
    is_counted = start_peak(device_type)
    try:
        trained = trained_adapter(setup, training_set, seed, folder, place)
        with adapter.loaded(setup.base.model, folder.adapter) as adapted:
            require_as_trained(setup, trained, folder, adapted)
            started = time.perf_counter()
            evaluations = evaluate(setup, TrialModel(place.trial, adapted, folder))
            seconds = time.perf_counter() - started
    except TrialError:
        # If the base was changed, that is the reason for whatever else went wrong.
        require_unchanged(setup)
        raise
    require_unchanged(setup)
    peak = peak_bytes(device_type) if is_counted else None
    summary = TrialSummary(training_set.name, seed, trained.outcome, evaluations, seconds, peak)
    folder.finish(summary, plan_fingerprint=setup.plan_fingerprint)
    return summary


def run_base(setup: ExperimentSetup, model: TrialModel) -> TrialSummary:
    """Evaluate the unchanged base, and write DONE."""
    device_type = setup.base.device.type
    is_counted = start_peak(device_type)
    started = time.perf_counter()
    evaluations = evaluate(setup, model)
    seconds = time.perf_counter() - started
    peak = peak_bytes(device_type) if is_counted else None
    summary = TrialSummary(BASE_NAME, None, None, evaluations, seconds, peak)
    model.folder.finish(summary, plan_fingerprint=setup.plan_fingerprint)
    return summary


def require_unchanged(setup: ExperimentSetup) -> None:
    """Raise TrialError if the base's weights are no longer those at the start of the experiment."""
    found = base_fingerprint(setup.base.model)
    if found != setup.base_fingerprint:
        raise TrialError(
            "the base's weights changed during this trial "
            f"(fingerprint {setup.base_fingerprint[:12]} became {found[:12]}); "
            "neither it nor a later trial can be trusted; load the model again, and look for a "
            "LoRA setting that changes the base (init_lora_weights)"
        )
