"""What every trial of an experiment shares: the base, the rendered data, the settings.

The plan is used only up to here: the modules after this take the plain values they need.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from loracle.data.clusters import question_clusters
from loracle.data.conversation import Example
from loracle.data.rendering.renderer import Rendered as RenderedRow
from loracle.data.rendering.renderer import RenderedPrompt
from loracle.data_check.result import Ready
from loracle.errors import PlanError
from loracle.forecast.batch import DEFAULT_BATCH_SIZE
from loracle.forest.attention.backends import AttentionBackend
from loracle.forest.limits import PREFILL_TOKENS
from loracle.forest.ordering import prefix_groups
from loracle.forest.trie import IntArray, Sequences
from loracle.generation.types import GenerationSettings, GenerationStatistics
from loracle.model.adapter import fitted
from loracle.model.attention_choice import choose_attention, choose_for_answering
from loracle.model.base import (
    BaseModel,
    base_fingerprint,
    load_base,
    load_tokenizer,
)
from loracle.model.layer_choice import choose_layers
from loracle.model.loaded_form import LoadedForm
from loracle.model.placement import require_trainable
from loracle.model.self_test import SelfTest
from loracle.model.source import model_source
from loracle.model.tokenizer import Tokenizing
from loracle.plan import GenerationPlan, Plan, TrainingPlan
from loracle.run_folder.environment import num_cpus
from loracle.run_folder.reporter import Reporter
from loracle.text import counted, seconds_of
from loracle.training.loop import AUTO_BUDGET_TOKENS, TrainingSettings
from loracle.training.optimizers import require_optimizer
from loracle.training.replicas import Replicas
from loracle.training.saving import BY_COST, CheckpointInterval

NLL_METRIC = "answer_nll"


@dataclass(frozen=True)
class Place:
    """A trial's name and its position among the others, from 1."""

    trial: str
    index: int
    num_trials: int


@dataclass(frozen=True)
class TrainingSet:
    """A candidate, rendered: sequences with loss weights, and the prefix group for each."""

    name: str
    sequences: Sequences
    groups: IntArray

    @classmethod
    def of(cls, name: str, rows: Sequence[RenderedRow]) -> TrainingSet:
        sequences = Sequences.of([row.token_ids for row in rows], [row.weights for row in rows])
        prompts = Sequences.of([row.token_ids[: row.num_prompt_tokens] for row in rows])
        return cls(name, sequences, prefix_groups(prompts))

    @property
    def num_supervised_tokens(self) -> int:
        assert self.sequences.weights is not None
        return int((self.sequences.weights != 0).sum())


@dataclass(frozen=True)
class EvaluationSet:
    """An evaluation set, rendered, with the metrics its plan asks for."""

    name: str
    metrics: tuple[str, ...]
    examples: Sequence[Example]
    prompts: Sequence[RenderedPrompt]

    @cached_property
    def clusters(self) -> Sequence[str]:
        """Which questions belong together: a label for each."""
        return question_clusters(self.examples)


class Rendered(NamedTuple):
    """What an experiment trains on and asks. training_sets: of the usable candidates, by name;
    refusals: of the others, why not."""

    training_sets: dict[str, TrainingSet]
    evaluations: Sequence[EvaluationSet]
    refusals: Mapping[str, str]


class ProcessesOfOne(NamedTuple):
    """Where the processes are that share a training.

    devices: this process' first; None: the base's, then torch's other ones. num_threads: torch's
    of all of them together; None: as many as there are cores.
    """

    devices: Sequence[str] | None = None
    num_threads: int | None = None


@dataclass
class DraftPool:
    """Answers of earlier trials, and how useful each trial's answers were as drafts.

    token_ids: by evaluation set, then by trial, one answer per example.
    """

    token_ids: dict[str, dict[str, list[tuple[int, ...]]]] = field(default_factory=dict)
    proposed: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)

    def add(self, evaluation: str, trial: str, answers: list[tuple[int, ...]]) -> None:
        self.token_ids.setdefault(evaluation, {})[trial] = answers

    def note(self, use: Mapping[str, Sequence[int]]) -> None:
        """Add (proposed, accepted) tokens by source, from a trial's summary."""
        for source, (proposed, accepted) in use.items():
            self.proposed[source] += proposed
            self.accepted[source] += accepted

    def statistics(self) -> GenerationStatistics:
        return GenerationStatistics(
            proposed=Counter(self.proposed), accepted=Counter(self.accepted)
        )


@dataclass(frozen=True)
class ExperimentSetup:
    """What every trial of an experiment shares."""

    base: BaseModel
    base_fingerprint: str
    evaluations: Sequence[EvaluationSet]
    lora_config: Any
    training: TrainingSettings
    generation: GenerationSettings
    evaluation_dtype: str
    evaluation_attention: AttentionBackend | None
    drafts_from: Literal["references", "all", "off"]
    forest_generation: bool
    drafts: DraftPool
    reporter: Reporter
    plan_fingerprint: str
    reasoning_end: str | None = None
    replicas: Replicas | None = None


def load_model(plan: Plan, fetched_folder: Path | None = None) -> BaseModel:
    """Load tokenizer and base; `embedded` is the model that comes with the embedded extra.

    fetched_folder: where the files of a hub's model are; None if the plan names a folder.
    """
    settings = plan.model
    source = str(fetched_folder) if fetched_folder else model_source(settings)
    tokenizer = load_tokenizer(source, None, settings.trust_remote_code)
    return load_base(
        settings.name,
        source,
        tokenizer,
        LoadedForm(
            settings.dtype,
            settings.quantization,
            settings.device,
            settings.device_map,
            settings.trust_remote_code,
        ),
    )


def given_base_facts(base: BaseModel) -> dict[str, str]:
    """What a frozen plan contains for a model that the caller loaded: its hash and its
    tokenizer's."""
    tokenizer = base.tokenizer
    deciding = [sorted(tokenizer.get_vocab().items()), tokenizer.chat_template]
    content = json.dumps(deciding, default=str).encode()
    return {
        "fingerprint": base_fingerprint(base.model),
        "tokenizer_sha256": hashlib.sha256(content).hexdigest(),
    }


def tokenizing_of(base: BaseModel) -> Tokenizing:
    """What the data check needs from a model that the caller loaded."""
    return Tokenizing(base.tokenizer, base.model.config, base.end_token_ids, base.max_length_tokens)


def prepare(
    plan: Plan,
    rendered: Rendered,
    base: BaseModel,
    lora: Any,
    report: Reporter,
    plan_fingerprint: str,
    processes: ProcessesOfOne = ProcessesOfOne(),  # noqa: B008
) -> tuple[ExperimentSetup, SelfTest]:
    """Test the model's capabilities with the data, and set up what the trials share."""
    evaluations = rendered.evaluations
    if rendered.training_sets:
        require_trainable(base.model)
    base, self_test = choose_attention(base, plan.model.attention)
    in_answering = choose_for_answering(base, plan.generation.dtype, plan.model.attention)
    if in_answering is not None:
        own = tuple(f"in answering: {words}" for words in in_answering.self_test.replaced)
        self_test = dataclasses.replace(self_test, replaced=(*self_test.replaced, *own))
    of_layers = choose_layers(base, asked=plan.model.use_liger_kernel)
    lora, of_adapters = fitted(base.model, lora)
    for note in (*self_test.notes, *self_test.replaced, *of_layers, *of_adapters):
        report.emit("warning", message=note)
    forest = _use_forest(plan, self_test, report)
    wants_nll = any(NLL_METRIC in evaluation.metrics for evaluation in evaluations)
    if wants_nll and not self_test.passed:
        raise PlanError(
            f"evaluation.metrics: {NLL_METRIC} needs the prefix forest, and {self_test.detail}"
        )
    weights = base_fingerprint(base.model)
    setup = ExperimentSetup(
        base=base,
        base_fingerprint=weights,
        evaluations=evaluations,
        lora_config=lora,
        training=training_settings(plan.training, base.device.type, forest=forest),
        generation=generation_settings(
            plan.generation, base.device.type, answer_nll=wants_nll or plan.generation.answer_nll
        ),
        evaluation_dtype=plan.generation.dtype,
        evaluation_attention=in_answering.base.attention if in_answering else base.attention,
        drafts_from=plan.generation.drafts,
        forest_generation=self_test.passed,
        drafts=DraftPool(),
        reporter=report,
        plan_fingerprint=plan_fingerprint,
        reasoning_end=plan.generation.reasoning_end,
        replicas=_replicas(plan.training, base, weights, report, processes),
    )
    return setup, self_test


def _replicas(
    training: TrainingPlan,
    base: BaseModel,
    weights: str,
    report: Reporter,
    processes: ProcessesOfOne = ProcessesOfOne(),  # noqa: B008
) -> Replicas | None:
    """What shares in every training; None where this process trains alone.

    training: its `data_parallel: auto` is settled where a run's trials are placed; elsewhere one
    process trains.
    """
    number = training.data_parallel
    if number in ("auto", 1):
        if training.shard_base:
            report.emit(
                "warning",
                message="training.shard_base: true has no effect: every training has one device",
            )
        return None
    assert isinstance(number, int), "auto was one of the two"
    cores = num_cpus()
    if base.device.type == "cpu" and number > cores:
        report.emit(
            "warning",
            message=f"training.data_parallel: {number} processes share "
            f"{counted(cores, 'processor core')}, which is slower than {cores}",
        )
    return Replicas(base, weights, number, *processes, shard_base=training.shard_base)


def training_settings(plan: TrainingPlan, device_type: str, *, forest: bool) -> TrainingSettings:
    """The plain values of the training loop.

    Raises MissingExtraError if the optimizer's package is missing.
    """
    budget = plan.micro_batch_tokens
    require_optimizer(plan.optimizer)
    return TrainingSettings(
        epochs=plan.epochs,
        max_steps=plan.max_steps,
        max_tokens=plan.max_tokens,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        schedule=plan.schedule,
        warmup_ratio=plan.warmup_ratio,
        optimizer=plan.optimizer,
        weight_decay=plan.weight_decay,
        betas=(plan.adam_beta1, plan.adam_beta2),
        eps=plan.adam_epsilon,
        max_grad_norm=plan.max_grad_norm,
        grouped=plan.order == "grouped",
        forest=forest,
        budget_tokens=AUTO_BUDGET_TOKENS[device_type] if budget == "auto" else budget,
        gradient_checkpointing=plan.gradient_checkpointing is True,
        seed=0,
        checkpoint_every=_checkpoint_interval(plan.checkpoint_every),
    )


def _checkpoint_interval(every: int | str) -> CheckpointInterval:
    if isinstance(every, int):
        return CheckpointInterval(steps=every)
    return CheckpointInterval(seconds=seconds_of(every)) if every != "auto" else BY_COST


def generation_settings(
    plan: GenerationPlan, device_type: str, *, answer_nll: bool
) -> GenerationSettings:
    """The plain values of generation; sampling and beams go to transformers' `generate`."""
    sampling: dict[str, Any] | None = None
    if plan.do_sample or plan.num_beams > 1:
        sampling = {"do_sample": plan.do_sample, "num_beams": plan.num_beams}
        if plan.do_sample:
            sampling |= {"temperature": plan.temperature, "top_p": plan.top_p}
            # transformers reads 0 as no limit, and None as its own default of 50.
            sampling["top_k"] = plan.top_k or 0
        if plan.num_beams > 1:
            sampling["early_stopping"] = plan.early_stopping
    return GenerationSettings(
        max_new_tokens=plan.max_new_tokens,
        repetition_penalty=plan.repetition_penalty,
        prompt_lookup=plan.prompt_lookup,
        answer_nll=answer_nll,
        batch_size=DEFAULT_BATCH_SIZE if plan.batch_size == "auto" else plan.batch_size,
        budget_tokens=PREFILL_TOKENS[device_type],
        sampling=sampling,
        seed=plan.seed,
    )


def rendered_sets(plan: Plan, ready: Ready) -> Rendered:
    """The rows rendered by the check, so that exactly the counted rows are trained on."""
    training_sets = {
        name: TrainingSet.of(name, candidate.training_rows)
        for name, candidate in ready.candidates.items()
        if name not in ready.refusals
    }
    evaluations = [
        EvaluationSet(
            asked.name,
            asked.metrics,
            ready.evaluations[asked.name].examples,
            ready.evaluations[asked.name].prompts,
        )
        for asked in plan.asked
    ]
    return Rendered(training_sets, evaluations, ready.refusals)


def _use_forest(plan: Plan, self_test: SelfTest, report: Reporter) -> bool:
    batching = plan.training.batching
    if batching == "forest" and not self_test.passed:
        raise PlanError(f"training.batching: forest, but {self_test.detail}; use auto or padded")
    if not self_test.passed:
        report.emit("warning", message=f"padded batches: {self_test.detail}")
    return batching != "padded" and self_test.passed
