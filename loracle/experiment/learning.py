"""Train one adapter, starting where an earlier attempt stopped, and save it.

checkpoint/    where a stopped training resumes
steps.jsonl    one line per step; truncated to the checkpoint's step on resuming
adapter/       written after the last step
training.json  written last: the training's cost and outcome, and the adapter's hashes
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from typing import Any, NamedTuple

from torch import Tensor

from loracle.errors import RunFolderError, TrialError
from loracle.experiment.setup import ExperimentSetup, Place, TrainingSet
from loracle.files import (
    JsonLinesWriter,
    read_json,
    read_json_lines,
    sha256,
    sync_file,
    write_json,
)
from loracle.model import adapter
from loracle.model.guards import (
    probe_logits,
    require_change,
    require_no_change,
    require_same_adapter,
)
from loracle.model.native_memory import return_freed_memory
from loracle.model.tokenizer import chat_template_sha256
from loracle.run_folder.folder import TrialFolder
from loracle.run_folder.leftovers import keep_first_rows
from loracle.run_folder.trial_record import TrainingOutcome
from loracle.training.budget import MemoryEvent
from loracle.training.checkpoint import Checkpoint, CheckpointFolder
from loracle.training.loop import (
    Following,
    StepRecord,
    TrainingSettings,
    num_steps_planned,
    train,
)

_RECORD_VERSION = 1
_PROBE_TOKENS = 16


class Trained(NamedTuple):
    """A finished training. logits: of the probe, if it finished in this process."""

    outcome: TrainingOutcome
    probe_ids: list[int]
    logits: Tensor | None


def trained_adapter(
    setup: ExperimentSetup, training_set: TrainingSet, seed: int, folder: TrialFolder, place: Place
) -> Trained:
    """Train a fresh adapter and save it; or reuse the one that an earlier attempt finished.

    Raises:
        TrialError: the training failed, or changed nothing.
    """
    probe_ids = training_set.sequences.token_ids[: training_set.sequences.offsets[1]].tolist()
    probe_ids = probe_ids[:_PROBE_TOKENS]
    finished = _finished_before(folder)
    if finished is not None:
        # The attempt may have stopped before removing them.
        shutil.rmtree(folder.checkpoint, ignore_errors=True)
        return Trained(finished, probe_ids, None)
    for path in (folder.adapter, folder.root / "predictions", folder.root / "scores"):
        shutil.rmtree(path, ignore_errors=True)
    base, num_sequences = setup.base, training_set.sequences.num_sequences
    untrained = probe_logits(base, None, probe_ids)
    with adapter.attached(base.model, setup.lora_config, seed) as adapted:
        initial_fingerprint = adapter.adapter_fingerprint(adapted)
        require_no_change(untrained, probe_logits(base, adapted, probe_ids))
        settings = dataclasses.replace(setup.training, seed=seed)
        training = _Training(setup, training_set, settings, folder, place)
        steps, seconds = training.run(adapted)
        return_freed_memory()
        final_fingerprint = adapter.adapter_fingerprint(adapted)
        logits = probe_logits(base, adapted, probe_ids)
        if final_fingerprint == initial_fingerprint:
            raise TrialError("training changed no weight of the adapter; is the learning rate 0?")
        require_change(untrained, logits)
        adapter.save(adapted, folder.adapter, _facts(setup))
    outcome = TrainingOutcome(
        num_examples=num_sequences,
        num_supervised_tokens=training_set.num_supervised_tokens,
        num_steps=len(steps),
        num_tokens_read=sum(step.tokens_read for step in steps),
        num_tokens_computed=sum(step.tokens_computed for step in steps),
        seconds=seconds,
        final_loss=steps[-1].loss,
        initial_adapter_fingerprint=initial_fingerprint,
        adapter_fingerprint=final_fingerprint,
    )
    _record(folder, outcome)
    training.checkpoints.remove()
    return Trained(outcome, probe_ids, logits)


def require_as_trained(
    setup: ExperimentSetup, trained: Trained, folder: TrialFolder, adapted: Any
) -> None:
    """Raise TrialError unless the loaded adapter is the one that was trained."""
    fingerprint = trained.outcome.adapter_fingerprint
    require_same_adapter(
        setup.base, adapted, fingerprint, trained.probe_ids, trained.logits, folder.adapter
    )
    facts = adapter.saved_facts(folder.adapter)
    for name, value in _facts(setup).items():
        if facts.get(name) != value:
            raise TrialError(
                f"{folder.adapter} was trained with a different {name} ({facts.get(name)}) from "
                f"the one used to answer ({value}); run the trial again in another run folder"
            )


class _Training:
    """The steps of one training, including those of earlier attempts."""

    def __init__(
        self,
        setup: ExperimentSetup,
        training_set: TrainingSet,
        settings: TrainingSettings,
        folder: TrialFolder,
        place: Place,
    ) -> None:
        self._setup, self._training_set, self._settings = setup, training_set, settings
        self._folder, self._place = folder, place
        self._num_steps = num_steps_planned(training_set.sequences, training_set.groups, settings)
        identity = {
            "plan_fingerprint": setup.plan_fingerprint,
            "base_fingerprint": setup.base_fingerprint,
            "candidate": training_set.name,
            "seed": settings.seed,
            "num_steps": self._num_steps,
        }
        self.checkpoints = CheckpointFolder(folder.checkpoint, identity, self._warn)
        self.checkpoints.before_write = lambda: sync_file(folder.steps)

    def run(self, adapted: Any) -> tuple[list[StepRecord], float]:
        """Run the remaining steps; returns all steps, and the seconds they took."""
        setup, training_set = self._setup, self._training_set
        setup.reporter.emit(
            "trial_started",
            **dataclasses.asdict(self._place),
            candidate=training_set.name,
            seed=self._settings.seed,
            num_examples=training_set.sequences.num_sequences,
            num_steps=self._num_steps,
        )
        started = time.perf_counter()
        checkpoint, steps = self._taken_before()
        with JsonLinesWriter(self._folder.steps, resume=True) as writer:

            def on_step(record: StepRecord) -> None:
                row = dataclasses.asdict(record)
                writer.write(row)
                steps.append(record)
                place = {"trial": self._place.trial, "num_steps": self._num_steps}
                setup.reporter.emit("step", **place, **row)

            following = Following(on_step, self._on_memory, self.checkpoints, checkpoint)
            train(setup.base, adapted, training_set, self._settings, following, setup.replicas)
        before = checkpoint.progress.seconds if checkpoint else 0.0
        return steps, before + time.perf_counter() - started

    def _taken_before(self) -> tuple[Checkpoint | None, list[StepRecord]]:
        """The checkpoint to resume from and the steps up to it; steps.jsonl contains no others."""
        path = self._folder.steps
        checkpoint = self.checkpoints.newest()
        num_steps = checkpoint.progress.step if checkpoint else 0
        try:
            rows = read_json_lines(path, allow_torn_end=True).rows if path.exists() else []
            steps = [StepRecord(**row) for row in rows[:num_steps]]
        except (RunFolderError, TypeError) as error:
            self._warn(f"{path} is damaged ({error})")
            steps = []
        if len(steps) < num_steps:
            self._warn(f"{path} lacks steps that the checkpoint has; training starts over")
            checkpoint, steps = None, []
        if path.exists():
            keep_first_rows(path, len(steps))
        if checkpoint is not None:
            place = {"trial": self._place.trial, "num_steps": self._num_steps}
            self._setup.reporter.emit("trial_resumed", **place, step=len(steps))
        return checkpoint, steps

    def _on_memory(self, event: MemoryEvent) -> None:
        self._warn(
            f"out of memory at step {event.step}; doing the step again in micro-batches of "
            f"{event.budget_tokens} tokens (the batch stays the same)"
        )

    def _warn(self, message: str) -> None:
        self._setup.reporter.emit("warning", message=f"{self._place.trial}: {message}")


def _facts(setup: ExperimentSetup) -> dict[str, str]:
    """What an adapter needs to answer correctly: it is only valid with exactly these."""
    return {
        "base_fingerprint": setup.base_fingerprint,
        "chat_template_sha256": chat_template_sha256(setup.base.tokenizer),
    }


def _record(folder: TrialFolder, outcome: TrainingOutcome) -> None:
    files = {path.name: sha256(path) for path in sorted(folder.adapter.iterdir())}
    record = {"version": _RECORD_VERSION, "outcome": dataclasses.asdict(outcome), "files": files}
    write_json(folder.root / "training.json", record)


def _finished_before(folder: TrialFolder) -> TrainingOutcome | None:
    """The outcome of a training whose saved adapter exists; None if there is none."""
    try:
        record = read_json(folder.root / "training.json")
        if record["version"] != _RECORD_VERSION:
            return None
        for name, expected in record["files"].items():
            if sha256(folder.adapter / name) != expected:
                return None
        return TrainingOutcome(**record["outcome"])
    except (RunFolderError, OSError, KeyError, TypeError, AttributeError):
        return None
