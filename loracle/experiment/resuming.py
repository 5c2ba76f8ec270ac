"""`loracle resume`: finish a run from its folder only, whatever state it is in.

A finished run is answered from its files, without a model, once its inputs and outputs are
verified as unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from loracle import metrics
from loracle.data.hubs.fetching import fetch_plan
from loracle.data.reading.locations import deciding_files
from loracle.data.reading.options import options_of
from loracle.errors import PlanError, RunFolderError
from loracle.experiment.unchanged import metric_names, model_differences, version_note
from loracle.plan import HeldOutFile, Plan, difference, freeze, plan_of, recorded_commits
from loracle.report.page import REPORT_NAME
from loracle.report.run_record import RunRecord, read_run
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import View


class Resumed(NamedTuple):
    """results: the content of results.json. was_finished: nothing had to be done. notes: what the
    user should know about a finished run."""

    results: Mapping[str, Any]
    was_finished: bool
    notes: Sequence[str] = ()


def resume(
    root: Path,
    view: View,
    *,
    candidate: str | None = None,
    retry_failed: bool = False,
    devices: str | int | Sequence[int] | None = None,
    ray_address: str | None = None,
    before_loading: Callable[[], None] = lambda: None,
) -> Resumed:
    """Finish a run.

    candidate: run only its trials; the others stay as they are. retry_failed: also run failed
    trials again; a named candidate's are repeated in any case. devices, ray_address: in place of
    the plan's `devices` and `ray.address`; None keeps them. before_loading: called if there is
    something to do, before the slow libraries are imported.

    Raises:
        UserError: it is not a run folder, is damaged beyond repair, or its inputs changed.
    """
    folder = RunFolder(root)
    frozen = folder.frozen_plan()
    if "fingerprint" in frozen["model"]:
        raise RunFolderError(
            f"{root}: this run uses a model that a program had loaded; call that program again "
            "with the same run folder"
        )
    plan = plan_of(_placed(frozen, devices, ray_address))
    _require_known(candidate, plan)
    with _started_from(folder) as moved:
        out = folder.root if moved else root
        notes = _finished(folder, plan, frozen, candidate, retry_failed)
        if notes is not None:
            return Resumed(read_run(out).results or {}, True, notes)
        before_loading()
        from loracle.experiment.run import run
        from loracle.experiment.selection import Selection

        return Resumed(run(plan, out, view, selection=Selection(candidate, retry_failed)), False)


def _placed(
    frozen: Mapping[str, Any], devices: str | int | Sequence[int] | None, ray_address: str | None
) -> dict[str, Any]:
    """The plan, to be executed somewhere else."""
    changed = dict(frozen)
    if devices is not None:
        changed["devices"] = devices if isinstance(devices, str | int) else list(devices)
    if ray_address is not None:
        changed["ray"] = {**changed.get("ray", {}), "address": ray_address}
    return changed


def _require_known(candidate: str | None, plan: Plan) -> None:
    names = [entry.name for entry in plan.candidates]
    if candidate is not None and candidate not in names:
        raise PlanError(f"--candidate: found {candidate!r}; the run has: {', '.join(names)}")


@contextmanager
def _started_from(folder: RunFolder) -> Iterator[bool]:
    """Change to the folder that the run was started from, which the plan's paths are relative to;
    returns whether that is a different folder."""
    try:
        first = folder.environments()[0]["folder"]
    # Not recorded, or damaged: the paths must then be valid here.
    except (RunFolderError, LookupError):
        first = None
    here = Path.cwd()
    if first is None or Path(first) == here or not Path(first).is_dir():
        yield False
        return
    with chdir(first):
        yield True


def _finished(
    folder: RunFolder,
    plan: Plan,
    frozen: Mapping[str, Any],
    candidate: str | None,
    retry_failed: bool,
) -> list[str] | None:
    """Notes about a finished run, or None if there is something to do."""
    if folder.in_use() or not (folder.root / REPORT_NAME).is_file():
        return None
    try:
        record = read_run(folder.root)
        if not _all_made(record, folder, candidate, retry_failed):
            return None
        for path in folder.listed_files():
            folder.require_whole(path)
    # Whatever is damaged or missing is created again.
    except RunFolderError:
        return None
    if difference(frozen, _frozen_again(plan, frozen)) or model_differences(plan, folder):
        return None
    note = version_note(folder)
    return [] if note is None else [note]


def _all_made(
    record: RunRecord, folder: RunFolder, candidate: str | None, retry_failed: bool
) -> bool:
    fingerprint = folder.plan_record()["fingerprint"]
    rows = (record.results or {})["rows"]
    stated = {(row["candidate"], row["seed"]): row["status"] for row in rows}
    for trial in record.trials:
        is_whole = trial.folder.verify(fingerprint) is None
        # Results from before the last change to the folder are created again.
        if is_whole != (stated.get((trial.candidate, trial.seed)) == "done"):
            return False
        if is_whole:
            continue
        named = candidate is not None and trial.candidate == candidate
        left = candidate is not None and not named and not trial.is_base
        failed = trial.folder.failed_and_whole() and not retry_failed and not named
        if not (left or failed) or trial.is_base:
            return False
    return True


def _frozen_again(plan: Plan, frozen: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with the current data. Held-out rows are in the run folder."""
    fetched = fetch_plan(plan, *recorded_commits(frozen, plan))
    held_out = None
    if plan.held_out is not None:
        (entry,) = frozen["evaluation"]
        held_out = HeldOutFile(entry["path"], entry["sha256"], entry["size_bytes"])
    return freeze(
        plan,
        lambda entry: deciding_files(entry.path, options_of(entry)),
        fetched.data,
        fetched.model.commit if fetched.model else None,
        held_out,
        metrics.module_hashes(metric_names(plan)),
    )
