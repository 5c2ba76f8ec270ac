"""Scores of a file of predictions, without a model.

One row per line; `answers` may be one text instead of a list, and further keys are kept:

    {"prediction": "The Broncos", "answers": ["Denver Broncos", "Broncos"]}

With `per_row` the same rows are written with `"scores": {"em": 1.0, "f1": 1.0}` added at the end.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from loracle.data.faults import kind_of, listed, named
from loracle.data.reading.prediction_files import (
    check_columns,
    keys_of,
    likelihood_fault,
    missing_column,
    numbered_rows,
    with_own_names,
)
from loracle.errors import DataError, PlanError, UserError
from loracle.files import write_atomically
from loracle.metrics import Scorer, check_usable, get_metric, unreadable_references
from loracle.metrics.registry import TOKENS_IN_WORDS, WORD_METRICS
from loracle.plan import file_problem
from loracle.text import counted

NUM_SHOWN_PROBLEMS = 20
_NUM_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class FileScores:
    """The mean scores of one file of predictions."""

    path: str
    num_rows: int
    """Rows scored: all rows of the file except blank lines."""
    num_blank_lines: int
    means: dict[str, float]
    """Mean over the rows by metric, from 0 to 1."""
    scripts: dict[str, int]
    """Number of rows scored by `spaced` words, and by `characters`: always the same for all
    rows."""
    unreadable: dict[str, int] = field(default_factory=dict)
    """By metric, the predictions in which it reads nothing, if there are any."""
    num_unfinished: int = 0
    """Predictions whose reasoning never ended, so they have no answer."""


class _Row(NamedTuple):
    content: dict[str, object]
    prediction: str
    references: list[str]

    @property
    def is_cut(self) -> bool:
        """Whether the row says, as a run's predictions do, that its token limit ended it."""
        return self.content.get("finish_reason") == "length"


@dataclass
class _Tally:
    """Totals of one pass over the file."""

    rows: list[_Row] = field(default_factory=list)
    num_blank_lines: int = 0
    problems: list[str] = field(default_factory=list)
    num_more_problems: int = 0

    def add_problem(self, problem: str) -> None:
        if len(self.problems) < NUM_SHOWN_PROBLEMS:
            self.problems.append(problem)
        else:
            self.num_more_problems += 1


def score_file(
    path: str | Path,
    metrics: Sequence[str],
    per_row: str | Path | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
) -> FileScores:
    """Score a file of predictions; write each row with its scores to `per_row` if given.

    columns: the keys of `prediction` and `answers`, where they are neither Loracle's own nor those
    of another program that data/reading/prediction_files.py knows.

    Blank lines are counted. A `scores` that a row already has is replaced in `per_row`, which
    appears whole or not at all.

    Raises PlanError if a metric is unknown, needs the model, or is named twice, or if `columns` has
    another key. Raises DataError
    if the file is missing, unreadable or has no rows, if `per_row` cannot be written, and for all
    rows that cannot be used: each with file:line, the first 20 in words.
    """
    path = Path(path)
    _check_metrics(metrics)
    check_columns(columns)
    _check_paths(path, None if per_row is None else Path(per_row))
    tally = _Tally()
    try:
        with path.open("rb") as lines:
            _read_lines(numbered_rows(path) or lines, path, metrics, columns, tally)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    _raise_problems(path, tally)
    scorer = Scorer.of(metrics, [row.references for row in tally.rows])
    scores = [scorer.score(row.prediction, row.references, is_cut=row.is_cut) for row in tally.rows]
    if per_row is not None:
        rows = zip(tally.rows, scores, strict=True)
        _write_rows(
            Path(per_row), [_json_line({**row.content, "scores": own}) for row, own in rows]
        )
    num_rows = len(tally.rows)
    return FileScores(
        str(path),
        num_rows,
        tally.num_blank_lines,
        {name: math.fsum(own[name] for own in scores) / num_rows for name in metrics},
        {script: num_rows if script == scorer.script else 0 for script in TOKENS_IN_WORDS},
        scorer.num_unreadable,
        scorer.num_unfinished,
    )


def format_scores(scores: FileScores) -> str:
    """The means in percent as lines for the terminal, with what they are based on."""
    width = max(len(name) for name in scores.means)
    lines = [f"{name:<{width}}  {100 * mean:6.2f}" for name, mean in scores.means.items()]
    blank = (
        f", {counted(scores.num_blank_lines, 'blank line')} skipped"
        if scores.num_blank_lines
        else ""
    )
    lines.append(
        f"\nmean in percent over {counted(scores.num_rows, 'row')} of {scores.path}{blank}"
    )
    if by_script := [name for name in scores.means if name in WORD_METRICS]:
        used = [
            f"{TOKENS_IN_WORDS[script]} on {counted(num_rows, 'row')}"
            for script, num_rows in scores.scripts.items()
            if num_rows
        ]
        lines.append(f"tokens of {' and '.join(by_script)}: {', '.join(used)}")
    if scores.num_unfinished:
        lines.append(
            f"{counted(scores.num_unfinished, 'prediction')} cut while the model was still "
            "reasoning: no answer, scored 0"
        )
    lines += [
        f"{name} reads no {get_metric(name).reads_what} in {counted(num, 'prediction')}, scored 0"
        for name, num in scores.unreadable.items()
    ]
    return "\n".join(lines)


def to_json(scores: FileScores) -> str:
    """The scores as one JSON object, means from 0 to 1 in full precision."""
    content = {
        "file": scores.path,
        "num_rows": scores.num_rows,
        "num_blank_lines": scores.num_blank_lines,
        "means": scores.means,
        "scripts": scores.scripts,
        "unreadable": scores.unreadable,
        "num_unfinished": scores.num_unfinished,
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def _check_metrics(metrics: Sequence[str]) -> None:
    problems = [] if metrics else ["no metric is named; name one, for example --metrics em,f1"]
    for name in dict.fromkeys(metrics):
        try:
            metric = check_usable(name)
        except UserError as error:
            problems += error.problems
            continue
        if metric.needs_model:
            problems.append(
                f"{name} needs the model's probabilities and cannot be computed from a file of "
                "predictions; `loracle run` computes it; leave it out here"
            )
    repeated = (name for name in dict.fromkeys(metrics) if list(metrics).count(name) > 1)
    problems += [f"metric {name} is named twice; name it once" for name in repeated]
    if problems:
        raise PlanError(problems)


def _check_paths(path: Path, per_row: Path | None) -> None:
    problems = [problem] if (problem := file_problem(path)) else []
    if per_row is not None:
        if per_row.is_dir():
            problems.append(f"{per_row} is a folder; name a file for the rows with their scores")
        elif per_row.exists() and path.exists() and per_row.samefile(path):
            problems.append(f"{per_row} is the file being scored; name another for the row scores")
    if problems:
        raise DataError(problems)


def _write_rows(path: Path, rows: Sequence[bytes]) -> None:
    try:
        write_atomically(path, b"".join(rows))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def _read_lines(
    lines: Iterable[bytes],
    path: Path,
    metrics: Sequence[str],
    columns: Mapping[str, str],
    tally: _Tally,
) -> None:
    # Iterating over bytes ends lines at \n alone; text mode would also break at U+2028.
    for number, line in enumerate(lines, start=1):
        stripped = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip(b" \t\r\n")
        if not stripped:
            tally.num_blank_lines += 1
            continue
        row = _row(stripped, columns)
        if isinstance(row, str):
            tally.add_problem(f"{path}:{number}: {row}")
            continue
        for name in metrics:
            if unreadable_references(name, [row.references]):
                tally.add_problem(
                    f"{path}:{number}: {name} reads no {get_metric(name).reads_what} in the answer "
                    f"{row.references[0][:_NUM_SHOWN_CHARACTERS]!r}; use another metric, or fix it"
                )
        tally.rows.append(row)
    filters = sorted({str(row.content["filter"]) for row in tally.rows if "filter" in row.content})
    if len(filters) > 1:
        names = listed(map(named, filters))
        tally.add_problem(
            f"{path}: the rows belong to several filters ({names}), so questions would count "
            "more than once; keep the rows of one filter"
        )


def _raise_problems(path: Path, tally: _Tally) -> None:
    if tally.problems:
        more = tally.num_more_problems
        last = [f"{path}: and {counted(more, 'more bad row')}"] if more else []
        raise DataError([*tally.problems, *last])
    if not tally.rows:
        raise DataError(
            f"{path} has no rows; write one JSON object per line with prediction and answers"
        )


def _row(line: bytes, columns: Mapping[str, str]) -> _Row | str:
    """The row of a line, or what is wrong with it."""
    try:
        content = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8"
    except json.JSONDecodeError as error:
        return (
            f"bad JSON at column {error.colno} ({error.msg}); a line must be one whole JSON object"
        )
    except (RecursionError, ValueError) as error:
        return f"bad JSON ({error}); a line must be one whole JSON object"
    if not isinstance(content, dict):
        return f"found {kind_of(content)}; expected an object with prediction and answers"
    if fault := likelihood_fault(content) or missing_column(content, columns):
        return fault
    content = with_own_names(content, columns)
    if faults := [*_prediction_faults(content), *_answers_faults(content)]:
        return "; ".join(faults)
    answers = content["answers"]
    return _Row(content, content["prediction"], [answers] if isinstance(answers, str) else answers)


def _prediction_faults(content: dict[str, object]) -> Iterator[str]:
    if "prediction" not in content:
        yield f"has no prediction (its keys: {keys_of(content)})"
    elif not isinstance(content["prediction"], str):
        yield f"prediction must be text; found {kind_of(content['prediction'])}"


def _answers_faults(content: dict[str, object]) -> Iterator[str]:
    answers = content.get("answers")
    if "answers" not in content:
        yield f"has no answers (its keys: {keys_of(content)})"
    elif isinstance(answers, str):
        return
    elif not isinstance(answers, list):
        yield f"answers must be a list of texts or one text; found {kind_of(answers)}"
    elif not answers:
        yield "answers is empty; give at least one reference answer"
    else:
        for index, answer in enumerate(answers):
            if not isinstance(answer, str):
                yield f"answers[{index}] must be text; found {kind_of(answer)}"


def _json_line(content: dict[str, object]) -> bytes:
    try:
        return (json.dumps(content, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can escape but UTF-8 cannot encode.
        return (json.dumps(content) + "\n").encode("ascii")
