"""trial.json: the outcome of one trial, or of the untrained base. DONE contains the same record.

    {"version": 1, "candidate": "clean", "seed": 0, "num_examples": 400, "num_steps": 75,
     "supervised_tokens": 9000, "tokens_read": 60000, "tokens_computed": 21000,
     "training_seconds": 41.2, "final_loss": 0.31, "initial_adapter_fingerprint": "9f...",
     "adapter_fingerprint": "2c...", "scores": {"test": {"f1": 0.61}},
     "scripts": {"test": {"spaced": 300}}, "finish_reasons": {"test": {"stop": 298, "length": 2}},
     "reading": {"test": {"num_with_reasoning": 0, ...}}, "drafts": {"test": {"base": [120, 80]}},
     "evaluation_seconds": 12.0, "peak_memory_bytes": 2100000000}

The base has no seed, and null for fields that only training has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from loracle.errors import RunFolderError
from loracle.files import read_json, write_json

TRIAL_VERSION = 1

_TRAINING_KEYS = {
    "num_examples": "num_examples",
    "num_supervised_tokens": "supervised_tokens",
    "num_steps": "num_steps",
    "num_tokens_read": "tokens_read",
    "num_tokens_computed": "tokens_computed",
    "seconds": "training_seconds",
    "final_loss": "final_loss",
    "initial_adapter_fingerprint": "initial_adapter_fingerprint",
    "adapter_fingerprint": "adapter_fingerprint",
}
"""The fields of a TrainingOutcome, and their keys in the file."""


class DraftUse(NamedTuple):
    """How many tokens of one source were proposed as drafts, and how many were accepted."""

    num_proposed: int
    num_accepted: int


class AnswerReading(NamedTuple):
    """How the answers to one evaluation set could be read."""

    num_with_reasoning: int = 0
    """Answers with a reasoning block, which is not scored."""
    num_unfinished_reasoning: int = 0
    """Answers cut inside their reasoning: they have no answer and score 0."""
    num_unreadable: Mapping[str, int] = MappingProxyType({})
    """By metric, answers in which it found nothing to score, such as no number; they score 0."""


@dataclass(frozen=True)
class TrainingOutcome:
    """The cost and outcome of training one adapter."""

    num_examples: int
    num_supervised_tokens: int
    """Tokens of the dataset that carry loss, each counted once."""
    num_steps: int
    num_tokens_read: int
    """Tokens of the separate sequences over all steps."""
    num_tokens_computed: int
    """Tokens that went through the model; shared prefixes count once."""
    seconds: float
    final_loss: float
    initial_adapter_fingerprint: str
    adapter_fingerprint: str


@dataclass(frozen=True)
class EvaluationOutcome:
    """The results on one evaluation set."""

    means: Mapping[str, float]
    """Mean score by metric."""
    finish_reasons: Mapping[str, int]
    """Why answers ended, with counts: {"stop": 298, "length": 3}."""
    scripts: Mapping[str, int]
    """How many examples were scored by which script: {"spaced": 280, "characters": 21}."""
    drafts: Mapping[str, DraftUse]
    """How useful each source of drafts was."""
    reading: AnswerReading = field(default_factory=AnswerReading)
    """How the answers could be read."""


@dataclass(frozen=True)
class TrialSummary:
    """One finished trial, or the base."""

    candidate: str
    seed: int | None
    """None for the base."""
    training: TrainingOutcome | None
    """None for the base."""
    evaluations: Mapping[str, EvaluationOutcome]
    """By the name of the evaluation set."""
    evaluation_seconds: float
    peak_memory_bytes: int | None = None
    """The most memory, of the GPU or the machine, that the process held in its last attempt,
    weights and libraries included; None: not known."""

    @property
    def means(self) -> dict[str, Mapping[str, float]]:
        """Mean scores by evaluation set and metric."""
        return {name: outcome.means for name, outcome in self.evaluations.items()}


def write_summary(path: Path, summary: TrialSummary) -> None:
    """Write trial.json."""
    write_json(path, summary_record(summary))


def read_summary(path: Path) -> TrialSummary:
    """Read trial.json. Raises RunFolderError if it is missing, damaged or of another version."""
    return summary_of_record(read_json(path), path)


def summary_record(summary: TrialSummary) -> dict[str, Any]:
    """The summary as JSON values."""
    return {
        "version": TRIAL_VERSION,
        "candidate": summary.candidate,
        "seed": summary.seed,
        **training_record(summary.training),
        "scores": {name: dict(found.means) for name, found in summary.evaluations.items()},
        "finish_reasons": {
            name: dict(found.finish_reasons) for name, found in summary.evaluations.items()
        },
        "scripts": {name: dict(found.scripts) for name, found in summary.evaluations.items()},
        "reading": {
            name: {**found.reading._asdict(), "num_unreadable": dict(found.reading.num_unreadable)}
            for name, found in summary.evaluations.items()
        },
        "drafts": {
            name: {source: list(use) for source, use in found.drafts.items()}
            for name, found in summary.evaluations.items()
        },
        "evaluation_seconds": summary.evaluation_seconds,
        "peak_memory_bytes": summary.peak_memory_bytes,
    }


def training_record(training: TrainingOutcome | None) -> dict[str, Any]:
    """What a training took, under the keys of trial.json; None for the base."""
    return {key: getattr(training, field, None) for field, key in _TRAINING_KEYS.items()}


def summary_of_record(record: Any, path: Path) -> TrialSummary:
    """The summary from its JSON values, which were read from `path`.

    Raises RunFolderError if they are damaged or of another version.
    """
    version = record.get("version") if isinstance(record, dict) else None
    if version != TRIAL_VERSION:
        raise RunFolderError(
            f"{path} contains a trial's summary of version {version}, but this Loracle "
            f"reads version {TRIAL_VERSION}; read it with the release that wrote it, or run the "
            "trial again"
        )
    try:
        return TrialSummary(
            candidate=record["candidate"],
            seed=record["seed"],
            training=_training_of_record(record),
            evaluations={name: _evaluation_of_record(record, name) for name in record["scores"]},
            evaluation_seconds=record["evaluation_seconds"],
            # Trials of earlier releases were not measured.
            peak_memory_bytes=record.get("peak_memory_bytes"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        found = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise RunFolderError(
            f"{path} contains a damaged summary of its trial: {found}; run the trial again"
        ) from error


def _training_of_record(record: Mapping[str, Any]) -> TrainingOutcome | None:
    values = {field: record[key] for field, key in _TRAINING_KEYS.items()}
    return None if record["seed"] is None else TrainingOutcome(**values)


def _evaluation_of_record(record: Mapping[str, Any], name: str) -> EvaluationOutcome:
    return EvaluationOutcome(
        means=record["scores"][name],
        finish_reasons=record["finish_reasons"][name],
        scripts=record["scripts"][name],
        reading=AnswerReading(**record["reading"][name]),
        drafts={source: DraftUse(*use) for source, use in record["drafts"][name].items()},
    )
