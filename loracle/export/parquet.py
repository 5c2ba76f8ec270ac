"""All predictions of a run with their scores, as one Parquet file.

    trial   candidate seed evaluation id  prompt                answers    prediction script em  f1
    clean   clean     0    test       q1  [{user, "Who won?"}]  ["The B"]  "The B"    spaced 1.0 1.0

One row for each answer, the base model's first (its seed is null). Every metric that any
evaluation computed is a column, null if an evaluation did not compute it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracle.errors import RunFolderError, UserError
from loracle.report.run_record import RunRecord, TrialRecord, Turn, read_run

if TYPE_CHECKING:
    import pyarrow as pa


def export_predictions(root: Path | str, path: Path) -> int:
    """Write the predictions and scores of every finished trial; return the number of rows.

    The file appears whole or not at all.

    Raises:
        RunFolderError: the folder is not a run, is damaged, or has no answers yet.
        UserError: the file cannot be written.
    """
    from pyarrow import ArrowInvalid, parquet

    record = read_run(root, unfinished=True)
    metrics = _metrics(record)
    schema = _schema(metrics)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    num_rows = 0
    try:
        with parquet.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            for table in _tables(record, metrics, schema):
                writer.write_table(table)
                num_rows += table.num_rows
        if not num_rows:
            raise RunFolderError(f"{record.root} has no finished trial: there are no predictions")
        unfinished.replace(path)
    except (OSError, ArrowInvalid) as error:
        raise UserError(f"{path} cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return num_rows


def _tables(record: RunRecord, metrics: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa

    for rows in _rows_by_trial(record, metrics):
        yield pa.Table.from_pylist(rows, schema=schema)


def prediction_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Every prediction of every finished trial with its scores, the base's first."""
    for rows in _rows_by_trial(record, _metrics(record)):
        yield from rows


def _rows_by_trial(record: RunRecord, metrics: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    for evaluation in record.evaluations:
        prompts = record.questions(evaluation).prompts
        for trial in record.finished_trials():
            predictions = trial.predictions(evaluation)
            if not predictions:
                continue
            scores = {row["id"]: row for row in trial.scores(evaluation) or ()}
            yield [
                _row(trial, evaluation, prediction, scores, metrics, prompts)
                for prediction in predictions
            ]


def _row(
    trial: TrialRecord,
    evaluation: str,
    prediction: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Any]],
    metrics: Sequence[str],
    prompts: Mapping[str, Sequence[Turn]],
) -> dict[str, Any]:
    identifier = prediction["id"]
    score = scores.get(identifier, {})
    turns = prompts.get(identifier)
    return {
        "trial": trial.label,
        "candidate": trial.candidate,
        "seed": trial.seed,
        "evaluation": evaluation,
        "id": _text(identifier),
        "prompt": None
        if turns is None
        else [{"role": turn.role, "content": _text(turn.content)} for turn in turns],
        "answers": [_text(answer) for answer in prediction["answers"]],
        "prediction": _text(prediction["prediction"]),
        "finish_reason": prediction["finish_reason"],
        "num_tokens": len(prediction["token_ids"]),
        "script": score.get("script"),
        **{metric: score.get(metric) for metric in metrics},
    }


def _text(text: str) -> str:
    """The text, with U+FFFD for half a surrogate pair: JSON can hold it, Parquet cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _metrics(record: RunRecord) -> list[str]:
    """Every metric of any evaluation, in the order they are met."""
    found: dict[str, None] = {}
    for evaluation in record.evaluations:
        for trial in record.finished_trials():
            first = next(iter(trial.scores(evaluation) or ()), {})
            found |= dict.fromkeys(name for name in first if name not in ("id", "script"))
    return list(found)


def _schema(metrics: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("trial", text),
            ("candidate", text),
            ("seed", pa.int64()),
            ("evaluation", text),
            ("id", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("answers", pa.list_(text)),
            ("prediction", text),
            ("finish_reason", text),
            ("num_tokens", pa.int32()),
            ("script", text),
            *((metric, pa.float64()) for metric in metrics),
        ]
    )
