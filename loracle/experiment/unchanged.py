"""Whether a run is resumed with the same model files and libraries that it started with.

Its data, its plan and its metrics are in the plan's fingerprint; this covers what the plan only
names. Starts without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loracle.data.hubs.fetching import fetch_plan
from loracle.errors import RunFolderError
from loracle.model.source import model_source
from loracle.plan import Plan, recorded_commits
from loracle.run_folder.environment import environment, version_changes
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.inputs import INPUTS_VERSION, changes, model_facts
from loracle.run_folder.reporter import Reporter


def keep_inputs(
    folder: RunFolder, plan: Plan, fetched: Path | None, report: Reporter
) -> Path | None:
    """Record the model's files when the run starts; refuse different ones later. Returns their
    folder.

    fetched: where the files of a hub's model are.

    Raises RunFolderError if they changed since then.
    """
    source = _model_folder(plan, fetched)
    if note := version_note(folder):
        report.emit("warning", message=note)
    if source is None:
        return None
    if problem := folder.damage(folder.inputs):
        report.emit(
            "warning",
            message=f"{folder.inputs.name} is damaged ({problem}): it is unknown whether the "
            "model's files have changed since the run started; the current files are used",
        )
        folder.inputs.unlink()
    known = folder.recorded_model_files()
    now = model_facts(source, known)
    if known is not None and (found := changes(known, now)) and folder.has_trials():
        raise RunFolderError(_other_model(folder, source, found))
    if now != known:
        folder.write_json(folder.inputs, {"version": INPUTS_VERSION, "model": now})
    return source


def model_differences(plan: Plan, folder: RunFolder) -> list[str]:
    """How the model's files differ from those at the start of the run; no differences if
    unknown."""
    fetched = fetch_plan(plan, *recorded_commits(folder.frozen_plan(), plan)).model
    source = _model_folder(plan, fetched.folder if fetched else None)
    known = folder.recorded_model_files()
    return changes(known, model_facts(source, known)) if source and known else []


def version_note(folder: RunFolder) -> str | None:
    """A note if libraries differ from those at the start of the run; None if they do not."""
    environments = folder.environments()
    found = version_changes(environments[0], environment()) if environments else []
    if not found:
        return None
    return (
        f"library versions differ from those at the start of the run ({'; '.join(found)}): new "
        "results may differ from earlier ones in their last digits; to use one set of versions, "
        "run again in another folder"
    )


def _model_folder(plan: Plan, fetched: Path | None) -> Path | None:
    folder = fetched or Path(model_source(plan.model))
    return folder if folder.is_dir() else None


def _other_model(folder: RunFolder, source: Path, found: Sequence[str]) -> str:
    return (
        f"the model's files in {source} have changed since the run {folder.root} started; trials "
        "of two models cannot be compared. Restore the files, or run again in another folder "
        "(--out). What differs:\n  " + "\n  ".join(found)
    )


def metric_names(plan: Plan) -> list[str]:
    """Every metric that the plan needs."""
    return [*(name for asked in plan.asked for name in asked.metrics), plan.decision.metric]
