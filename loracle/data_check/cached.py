"""The check at the start of a run: done once, kept in RUN/check.json, and not repeated.

    [Intake] --render_all--> [FittedSet] ─┬─ check.json of the same ───> Ready
                                          └─ else --examined--> Check ─> check.json, Ready

"The same": the same frozen plan (which holds the hash of every data file, verified again by each
start), the same program (the hash of its source), and the same rendered rows to the token. Every
start renders the rows, since training needs them; only the audit is saved. Another run of the same
rows takes it from the cache folder (remembered.py).
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loracle.data.holdout import Holdout
from loracle.data.reading.dataset import NUM_SHOWN_PROBLEMS
from loracle.data.rendering.renderer import Renderer
from loracle.data.workers import beside
from loracle.data_check.card import summary_lines
from loracle.data_check.datasets import load_renderer, renderer_of, unused_holdout
from loracle.data_check.examine import FittedSet, ready_sets, render_all
from loracle.data_check.kept import program_sha256 as _program_sha256
from loracle.data_check.remembered import examined
from loracle.data_check.result import CHECK_VERSION, Intake, Ready
from loracle.errors import DataError, RunFolderError
from loracle.files import read_json
from loracle.model.max_length import LengthLimit
from loracle.model.tokenizer import Tokenizing
from loracle.plan import Plan
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter


@dataclass(frozen=True)
class RunData:
    """The data of a run as it was read.

    model_folder: where the files of a hub's model are; None if the plan names a folder.
    tokenizing: of a model that is already in memory; None loads the plan's.
    """

    plan: Plan
    plan_fingerprint: str
    datasets: Sequence[Intake]
    holdout: Holdout | None
    model_folder: Path | None
    tokenizing: Tokenizing | None = None


def check_run(data: RunData, folder: RunFolder, report: Reporter) -> Ready:
    """Render, count and audit all data, report the findings, and keep them in check.json; or reuse
    what an earlier start of the run found.

    Raises:
        DataError: rows cannot be rendered, or no candidate can be used for training.
    """
    plan = data.plan
    recorded = _recorded(folder, data.plan_fingerprint)
    # Finished trials were trained under the limit fixed by the first start.
    settled = LengthLimit.of_record(recorded) if recorded else None
    if data.tokenizing is None:
        renderer = load_renderer(plan.model, plan.training, data.model_folder, settled)
    else:
        renderer = renderer_of(data.tokenizing, plan.model, plan.training, settled, in_memory=True)
    fitted = render_all(data.datasets, renderer, plan.generation.max_new_tokens)
    made_from = {
        "plan": data.plan_fingerprint,
        "program": _program_sha256(),
        "rows": _rows_sha256(fitted),
    }
    if recorded and recorded["made_from"] == made_from and recorded["exit_code"] < 2:
        report.emit(
            "checked",
            message="data: already checked, and the plan, files and program have not changed "
            f"since; the findings are in {folder.check.name}",
        )
        ready = Ready(
            ready_sets(fitted, "candidate"), ready_sets(fitted, "evaluation"), _refusals(recorded)
        )
    else:
        ready = _check(data, fitted, renderer, made_from, folder, report)
    if plan.candidates and len(ready.refusals) == len(plan.candidates):
        reasons = [f"{name}: {reason}" for name, reason in ready.refusals.items()]
        raise DataError(
            ["no candidate can be used for training", *reasons, *lost_rows(data.datasets)]
        )
    return ready


def _check(
    data: RunData,
    fitted: Sequence[FittedSet],
    renderer: Renderer,
    made_from: Mapping[str, str],
    folder: RunFolder,
    report: Reporter,
) -> Ready:
    with beside() as workers:
        found, is_known = examined(fitted, renderer, workers)
    if is_known:
        report.emit(
            "checked",
            message="data: the same rows were already checked by this program, so the findings "
            "are those kept in the cache folder",
        )
    checked = replace(found, holdout=data.holdout, remarks=unused_holdout(data.plan))
    folder.write_json(folder.check, {**checked.to_dict(), "made_from": made_from})
    if checked.errors:
        raise DataError(checked.errors)
    for line in summary_lines(checked):
        report.emit("checked", message=line)
    for dataset in checked.reports:
        for problem in dataset.problems:
            if problem.severity == "warning":
                report.emit("warning", message=f"{dataset.name}: {problem.message}")
    return checked.ready


def _recorded(folder: RunFolder, plan_fingerprint: str) -> dict[str, Any] | None:
    """check.json of an earlier start with the same plan; None if there is no usable one."""
    # Damaged: the check runs again and reports everything.
    if not folder.check.is_file() or folder.damage(folder.check):
        return None
    try:
        recorded = read_json(folder.check)
    except RunFolderError:
        # Damaged: the check runs again and reports everything.
        return None
    if not isinstance(recorded, dict) or recorded.get("version") != CHECK_VERSION:
        return None
    made_from = recorded.get("made_from")
    if not isinstance(made_from, dict) or made_from.get("plan") != plan_fingerprint:
        return None
    return recorded


def _refusals(recorded: Mapping[str, Any]) -> dict[str, str]:
    """As `Check.refusals`, of its JSON form."""
    refusals = {
        dataset["name"]: "; ".join(
            problem["message"] for problem in dataset["problems"] if problem["severity"] == "gated"
        )
        for dataset in recorded["datasets"]
        if dataset["kind"] == "candidate"
    }
    return {name: reason for name, reason in refusals.items() if reason}


def _rows_sha256(fitted: Sequence[FittedSet]) -> str:
    """The hash of every rendered row, and of how many were cut or left out."""
    digest = hashlib.sha256()
    for one in fitted:
        counts = f"{len(one.examples)} {len(one.dropped)} {len(one.shortened)} {one.num_joined}"
        digest.update(f"{one.dataset.kind} {one.dataset.name} {counts}\n".encode())
        for row in one.rows or ():
            digest.update(array("q", [len(row.token_ids), *row.token_ids]))
    return digest.hexdigest()


def refuse_unreadable(datasets: Sequence[Intake]) -> None:
    """Raise DataError with the problems of every file that cannot be read, and with the unusable
    rows of the others, which also need fixing."""
    problems = [problem for dataset in datasets for problem in dataset.error]
    if problems:
        raise DataError([*problems, *lost_rows(datasets)])


def lost_rows(datasets: Sequence[Intake]) -> list[str]:
    """The rows that cannot be used; the first ones of every dataset in words."""
    lines = []
    for dataset in datasets:
        lost = [note for note in dataset.dropped if not note.by_policy]
        lines += [f"{note.file}:{note.line}: {note.detail}" for note in lost[:NUM_SHOWN_PROBLEMS]]
        if len(lost) > NUM_SHOWN_PROBLEMS:
            lines.append(f"{dataset.path}: and {len(lost) - NUM_SHOWN_PROBLEMS} more")
    return lines
