"""One trial: train a fresh adapter on one candidate, answer every evaluation set, score, finish.

TRIAL/steps.jsonl · adapter/ · predictions/EVAL.jsonl · scores/EVAL.jsonl · trial.json · DONE
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loracle import metrics
from loracle.data.conversation import Example
from loracle.errors import TrialError
from loracle.experiment.setup import NLL_METRIC, EvaluationSet, ExperimentSetup, TrainingSet
from loracle.files import JsonLinesWriter
from loracle.generation.generate import generate
from loracle.generation.types import REFERENCE_SOURCE, Answer, GenerationStatistics, Question
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, evaluation_precision
from loracle.model.native_memory import return_freed_memory
from loracle.run_folder.folder import TrialFolder
from loracle.run_folder.trial_record import (
    DraftUse,
    EvaluationOutcome,
    TrainingOutcome,
    TrialSummary,
)
from loracle.training.loop import (
    MemoryEvent,
    StepRecord,
    TrainingSettings,
    num_steps_planned,
    train,
)


@dataclass(frozen=True)
class Place:
    """A trial's name and its place among the others, from 1."""

    trial: str
    index: int
    num_trials: int


@dataclass(frozen=True)
class TrialModel:
    """What answers, under its trial's name and in its folder."""

    name: str
    adapted: Any | None
    """None for the base alone."""
    folder: TrialFolder


def run_trial(
    setup: ExperimentSetup, training_set: TrainingSet, seed: int, folder: TrialFolder, place: Place
) -> TrialSummary:
    """Train, evaluate, write DONE. Returns what trial.json holds.

    Raises:
        TrialError: it failed while it ran; the base is as it was all the same.
    """
    adapted = adapter.attach(setup.base.model, setup.lora_config, seed)
    try:
        training = train_adapter(setup, adapted, training_set, seed, folder, place)
        started = time.perf_counter()
        evaluations = evaluate(setup, TrialModel(place.trial, adapted, folder))
        seconds = time.perf_counter() - started
    finally:
        adapter.detach(adapted)
    require_unchanged(setup)
    summary = TrialSummary(training_set.name, seed, training, evaluations, seconds)
    folder.finish(summary, plan_fingerprint=setup.plan_fingerprint)
    return summary


def run_base(setup: ExperimentSetup, folder: TrialFolder, name: str) -> TrialSummary:
    """Evaluate the untrained base, and write DONE."""
    started = time.perf_counter()
    evaluations = evaluate(setup, TrialModel(name, None, folder))
    summary = TrialSummary(name, None, None, evaluations, time.perf_counter() - started)
    folder.finish(summary, plan_fingerprint=setup.plan_fingerprint)
    return summary


def require_unchanged(setup: ExperimentSetup) -> None:
    """Raise TrialError if the base's weights are not those that the experiment began with."""
    found = base_fingerprint(setup.base.model)
    if found != setup.base_fingerprint:
        raise TrialError(
            "the base's weights changed during this trial "
            f"(fingerprint {setup.base_fingerprint[:12]} became {found[:12]}); "
            "neither it nor a later trial can be trusted"
        )


def train_adapter(
    setup: ExperimentSetup,
    adapted: Any,
    training_set: TrainingSet,
    seed: int,
    folder: TrialFolder,
    place: Place,
) -> TrainingOutcome:
    """Train the attached adapter, write steps.jsonl as it goes, and save the adapter."""
    settings = dataclasses.replace(setup.training, seed=seed)
    initial_fingerprint = adapter.adapter_fingerprint(adapted)
    started = time.perf_counter()
    steps = _take_steps(setup, adapted, training_set, settings, folder, place)
    seconds = time.perf_counter() - started
    return_freed_memory()
    adapter.save(adapted, folder.adapter)
    return TrainingOutcome(
        num_examples=training_set.sequences.num_sequences,
        num_supervised_tokens=training_set.num_supervised_tokens,
        num_steps=len(steps),
        num_tokens_read=sum(step.tokens_read for step in steps),
        num_tokens_computed=sum(step.tokens_computed for step in steps),
        seconds=seconds,
        final_loss=steps[-1].loss,
        initial_adapter_fingerprint=initial_fingerprint,
        adapter_fingerprint=adapter.adapter_fingerprint(adapted),
    )


def _take_steps(
    setup: ExperimentSetup,
    adapted: Any,
    training_set: TrainingSet,
    settings: TrainingSettings,
    folder: TrialFolder,
    place: Place,
) -> list[StepRecord]:
    name = place.trial
    num_steps = num_steps_planned(training_set.sequences, training_set.groups, settings)
    setup.reporter.emit(
        "trial_started",
        **dataclasses.asdict(place),
        candidate=training_set.name,
        seed=settings.seed,
        num_examples=training_set.sequences.num_sequences,
        num_steps=num_steps,
    )
    steps: list[StepRecord] = []

    with JsonLinesWriter(folder.steps) as writer:

        def on_step(record: StepRecord) -> None:
            row = dataclasses.asdict(record)
            writer.write(row)
            steps.append(record)
            setup.reporter.emit("step", trial=name, num_steps=num_steps, **row)

        def on_memory(event: MemoryEvent) -> None:
            setup.reporter.emit(
                "warning",
                message=f"{name}: out of memory at step {event.step}; doing the step again in "
                f"micro-batches of {event.budget_tokens} tokens (the batch stays the same)",
            )

        train(
            setup.base,
            adapted,
            training_set.sequences,
            training_set.groups,
            settings,
            on_step,
            on_memory,
        )
    return steps


def evaluate(setup: ExperimentSetup, model: TrialModel) -> dict[str, EvaluationOutcome]:
    """Answer and score every evaluation set; predictions are written as they come."""
    outcomes = {}
    with evaluation_precision(setup.base, setup.evaluation_dtype) as base:
        for evaluation in setup.evaluations:
            outcomes[evaluation.name] = _evaluate_one(setup, base, model, evaluation)
    return_freed_memory()
    return outcomes


def _evaluate_one(
    setup: ExperimentSetup, base: BaseModel, model: TrialModel, evaluation: EvaluationSet
) -> EvaluationOutcome:
    drafts = setup.drafts
    statistics = drafts.statistics() if setup.use_drafts else GenerationStatistics()
    answers, texts = _answer(setup, base, model, evaluation, statistics)
    means, scripts = _score(evaluation, answers, texts, model.folder)
    setup.reporter.emit("scored", trial=model.name, evaluation=evaluation.name, means=means)
    use = {
        source: DraftUse(
            statistics.proposed[source] - drafts.proposed[source],
            statistics.accepted[source] - drafts.accepted[source],
        )
        for source in sorted(statistics.proposed)
    }
    drafts.note(use)
    drafts.add(evaluation.name, model.name, [answer.token_ids for answer in answers])
    reasons = Counter(answer.finish_reason for answer in answers)
    return EvaluationOutcome(means, dict(sorted(reasons.items())), scripts, use)


def _answer(
    setup: ExperimentSetup,
    base: BaseModel,
    model: TrialModel,
    evaluation: EvaluationSet,
    statistics: GenerationStatistics,
) -> tuple[list[Answer], list[str]]:
    num_examples = len(evaluation.examples)
    place = {"trial": model.name, "evaluation": evaluation.name, "num_examples": num_examples}
    setup.reporter.emit("evaluation_started", **place)
    batches = generate(
        base,
        model.adapted,
        _questions(setup, evaluation),
        setup.generation,
        forest=setup.forest_generation,
        statistics=statistics,
    )
    answers: list[Answer] = []
    texts: list[str] = []
    num_tokens = 0
    with JsonLinesWriter(model.folder.predictions(evaluation.name)) as writer:
        for batch in batches:
            for answer in batch:
                number = len(answers)
                row = _prediction(
                    base, evaluation.examples[number], evaluation.clusters[number], answer
                )
                writer.write(row)
                answers.append(answer)
                texts.append(row["prediction"])
                num_tokens += len(answer.token_ids)
            setup.reporter.emit("evaluated", **place, num_done=len(answers), num_tokens=num_tokens)
    return answers, texts


def _questions(setup: ExperimentSetup, evaluation: EvaluationSet) -> list[Question]:
    earlier = setup.drafts.token_ids.get(evaluation.name, {}) if setup.use_drafts else {}
    questions = []
    for i, prompt in enumerate(evaluation.prompts):
        drafts = {trial: [answers[i]] for trial, answers in earlier.items()}
        if setup.use_drafts:
            drafts[REFERENCE_SOURCE] = [tuple(ids[:-1]) for ids in prompt.reference_ids]
        questions.append(Question(prompt.token_ids, prompt.reference_ids, drafts))
    return questions


def _prediction(base: BaseModel, example: Example, cluster: str, answer: Answer) -> dict[str, Any]:
    text = base.tokenizer.decode(answer.token_ids, skip_special_tokens=True).strip()
    row: dict[str, Any] = {
        "id": example.id,
        "cluster": cluster,
        "prediction": text,
        "answers": list(example.references),
        "finish_reason": answer.finish_reason,
        "token_ids": list(answer.token_ids),
    }
    if answer.nll is not None:
        row[NLL_METRIC] = answer.nll
    return row


def _score(
    evaluation: EvaluationSet, answers: Sequence[Answer], texts: Sequence[str], folder: TrialFolder
) -> tuple[dict[str, float], dict[str, int]]:
    """Score the predictions; return the means, and the examples by script."""
    computed = [name for name in evaluation.metrics if name != NLL_METRIC]
    totals: Counter[str] = Counter()
    scripts: Counter[str] = Counter()
    with JsonLinesWriter(folder.scores(evaluation.name)) as writer:
        for example, answer, text in zip(evaluation.examples, answers, texts, strict=True):
            scores = metrics.score(text, example.references, computed)
            if answer.nll is not None:
                scores[NLL_METRIC] = answer.nll
            script = metrics.script_of(example.references)
            scripts[script] += 1
            totals.update(scores)
            writer.write({"id": example.id, "script": script, **scores})
    means = {name: total / len(answers) for name, total in totals.items()}
    return means, dict(sorted(scripts.items()))
