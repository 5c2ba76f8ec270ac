"""One trial: train a fresh adapter on one candidate, answer every evaluation set, score, vouch.

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
from loracle.experiment.setup import NLL_METRIC, EvaluationSet, TrainingSet, Workbench
from loracle.files import JsonLinesWriter, write_json
from loracle.generation.generate import generate
from loracle.generation.types import REFERENCE_SOURCE, Answer, GenerationStatistics, Question
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, evaluation_precision
from loracle.model.native_memory import return_freed_memory
from loracle.run_folder.folder import TrialFolder
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


def run_trial(
    bench: Workbench, training_set: TrainingSet, seed: int, folder: TrialFolder, place: Place
) -> dict[str, Any]:
    """Train, evaluate, vouch. Returns the trial's summary, which DONE holds too.

    Raises:
        TrialError: it failed while it ran; the base is as it was all the same.
    """
    settings = dataclasses.replace(bench.training, seed=seed)
    name = place.trial
    adapted = adapter.attach(bench.base.model, bench.lora_config, seed)
    try:
        summary = {
            "candidate": training_set.name,
            "seed": seed,
            "num_examples": training_set.sequences.num_sequences,
            "supervised_tokens": training_set.num_supervised_tokens,
            "initial_adapter_fingerprint": adapter.adapter_fingerprint(adapted),
        }
        summary |= _train(bench, adapted, training_set, settings, folder, place)
        return_freed_memory()
        summary["adapter_fingerprint"] = adapter.adapter_fingerprint(adapted)
        adapter.save(adapted, folder.adapter)
        summary |= evaluate(bench, adapted, folder, name)
    finally:
        adapter.detach(adapted)
    _require_unchanged(bench)
    return _vouch(bench, folder, summary)


def run_base(bench: Workbench, folder: TrialFolder, name: str) -> dict[str, Any]:
    """Evaluate the untrained base; its summary has the form of a trial's."""
    summary: dict[str, Any] = {"candidate": name, "seed": None, "num_examples": 0}
    summary |= {"num_steps": 0, "supervised_tokens": 0, "tokens_read": 0, "tokens_computed": 0}
    summary["training_seconds"] = 0.0
    summary |= evaluate(bench, None, folder, name)
    return _vouch(bench, folder, summary)


def _vouch(bench: Workbench, folder: TrialFolder, summary: dict[str, Any]) -> dict[str, Any]:
    write_json(folder.trial_json, summary)
    folder.finish(summary, plan_fingerprint=bench.plan_fingerprint)
    return summary


def _require_unchanged(bench: Workbench) -> None:
    found = base_fingerprint(bench.base.model)
    if found != bench.base_fingerprint:
        raise TrialError(
            "the base's weights changed during this trial "
            f"(fingerprint {bench.base_fingerprint[:12]} became {found[:12]}); "
            "neither it nor a later trial can be trusted"
        )


def _train(
    bench: Workbench,
    adapted: Any,
    training_set: TrainingSet,
    settings: TrainingSettings,
    folder: TrialFolder,
    place: Place,
) -> dict[str, Any]:
    name = place.trial
    num_steps = num_steps_planned(training_set.sequences, training_set.groups, settings)
    num_examples = training_set.sequences.num_sequences
    bench.reporter.emit(
        "trial_started",
        **dataclasses.asdict(place),
        candidate=training_set.name,
        seed=settings.seed,
        num_examples=num_examples,
        num_steps=num_steps,
    )
    started = time.perf_counter()
    steps: list[StepRecord] = []

    with JsonLinesWriter(folder.steps) as writer:

        def on_step(record: StepRecord) -> None:
            row = dataclasses.asdict(record)
            writer.write(row)
            steps.append(record)
            bench.reporter.emit("step", trial=name, num_steps=num_steps, **row)

        def on_memory(event: MemoryEvent) -> None:
            bench.reporter.emit(
                "warning",
                message=f"{name}: out of memory at step {event.step}; doing the step again in "
                f"micro-batches of {event.budget_tokens} tokens (the batch stays the same)",
            )

        train(
            bench.base,
            adapted,
            training_set.sequences,
            training_set.groups,
            settings,
            on_step,
            on_memory,
        )
    return {
        "num_steps": len(steps),
        "tokens_read": sum(step.tokens_read for step in steps),
        "tokens_computed": sum(step.tokens_computed for step in steps),
        "training_seconds": time.perf_counter() - started,
        "final_loss": steps[-1].loss,
    }


def evaluate(
    bench: Workbench, adapted: Any | None, folder: TrialFolder, name: str
) -> dict[str, Any]:
    """Answer and score every evaluation set; predictions are written as they come."""
    started = time.perf_counter()
    summary: dict[str, Any] = {"scores": {}, "finish_reasons": {}, "scripts": {}, "drafts": {}}
    with evaluation_precision(bench.base, bench.evaluation_dtype) as base:
        for evaluation in bench.evaluations:
            statistics = bench.drafts.statistics() if bench.use_drafts else GenerationStatistics()
            answers, texts = _answer(bench, base, adapted, evaluation, folder, name, statistics)
            means, scripts = _score(evaluation, answers, texts, folder)
            bench.reporter.emit("scored", trial=name, evaluation=evaluation.name, means=means)
            summary["scores"][evaluation.name] = means
            summary["scripts"][evaluation.name] = scripts
            reasons = Counter(answer.finish_reason for answer in answers)
            summary["finish_reasons"][evaluation.name] = dict(sorted(reasons.items()))
            use = {
                source: [
                    statistics.proposed[source] - bench.drafts.proposed[source],
                    statistics.accepted[source] - bench.drafts.accepted[source],
                ]
                for source in sorted(statistics.proposed)
            }
            summary["drafts"][evaluation.name] = use
            bench.drafts.note(use)
            bench.drafts.add(evaluation.name, name, [answer.token_ids for answer in answers])
    return_freed_memory()
    summary["evaluation_seconds"] = time.perf_counter() - started
    return summary


def _answer(
    bench: Workbench,
    base: BaseModel,
    adapted: Any | None,
    evaluation: EvaluationSet,
    folder: TrialFolder,
    name: str,
    statistics: GenerationStatistics,
) -> tuple[list[Answer], list[str]]:
    num_examples = len(evaluation.examples)
    bench.reporter.emit(
        "evaluation_started", trial=name, evaluation=evaluation.name, num_examples=num_examples
    )
    questions = _questions(bench, evaluation)
    batches = generate(
        base,
        adapted,
        questions,
        bench.generation,
        forest=bench.forest_generation,
        statistics=statistics,
    )
    answers: list[Answer] = []
    texts: list[str] = []
    num_tokens = 0
    with JsonLinesWriter(folder.predictions(evaluation.name)) as writer:
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
            bench.reporter.emit(
                "evaluated",
                trial=name,
                evaluation=evaluation.name,
                num_done=len(answers),
                num_examples=num_examples,
                num_tokens=num_tokens,
            )
    return answers, texts


def _questions(bench: Workbench, evaluation: EvaluationSet) -> list[Question]:
    earlier = bench.drafts.token_ids.get(evaluation.name, {}) if bench.use_drafts else {}
    questions = []
    for i, prompt in enumerate(evaluation.prompts):
        drafts = {trial: [answers[i]] for trial, answers in earlier.items()}
        if bench.use_drafts:
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
