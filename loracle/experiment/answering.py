"""Answer every evaluation set and score the answers, starting where an earlier attempt stopped.

    predictions/EVAL.jsonl   one line per question, written batch by batch; continued on resuming
    scores/EVAL.jsonl        computed from the predictions, each time

Which questions share a batch depends only on the evaluation set, also on resuming.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loracle import metrics
from loracle.data.conversation import Example
from loracle.data.reasoning import is_mark, opens_reasoning
from loracle.errors import RunFolderError
from loracle.experiment.setup import NLL_METRIC, EvaluationSet, ExperimentSetup
from loracle.files import JsonLinesWriter, read_json_lines
from loracle.generation.generate import Account, generate, num_in_whole_batches
from loracle.generation.memory import AnsweringMemoryEvent
from loracle.generation.types import REFERENCE_SOURCE, Answer, GenerationStatistics, Question
from loracle.model.base import BaseModel, evaluation_precision
from loracle.model.native_memory import return_freed_memory
from loracle.run_folder import signals
from loracle.run_folder.folder import TrialFolder
from loracle.run_folder.leftovers import keep_first_rows
from loracle.run_folder.trial_record import AnswerReading, DraftUse, EvaluationOutcome
from loracle.text import counted

_NUM_TOKENS_OF_A_MARK = 16
"""Number of tokens at a prompt's end that are searched for a tag that opens a reasoning block."""


@dataclass(frozen=True)
class TrialModel:
    """The answering model, with its trial's name and folder."""

    name: str
    adapted: Any | None
    """None for the base without an adapter."""
    folder: TrialFolder


def evaluate(setup: ExperimentSetup, model: TrialModel) -> dict[str, EvaluationOutcome]:
    """Answer and score every evaluation set; predictions are written as they are generated."""
    outcomes = {}
    with evaluation_precision(setup.base, setup.evaluation_dtype) as changed:
        base = dataclasses.replace(changed, attention=setup.evaluation_attention)
        for evaluation in setup.evaluations:
            outcomes[evaluation.name] = _evaluate_one(setup, base, model, evaluation)
    return_freed_memory()
    return outcomes


def _evaluate_one(
    setup: ExperimentSetup, base: BaseModel, model: TrialModel, evaluation: EvaluationSet
) -> EvaluationOutcome:
    drafts = setup.drafts
    # Unless all drafts are used, no other trial may affect what is computed.
    before = drafts.statistics() if setup.drafts_from == "all" else GenerationStatistics()
    statistics = before.copy()
    answers, texts = _answer(setup, base, model, evaluation, statistics)
    scorer = _scorer(setup, evaluation)
    means = _score(evaluation, scorer, answers, texts, model.folder)
    setup.reporter.emit("scored", trial=model.name, evaluation=evaluation.name, means=means)
    for warning in scorer.warnings:
        message = f"{model.name}: {evaluation.name}: {warning}"
        setup.reporter.emit("warning", message=message)
    use = {
        source: DraftUse(
            statistics.proposed[source] - before.proposed[source],
            statistics.accepted[source] - before.accepted[source],
        )
        for source in sorted(statistics.proposed)
    }
    drafts.note(use)
    drafts.add(evaluation.name, model.name, [answer.token_ids for answer in answers])
    reasons = Counter(answer.finish_reason for answer in answers)
    reading = AnswerReading(scorer.num_reasoned, scorer.num_unfinished, scorer.num_unreadable)
    scripts: dict[str, int] = {scorer.script: scorer.num_scored}
    return EvaluationOutcome(means, dict(sorted(reasons.items())), scripts, use, reading)


def _answer(
    setup: ExperimentSetup,
    base: BaseModel,
    model: TrialModel,
    evaluation: EvaluationSet,
    statistics: GenerationStatistics,
) -> tuple[list[Answer], list[str]]:
    """The answers and their texts, including those written by an earlier attempt."""
    num_examples = len(evaluation.examples)
    place = {"trial": model.name, "evaluation": evaluation.name, "num_examples": num_examples}
    setup.reporter.emit("evaluation_started", **place)
    answers, texts = _answered_before(setup, model, evaluation)
    if answers:
        setup.reporter.emit("evaluated", **place, num_done=len(answers), num_tokens=0)

    def on_memory(event: AnsweringMemoryEvent) -> None:
        setup.reporter.emit(
            "warning",
            message=f"{model.name}: out of memory while answering {evaluation.name}; answering "
            f"{counted(event.batch_size, 'question')} at a time from now on",
        )

    batches = generate(
        base,
        model.adapted,
        _questions(setup, evaluation),
        setup.generation,
        forest=setup.forest_generation,
        account=Account(statistics, [answer.token_ids for answer in answers], on_memory),
    )
    with (
        signals.held("the current questions"),
        JsonLinesWriter(model.folder.predictions(evaluation.name), resume=True) as writer,
    ):
        marks = _reasoning_marks(base.tokenizer)
        num_tokens = 0
        for batch in batches:
            for answer in batch:
                number = len(answers)
                row = _prediction(
                    base, evaluation.examples[number], evaluation.clusters[number], answer, marks
                )
                writer.write(row)
                answers.append(answer)
                texts.append(row["prediction"])
                num_tokens += len(answer.token_ids)
            setup.reporter.emit("evaluated", **place, num_done=len(answers), num_tokens=num_tokens)
            signals.stop_if_asked()
    return answers, texts


def _answered_before(
    setup: ExperimentSetup, model: TrialModel, evaluation: EvaluationSet
) -> tuple[list[Answer], list[str]]:
    """The predictions of complete batches; the file is truncated after them."""
    path = model.folder.predictions(evaluation.name)
    if not path.exists():
        return [], []
    try:
        rows = read_json_lines(path, allow_torn_end=True).rows
        answers = [
            Answer(tuple(row["token_ids"]), row["finish_reason"], row.get(NLL_METRIC))
            for row in rows
        ]
        texts = [row["prediction"] for row in rows]
        asked = [example.id for example in evaluation.examples[: len(rows)]]
        if [row["id"] for row in rows] != asked:
            raise RunFolderError(f"{path} contains answers to other questions")
    except (RunFolderError, KeyError, TypeError) as error:
        found = f"it lacks {error}" if isinstance(error, KeyError) else error
        message = f"{model.name}: {path} cannot be continued ({found}); answering from the start"
        setup.reporter.emit("warning", message=message)
        answers, texts = [], []
    num_kept = num_in_whole_batches(
        len(answers), len(evaluation.examples), setup.generation.batch_size
    )
    keep_first_rows(path, num_kept)
    return answers[:num_kept], texts[:num_kept]


def _questions(setup: ExperimentSetup, evaluation: EvaluationSet) -> list[Question]:
    every = setup.drafts_from == "all"
    earlier = setup.drafts.token_ids.get(evaluation.name, {}) if every else {}
    questions = []
    for i, prompt in enumerate(evaluation.prompts):
        drafts = {trial: [answers[i]] for trial, answers in earlier.items()}
        if setup.drafts_from != "off":
            opening = prompt.opening_ids
            drafts[REFERENCE_SOURCE] = [(*opening, *ids[:-1]) for ids in prompt.reference_ids]
        question = Question(prompt.token_ids, prompt.reference_ids, drafts, prompt.opening_ids)
        questions.append(question)
    return questions


def _prediction(
    base: BaseModel, example: Example, cluster: str, answer: Answer, marks: Mapping[int, str]
) -> dict[str, Any]:
    text = _decoded(base.tokenizer, answer.token_ids, marks)
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
    evaluation: EvaluationSet,
    scorer: metrics.Scorer,
    answers: Sequence[Answer],
    texts: Sequence[str],
    folder: TrialFolder,
) -> dict[str, float]:
    """Score the predictions; return the means."""
    totals: Counter[str] = Counter()
    with JsonLinesWriter(folder.scores(evaluation.name)) as writer:
        for example, answer, text in zip(evaluation.examples, answers, texts, strict=True):
            is_cut = answer.finish_reason == "length"
            scores = scorer.score(text, example.references, is_cut=is_cut)
            if answer.nll is not None:
                scores[NLL_METRIC] = answer.nll
            totals.update(scores)
            writer.write({"id": example.id, "script": scorer.script, **scores})
    return {name: total / len(answers) for name, total in totals.items()}


def _scorer(setup: ExperimentSetup, evaluation: EvaluationSet) -> metrics.Scorer:
    """The scorer of an evaluation set, which knows whether the template opens a reasoning block."""
    end_of_prompt = evaluation.prompts[0].token_ids[-_NUM_TOKENS_OF_A_MARK:]
    return metrics.Scorer.of(
        [name for name in evaluation.metrics if name != NLL_METRIC],
        [example.references for example in evaluation.examples],
        setup.reasoning_end,
        opened=opens_reasoning(setup.base.tokenizer.decode(end_of_prompt)),
    )


def _reasoning_marks(tokenizer: Any) -> dict[int, str]:
    """The special tokens that open or close a reasoning block, by id; decoding leaves them out."""
    return {
        token_id: token.content
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special and is_mark(token.content)
    }


def _decoded(tokenizer: Any, token_ids: Sequence[int], marks: Mapping[int, str]) -> str:
    """The text of an answer, without special tokens except those that mark its reasoning."""
    parts: list[str] = []
    start = 0
    for place, token_id in enumerate(token_ids):
        if token_id in marks:
            parts.append(tokenizer.decode(token_ids[start:place], skip_special_tokens=True))
            parts.append(marks[token_id])
            start = place + 1
    parts.append(tokenizer.decode(token_ids[start:], skip_special_tokens=True))
    return "".join(parts).strip()
