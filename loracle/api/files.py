"""Files without a run: `check` shows what is in datasets, `score` scores predictions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from loracle.api.arguments import data_entries, path_text, texts
from loracle.api.quiet import quiet_libraries
from loracle.errors import DataError
from loracle.plan import DataFile

if TYPE_CHECKING:
    from loracle.data_check.result import Check
    from loracle.metrics.score_file import FileScores


def check(
    candidates: DataFile | Iterable[DataFile] = (),
    evaluation: DataFile | Iterable[DataFile] = (),
    *,
    model: str | os.PathLike[str] | None = None,
    plan_file: str | os.PathLike[str] | None = None,
    overrides: str | Iterable[str] = (),
    reading: Mapping[str, object] = MappingProxyType({}),
) -> Check:
    """Show what is in datasets and what is wrong with them, before training.

    Example:
        found = loracle.check(["clean.jsonl", "noisy.jsonl"], "test.jsonl")
        print(found.errors, [leakage.leaked_share for leakage in found.leakages])

    Args:
        candidates: Training sets.
        evaluation: Evaluation sets, which training data must not overlap.
        model: Count in this model's tokens; None counts characters, and loads no torch.
        plan_file: Check the data of this plan; files given here replace the plan's.
        overrides: Keys of the plan, as "training.max_length=1024".
        reading: How the files given here are read, as keys of a plan's entry: format, columns, ...

    Returns:
        The Check: `reports` by dataset, `leakages`, `errors`, `exit_code`, `to_dict()`.

    Raises:
        UserError: The plan or the model cannot be used. Problems with the data are in the Check.
    """
    from loracle.data_check.datasets import check_files

    keys = texts(overrides, "overrides", '"training.max_length=1024"')
    with quiet_libraries() if model or plan_file or overrides else nullcontext():
        return check_files(
            data_entries(candidates, "candidates"),
            data_entries(evaluation, "evaluation"),
            model=None if model is None else path_text(model, "model", "a folder or a hub id"),
            plan=None if plan_file is None else Path(path_text(plan_file, "plan_file")),
            overrides=keys,
            settings=reading,
        )


def score(
    file: str | os.PathLike[str],
    metrics: str | Iterable[str] = ("em", "f1"),
    *,
    per_row: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
) -> FileScores:
    """Score predictions in a file of {prediction, answers}, without a model.

    Also reads what LLaMA-Factory, ms-swift, lm-evaluation-harness and OpenCompass write.

    Example:
        print(loracle.score("predictions.jsonl", ["em", "f1"]).means)

    Args:
        metrics: Names of metrics; one text may name several, as "em,f1".
        per_row: Write the rows with their scores to this file.
        columns: Keys under other names: {"prediction": "output"}.

    Returns:
        The scores: `means` by metric from 0 to 1, `num_rows`, ...

    Raises:
        PlanError: A metric is unknown.
        DataError: The file or a row of it cannot be used.
    """
    from loracle.metrics.score_file import score_file

    names = [name for text in texts(metrics, "metrics", '"em,f1"') for name in text.split(",")]
    return score_file(
        path_text(file, "file", error=DataError),
        [name.strip() for name in names],
        per_row=None if per_row is None else Path(path_text(per_row, "per_row")),
        columns=columns,
    )
