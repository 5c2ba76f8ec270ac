"""The answers of all trials, question by question, in a compact form for the report's page.

    {"trials": ["base", "clean"],
     "evaluations": [{"name": "test", "metrics": ["em", "f1"], "lower_is_better": [],
                      "ids": ["q1"], "passages": ["Context: ..."], "passage": [0],
                      "questions": ["Question: ..."], "references": [["yes"]],
                      "answers": [{"texts": ["no"], "cut": [], "scores": {"em": [0], ...}}, null]}]}

Columns, not rows; every passage is stored once. The JSON is compressed (gzip) and written in
base64: text without `<`, which no browser can take for markup, whatever a model answered.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from loracle.metrics import METRICS
from loracle.report.run_record import RunRecord, TrialRecord, Turn

# The whole page stays under 15 MB; everything else on it needs far less than the remainder.
MAX_BYTES = 12_000_000
_SCORE_DIGITS = 4


class Packed(NamedTuple):
    """The compressed answers; `num_shown` of `num_questions` are in it."""

    base64: str
    num_shown: int
    num_questions: int
    missing: tuple[str, ...]
    """Why questions are shown without their text, one sentence per evaluation."""


def pack_answers(record: RunRecord, max_bytes: int = MAX_BYTES) -> Packed:
    """Pack the answers of every finished trial; as many questions as fit, from the first.

    max_bytes: of the base64 text.
    """
    trials = list(record.finished_trials())
    tables, missing = [], []
    for name in record.evaluations:
        questions = record.questions(name)
        table = _table(name, trials, questions.prompts)
        if table is None:
            continue
        tables.append(table)
        if questions.missing is not None:
            missing.append(questions.missing)
    num_questions = sum(len(table["ids"]) for table in tables)
    share = 1.0
    while True:
        cut = [_first(table, share) for table in tables]
        text = _packed({"trials": [trial.label for trial in trials], "evaluations": cut})
        if len(text) <= max_bytes:
            break
        share *= min(0.95, max_bytes / len(text))
    num_shown = sum(len(table["ids"]) for table in cut)
    return Packed(text, num_shown, num_questions, tuple(missing))


def _table(
    evaluation: str,
    trials: Sequence[TrialRecord],
    prompts: Mapping[str, Sequence[Turn]],
) -> dict[str, Any] | None:
    """The columns of one evaluation; None if no trial has answered it."""
    predictions = [trial.predictions(evaluation) for trial in trials]
    rows = next((rows for rows in predictions if rows), None)
    if rows is None:
        return None
    ids = [row["id"] for row in rows]
    passages: dict[str, int] = {}
    columns: dict[str, list[Any]] = {"passage": [], "questions": []}
    for identifier in ids:
        passage, question = split_prompt(prompts.get(identifier, ()))
        columns["passage"].append(passages.setdefault(passage, len(passages)))
        columns["questions"].append(question)
    answers = [
        None if found is None else _answers(ids, found, trial.scores(evaluation) or [])
        for trial, found in zip(trials, predictions, strict=True)
    ]
    metrics = list(next((a["scores"] for a in answers if a is not None), {}))
    return {
        "name": evaluation,
        "metrics": metrics,
        "lower_is_better": _lower_is_better(metrics),
        "ids": ids,
        "passages": list(passages),
        **columns,
        "references": [row["answers"] for row in rows],
        "answers": answers,
    }


def split_prompt(turns: Sequence[Turn]) -> tuple[str, str]:
    """The prompt split before its last line: the passage and the question.

    Roles are named if there is more than one turn.
    """
    if not turns:
        return "", ""
    before, _, question = turns[-1].content.rstrip().rpartition("\n")
    if len(turns) == 1:
        return before.rstrip(), question
    earlier = [f"[{turn.role}] {turn.content}" for turn in turns[:-1]]
    last = [f"[{turns[-1].role}] {before.rstrip()}"] if before.strip() else []
    return "\n\n".join([*earlier, *last]), question


def _answers(
    ids: Sequence[str],
    predictions: Sequence[Mapping[str, Any]],
    scores: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    prediction_of = {row["id"]: row for row in predictions}
    score_of = {row["id"]: row for row in scores}
    found = [prediction_of.get(identifier, {}) for identifier in ids]
    names = [name for name, value in (scores[0] if scores else {}).items() if _is_number(value)]
    return {
        "texts": [row.get("prediction") for row in found],
        "cut": [i for i, row in enumerate(found) if row.get("finish_reason") == "length"],
        "scores": {
            name: [_rounded(score_of.get(identifier, {}).get(name)) for identifier in ids]
            for name in names
        },
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rounded(value: float | None) -> float | None:
    """Four digits; whole numbers, which are the most common, without a decimal point."""
    if value is None:
        return None
    short = round(value, _SCORE_DIGITS)
    return int(short) if short == int(short) else short


def _lower_is_better(names: Iterable[str]) -> list[str]:
    """The metrics for which lower is better. For an unknown metric, higher is better."""
    return sorted(n for n in names if n in METRICS and not METRICS[n].higher_is_better)


def _first(table: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The table with the first questions only, and the passages that they need."""
    if share == 1.0:
        return dict(table)
    num = int(len(table["ids"]) * share)
    passage = table["passage"][:num]
    return {
        **table,
        **{key: table[key][:num] for key in ("ids", "questions", "references")},
        "passage": passage,
        # In the order of their first question: those in use come first.
        "passages": table["passages"][: max(passage, default=-1) + 1],
        "answers": [
            None if answer is None else _first_answers(answer, num) for answer in table["answers"]
        ],
    }


def _first_answers(answers: Mapping[str, Any], num: int) -> dict[str, Any]:
    return {
        "texts": answers["texts"][:num],
        "cut": [index for index in answers["cut"] if index < num],
        "scores": {name: values[:num] for name, values in answers["scores"].items()},
    }


def _packed(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Half of a surrogate pair cannot be UTF-8; JSON can spell it.
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    # Without a timestamp, so that the same run gives the same bytes.
    return base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")
