"""`loracle verify`: check every file of a run against what was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from loracle.errors import RunFolderError
from loracle.run_folder.folder import RunFolder, TrialFolder


class Verification(NamedTuple):
    """num_files: how many were checked. problems: what is wrong, with what to do. unfinished:
    trials that have not ended, whose files cannot be checked."""

    num_files: int
    problems: list[str]
    unfinished: list[str]


def verify_run(root: Path | str) -> Verification:
    """Check all files of a run that MANIFEST.json and the trials' DONE or FAILED.json list.

    Raises RunFolderError if it is not a run folder.
    """
    folder = RunFolder(root)
    problems: list[str] = []
    num_files = 0
    try:
        listed = folder.listed_files()
    except RunFolderError as error:
        problems += error.problems
        listed = []
    for path in listed:
        num_files += 1
        problems += _problem(folder, path)
    try:
        plan = folder.frozen_plan()
    except RunFolderError as error:
        if not folder.plan.exists():
            raise
        # Already reported above if MANIFEST.json says so; the trials are found by their folders.
        problems += [problem for problem in error.problems if problem not in problems]
        trials = [TrialFolder(path) for path in sorted(folder.root.glob("trials/*"))]
    else:
        names = [entry["name"] for entry in plan["candidates"]]
        trials = [folder.trial(name, seed) for name in names for seed in plan["seeds"]]
    unfinished = []
    for trial in (folder.base, *trials):
        if not (trial.done.exists() or trial.failed.exists()):
            unfinished.append(trial.root.name)
            continue
        num_files += trial.num_listed_files()
        problems += _trial_problems(trial)
    return Verification(num_files, problems, unfinished)


def _problem(folder: RunFolder, path: Path) -> Iterator[str]:
    try:
        folder.require_whole(path)
    except RunFolderError as error:
        yield from error.problems
    else:
        if not path.is_file():
            yield f"{path} is missing; run `loracle resume {folder.root}` to create it again"


def _trial_problems(trial: TrialFolder) -> Iterator[str]:
    try:
        for problem in trial.damages():
            yield f"{trial.root}/{problem}; {trial.how_to_redo()}"
    except RunFolderError as error:
        yield from error.problems
