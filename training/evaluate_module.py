"""Answer a dataset's questions and score the answers by Exact Match and F1.

scores = evaluate_model_on_dataset_with_progress(trained["model"], tokenizer, "data/test.jsonl")
scores["exact_match"], scores["f1"]    # per cent, as the SQuAD script prints them
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loracle import metrics
from loracle.data.conversation import Example
from loracle.data.reading.dataset import read_examples
from loracle.experiment.setup import DraftPool, EvaluationSet, generation_settings
from loracle.files import JsonLinesWriter
from loracle.generation.generate import generate
from loracle.generation.types import REFERENCE_SOURCE, Answer, GenerationSettings, Question
from loracle.model.self_test import run_self_test
from loracle.run_folder.reporter import Reporter
from loracle.run_folder.views import choose_view
from training.arguments import generation_arguments
from training.attachment import Standing, as_it_stands
from training.train_module import place_of, renderer_of

METRICS = ("em", "f1")
_PER_CENT = 100.0


def evaluate_model_on_dataset_with_progress(
    model: Any,
    tokenizer: Any,
    eval_dataset_path: str | Path,
    dataset_index: int = 1,
    total_datasets: int = 1,
    batch_size: int | None = None,
    generation_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Answer every question and score, with live progress on the standard error stream.

    model: the base, or a PeftModel. An adapter that is on the model answers, whichever of the
        two is passed: peft puts it into the base. The model stays as it is.
    eval_dataset_path: rows as for training. The last assistant turn is what is asked for; it is
        the reference answer too where a row has no `answers`.
    dataset_index, total_datasets: the place among others, from 1, for the progress display.
    batch_size: prompts answered together. None: 64.
    generation_kwargs: max_new_tokens (40), do_sample (False), temperature, repetition_penalty
        (1.1), num_beams (1), early_stopping (False); also top_p, top_k, seed. Greedy decoding
        ignores the sampling ones, with a warning.

    Returns a dict:
        status             "completed"
        exact_match, f1    means over the rows, 0 to 100; the best reference counts
        num_examples, finish_reasons (rows by "stop" and "length"), scripts (rows by how their
                           words are told apart)
        evaluation_seconds, rows_per_second
        has_adapter        whether an adapter answered
        predictions        a list in the file's order: id, prediction, answers, finish_reason,
                           exact_match, f1
        dataset            the file's stem; dataset_path, dataset_index, total_datasets

    Raises:
        PlanError, DataError, ModelError: what was given cannot be used.
    """
    generation = generation_arguments(generation_kwargs, batch_size, "batch_size")
    for note in generation.notes:
        warnings.warn(note, stacklevel=2)
    examples = read_examples(eval_dataset_path)
    name = Path(eval_dataset_path).stem
    place = place_of(name, dataset_index, total_datasets)
    with (
        Reporter(None, choose_view(json_output=False)) as reporter,
        as_it_stands(model, tokenizer) as standing,
    ):
        prompts = renderer_of(standing.base).prompts(examples, generation.plan.max_new_tokens)
        settings = generation_settings(generation.plan, standing.base.device.type, answer_nll=False)
        evaluation = EvaluationSet(name, METRICS, examples, prompts)
        label = f"{place.index}/{place.num_trials}"
        scores = answer_and_score(
            standing, evaluation, settings, DraftPool(), trial=label, reporter=reporter
        )
    return {
        "status": "completed",
        "dataset": name,
        "dataset_path": str(eval_dataset_path),
        "dataset_index": dataset_index,
        "total_datasets": total_datasets,
        "has_adapter": standing.adapted is not None,
        **scores,
    }


def answer_and_score(
    standing: Standing,
    evaluation: EvaluationSet,
    settings: GenerationSettings,
    drafts: DraftPool,
    *,
    trial: str,
    reporter: Reporter,
    predictions_path: Path | None = None,
) -> dict[str, Any]:
    """Answer and score one evaluation set; the answers join the drafts for the next model.

    predictions_path: where predictions go as they come; None is nowhere.
    """
    self_test = run_self_test(standing.base)
    if not self_test.passed:
        reporter.emit("warning", message=f"transformers' generate answers: {self_test.detail}")
    num_examples = len(evaluation.examples)
    script = _script_of(evaluation)
    place = {"trial": trial, "evaluation": evaluation.name}
    reporter.emit("evaluation_started", **place, num_examples=num_examples)
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    answers: list[tuple[int, ...]] = []
    with ExitStack() as stack:
        writer = (
            stack.enter_context(JsonLinesWriter(predictions_path)) if predictions_path else None
        )
        for batch in generate(
            standing.base,
            standing.adapted,
            list(_questions(evaluation, drafts)),
            settings,
            forest=self_test.passed,
        ):
            for answer in batch:
                row = _scored(standing, evaluation.examples[len(rows)], answer, script)
                if writer is not None:
                    writer.write(row)
                rows.append(row)
                answers.append(answer.token_ids)
            reporter.emit("evaluated", **place, num_done=len(rows), num_examples=num_examples)
    seconds = time.perf_counter() - started
    drafts.add(evaluation.name, trial, answers)
    result = _result(evaluation, rows, seconds)
    means = {"em": result["exact_match"] / _PER_CENT, "f1": result["f1"] / _PER_CENT}
    reporter.emit("scored", **place, means=means)
    return result


def _questions(evaluation: EvaluationSet, drafts: DraftPool) -> Iterator[Question]:
    earlier = drafts.token_ids.get(evaluation.name, {})
    for i, prompt in enumerate(evaluation.prompts):
        proposed = {trial: [answers[i]] for trial, answers in earlier.items()}
        proposed[REFERENCE_SOURCE] = [tuple(ids[:-1]) for ids in prompt.reference_ids]
        yield Question(prompt.token_ids, prompt.reference_ids, proposed)


def _script_of(evaluation: EvaluationSet) -> metrics.Script:
    return metrics.script_of_set(example.references for example in evaluation.examples)


def _scored(
    standing: Standing, example: Example, answer: Answer, script: metrics.Script
) -> dict[str, Any]:
    tokenizer = standing.base.tokenizer
    text = tokenizer.decode(answer.token_ids, skip_special_tokens=True).strip()
    scores = metrics.score(text, example.references, METRICS, script)
    return {
        "id": example.id,
        "prediction": text,
        "answers": list(example.references),
        "finish_reason": answer.finish_reason,
        "exact_match": scores["em"] * _PER_CENT,
        "f1": scores["f1"] * _PER_CENT,
    }


def _result(
    evaluation: EvaluationSet, rows: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    return {
        "exact_match": sum(row["exact_match"] for row in rows) / len(rows),
        "f1": sum(row["f1"] for row in rows) / len(rows),
        "num_examples": len(rows),
        "finish_reasons": dict(sorted(Counter(row["finish_reason"] for row in rows).items())),
        "scripts": {_script_of(evaluation): len(rows)},
        "evaluation_seconds": seconds,
        "rows_per_second": len(rows) / seconds,
        "predictions": rows,
    }
