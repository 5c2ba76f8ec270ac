"""Files of predictions as evaluation programs write them: the prediction and its references.

    {"prediction": "...", "answers": ["..."]}                          Loracle
    {"prompt": "...", "predict": "...", "label": "..."}                LLaMA-Factory
    {"response": "...", "labels": "...", "messages": [...]}            ms-swift
    {"doc": {...}, "target": "...", "filtered_resps": ["..."]}         lm-evaluation-harness
    {"0": {"origin_prompt": [...], "prediction": "...", "gold": "..."}, "1": ...}   OpenCompass

The keys say which; `columns` names others, `prediction=output` and `answers=reference`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loracle.data.faults import named, shortened
from loracle.data.reading.names import likely_meant
from loracle.data.reading.row_content import as_text
from loracle.errors import PlanError

FIELDS = ("prediction", "answers")

_NAMES: tuple[tuple[str, str], ...] = (
    ("prediction", "answers"),
    ("predict", "label"),
    ("response", "labels"),
    ("filtered_resps", "target"),
    ("prediction", "gold"),
    ("prediction", "references"),
    ("prediction", "reference"),
)
_LIKELIHOODS = "filtered_resps holds log-likelihoods, not text; predictions of a generation task"


class PredictionNames(NamedTuple):
    """The keys of a file's rows."""

    prediction: str
    answers: str


def named_columns(columns: Sequence[str]) -> dict[str, str]:
    """The command line's `prediction=KEY` and `answers=KEY`.

    Raises PlanError with every one that is not of that form.
    """
    named: dict[str, str] = {}
    problems = []
    for column in columns:
        field, _, name = column.partition("=")
        if field in FIELDS and name:
            named[field] = name
            continue
        near = likely_meant(field, FIELDS)
        hint = f"did you mean {near}=KEY?" if near else "expected prediction=KEY or answers=KEY"
        problems.append(f"--column {column}: {hint}")
    if problems:
        raise PlanError(problems)
    return named


def check_columns(columns: Mapping[str, str]) -> None:
    """Check that a program's columns are those of predictions. Raises PlanError otherwise."""
    if not isinstance(columns, Mapping):
        raise PlanError(f'columns: found {columns!r}; expected {{"prediction": KEY}}')
    named_columns([f"{field}={name}" for field, name in columns.items()])


def names_of(content: Mapping[str, object], columns: Mapping[str, str]) -> PredictionNames:
    """Under which keys a row has its prediction and its references."""
    found = next((pair for pair in _NAMES if set(pair) <= content.keys()), FIELDS)
    return PredictionNames(columns.get("prediction", found[0]), columns.get("answers", found[1]))


def with_own_names(content: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with `prediction` and `answers` as Loracle has them, where it has others.

    lm-evaluation-harness has a list of responses, of which the first is scored; numbers of other
    programs are read as text.
    """
    names = names_of(content, columns)
    if names == FIELDS:
        return content
    own: dict[str, Any] = {}
    if names.prediction in content:
        prediction = content[names.prediction]
        first = prediction[0] if isinstance(prediction, list) and prediction else prediction
        own["prediction"] = as_text(first)
    if names.answers in content:
        answers = content[names.answers]
        listed = answers if isinstance(answers, list) else None
        own["answers"] = as_text(answers) if listed is None else [as_text(item) for item in listed]
    return {**content, **own}


def missing_column(content: Mapping[str, object], columns: Mapping[str, str]) -> str | None:
    """Why a row lacks a column that the user named: its own key is not read in its place."""
    missing = [
        f"{named(name)}, which is named as its {field}"
        for field, name in columns.items()
        if name not in content
    ]
    return f"has no {' and no '.join(missing)} (its keys: {keys_of(content)})" if missing else None


def keys_of(content: Mapping[str, object]) -> str:
    """A row's keys, for a message."""
    return shortened(", ".join(map(named, content)) or "none", 80)


def likelihood_fault(content: Mapping[str, object]) -> str | None:
    """Why a row of lm-evaluation-harness has nothing to score as text."""
    responses = content.get("filtered_resps")
    first = responses[0] if isinstance(responses, list) and responses else None
    return f"{_LIKELIHOODS} are needed" if isinstance(first, list) else None


def numbered_rows(path: Path) -> Iterator[bytes] | None:
    """The rows of OpenCompass's one object of numbered rows, or of one list, each as a line; None
    where the file is neither, and its lines are its rows."""
    content = path.read_bytes()
    if content.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        is_numbered = value and all(key.isdigit() for key in value)
        rows = list(value.values()) if is_numbered else None
    else:
        rows = value if isinstance(value, list) else None
    if rows is None or not all(isinstance(row, dict) for row in rows):
        return None
    return (json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") for row in rows)
