"""Makes finished run folders without a model: invented answers of known quality, truly scored."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loracle import metrics
from loracle.data.clusters import kinds_of, question_clusters
from loracle.data.conversation import Example
from loracle.data.reading.dataset import read_examples
from loracle.decision.evidence import read_evidence
from loracle.decision.judge import judge, judgement_record
from loracle.files import JsonLinesWriter, write_json
from loracle.plan import fingerprint, freeze, load_plan
from loracle.report.results import EvaluationFacts, ModelFacts, ResultRow, RunFacts, build_results
from loracle.run_folder.folder import RunFolder, TrialFolder
from loracle.run_folder.questions import keep_questions
from loracle.run_folder.trial_record import EvaluationOutcome, TrainingOutcome, TrialSummary

CREATED = datetime(2026, 1, 2, 10, 0, tzinfo=UTC)
MODEL = ModelFacts("invented", None, "float32", 1000, "ab12" * 16, "forest", "agreed to 2e-6")

Answering = Callable[[str, Example, random.Random], str]
"""(row, example, random numbers) -> the answer of that row's model."""


@dataclass(frozen=True)
class Shape:
    """What an invented run is like. quality: the share of right answers by row, base included."""

    quality: Mapping[str, float]
    num_questions: int = 60
    questions_per_passage: int = 5
    passage_words: int = 60
    evaluations: tuple[str, ...] = ("test",)
    seeds: tuple[int, ...] = (0,)
    num_steps: int = 12
    failed: tuple[str, ...] = ()
    num_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows trained on, by candidate; 100 where it is not said."""
    check: Mapping[str, Any] | None = None
    """The content of check.json."""


def right_or_wrong(quality: Mapping[str, float]) -> Answering:
    """Answers that are the reference with the row's chance, else another number."""

    def answer(row: str, example: Example, chance: random.Random) -> str:
        is_right = chance.random() < quality[row]
        return example.references[0] if is_right else f"{chance.randrange(1000)} of them"

    return answer


def make_run(root: Path, shape: Shape, answer: Answering | None = None) -> Path:
    """Write a run folder and its data files beside it. Returns the folder."""
    answer = answer or right_or_wrong(shape.quality)
    data = root.parent / f"{root.name}-data"
    plan = load_plan(
        None,
        candidates=[str(_candidate_file(data, name)) for name in shape.quality if name != "base"],
        evaluations=[str(_evaluation_file(data, name, shape)) for name in shape.evaluations],
        model="invented",
        overrides=[f"seeds={json.dumps(list(shape.seeds))}"],
    )
    frozen = freeze(plan)
    plan_fingerprint = fingerprint(frozen)
    with RunFolder.open(root, frozen, plan_fingerprint) as folder:
        if shape.check is not None:
            write_json(folder.check, shape.check)
        sets = {entry.name: read_examples(entry.path) for entry in plan.evaluation}
        for name, examples in sets.items():
            keep_questions(folder, name, examples)
        rows = [_trial(folder.base, "base", None, sets, shape, answer, plan_fingerprint)]
        for seed in shape.seeds:
            for entry in plan.candidates:
                place = folder.trial(entry.name, seed)
                if entry.name in shape.failed:
                    place.fail("step 3: the loss is nan")
                    rows.append(ResultRow(entry.name, seed, "failed", "step 3: the loss is nan"))
                    continue
                rows.append(_trial(place, entry.name, seed, sets, shape, answer, plan_fingerprint))
        write_json(
            folder.results,
            build_results(
                RunFacts(
                    str(root),
                    plan_fingerprint,
                    MODEL,
                    [_facts(name, examples) for name, examples in sets.items()],
                    plan.decision.metric,
                    True,
                    CREATED,
                ),
                rows,
                judgement_record(judge(read_evidence(root))),
            ),
        )
    return root


def _facts(name: str, examples: Sequence[Example]) -> EvaluationFacts:
    clusters = question_clusters(examples)
    return EvaluationFacts(
        name,
        len(examples),
        ("em", "f1"),
        {"spaced": len(examples)},
        len(set(clusters)),
        kinds_of(clusters),
    )


def _candidate_file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"context": "A town.", "question": "What is it?", "answer": "a town"}\n')
    return path


def _evaluation_file(folder: Path, name: str, shape: Shape) -> Path:
    chance = random.Random(name)
    path = folder / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        passage = ""
        for number in range(shape.num_questions):
            if number % shape.questions_per_passage == 0:
                words = (f"word{chance.randrange(3000)}" for _ in range(shape.passage_words))
                passage = f"Passage {number}: {' '.join(words)}"
            value = str(chance.randrange(10_000))
            row = {
                "id": f"{name}-{number}",
                "context": f"{passage} Item {number} is {value}.",
                "question": f"What is item {number}?",
                "answer": value,
            }
            file.write(json.dumps(row) + "\n")
    return path


def _trial(
    folder: TrialFolder,
    name: str,
    seed: int | None,
    sets: Mapping[str, Sequence[Example]],
    shape: Shape,
    answer: Answering,
    plan_fingerprint: str,
) -> ResultRow:
    means: dict[str, dict[str, float]] = {}
    finish_reasons: dict[str, dict[str, int]] = {}
    for evaluation, examples in sets.items():
        chance = random.Random(f"{name} {seed} {evaluation}")
        means[evaluation], finish_reasons[evaluation] = _answer_all(
            folder, evaluation, examples, [answer(name, example, chance) for example in examples]
        )
    num_steps = 0 if seed is None else shape.num_steps
    if num_steps:
        with JsonLinesWriter(folder.steps) as writer:
            for step in range(1, num_steps + 1):
                writer.write(_step(step, num_steps))
    training = TrainingOutcome(
        num_examples=shape.num_rows.get(name, 100),
        num_supervised_tokens=500,
        num_steps=num_steps,
        num_tokens_read=100 * num_steps,
        num_tokens_computed=40 * num_steps,
        seconds=2.0 * num_steps,
        final_loss=0.5,
        initial_adapter_fingerprint="00",
        adapter_fingerprint="ff",
    )
    evaluations = {
        evaluation: EvaluationOutcome(means[evaluation], finish_reasons[evaluation], {}, {})
        for evaluation in sets
    }
    summary = TrialSummary(
        name, seed, training if num_steps else None, evaluations, 30.0, 3 * 10**9
    )
    folder.finish(summary, plan_fingerprint=plan_fingerprint)
    return ResultRow.of(summary)


def _step(step: int, num_steps: int) -> dict[str, float]:
    return {
        "step": step,
        "epoch": step / num_steps,
        "loss": 4 / step,
        "gradient_norm": 1.0,
        "learning_rate": 1e-4,
        "tokens_read": 100,
        "tokens_computed": 40,
        "seconds": 2.0,
    }


def _answer_all(
    folder: TrialFolder, evaluation: str, examples: Sequence[Example], texts: Sequence[str]
) -> tuple[dict[str, float], dict[str, int]]:
    totals = {"em": 0.0, "f1": 0.0}
    clusters = question_clusters(examples)
    with (
        JsonLinesWriter(folder.predictions(evaluation)) as predictions,
        JsonLinesWriter(folder.scores(evaluation)) as scores,
    ):
        for example, cluster, text in zip(examples, clusters, texts, strict=True):
            predictions.write(
                {
                    "id": example.id,
                    "cluster": cluster,
                    "prediction": text,
                    "answers": list(example.references),
                    "finish_reason": "stop",
                    "token_ids": list(range(len(text.split()))),
                }
            )
            found = metrics.score(text, example.references, ["em", "f1"])
            scores.write({"id": example.id, "script": "spaced", **found})
            totals = {name: totals[name] + found[name] for name in totals}
    means = {name: total / len(examples) for name, total in totals.items()}
    return means, {"stop": len(examples), "length": 0}
