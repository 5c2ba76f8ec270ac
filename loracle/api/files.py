"""Files without a run: `check` shows what is in datasets, `score` scores predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from loracle.api.quiet import quiet_libraries

if TYPE_CHECKING:
    from loracle.data_check.result import Check
    from loracle.metrics.score_file import FileScores

Data = str | os.PathLike[str] | Mapping[str, object]
"""A data file: its path or hub address, or an entry of a plan with a `path` and further keys."""


def check(
    candidates: Data | Sequence[Data] = (),
    evaluation: Data | Sequence[Data] = (),
    *,
    model: str | os.PathLike[str] | None = None,
    plan_file: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    reading: Mapping[str, object] = MappingProxyType({}),
) -> Check:
    """Show what is in datasets and what is wrong with them, before training.

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

    with quiet_libraries() if model or plan_file or overrides else nullcontext():
        return check_files(
            listed(candidates),
            listed(evaluation),
            model=None if model is None else os.fspath(model),
            plan=None if plan_file is None else Path(plan_file),
            overrides=overrides,
            settings=reading,
        )


def score(
    file: str | os.PathLike[str],
    metrics: Sequence[str] = ("em", "f1"),
    *,
    per_row: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
) -> FileScores:
    """Score predictions in a file of {prediction, answers}, without a model.

    Also reads what LLaMA-Factory, ms-swift, lm-evaluation-harness and OpenCompass write.

    Args:
        per_row: Write the rows with their scores to this file.
        columns: Keys under other names: {"prediction": "output"}.

    Returns:
        The scores: `means` by metric from 0 to 1, `num_rows`, ...

    Raises:
        PlanError: A metric is unknown.
        DataError: The file or a row of it cannot be used.
    """
    from loracle.metrics.score_file import score_file

    rows = None if per_row is None else Path(per_row)
    return score_file(os.fspath(file), metrics, per_row=rows, columns=columns)


def listed(data: Data | Sequence[Data]) -> list[Data]:
    """One data file as a list of one."""
    if isinstance(data, str | os.PathLike | Mapping):
        return [data]
    return list(data)
