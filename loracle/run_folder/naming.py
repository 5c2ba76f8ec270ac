"""The default name of a run folder: date and candidates.

runs/2026-11-26-clean-vs-noisy      the same plan finds it again, whatever the day
runs/2026-11-26-clean-vs-noisy-2    another plan with the same candidates
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from loracle.errors import RunFolderError
from loracle.run_folder.folder import RunFolder

RUNS = Path("runs")
_MAX_NAME_CHARACTERS = 18


def default_run_folder(
    plan_fingerprint: str, candidates: Sequence[str], runs: Path = RUNS, today: date | None = None
) -> Path:
    """The folder in `runs` with this plan, else a new one.

    Args:
        candidates: Their names, in the plan's order.
        today: None means the current date.
    """
    if (found := _run_of(plan_fingerprint, runs)) is not None:
        return found
    name = f"{today or date.today()}-{_short(candidates)}"
    free = runs / name
    number = 2
    while free.exists():
        free = runs / f"{name}-{number}"
        number += 1
    return free


def _run_of(plan_fingerprint: str, runs: Path) -> Path | None:
    """The run with this plan that was worked on last."""
    found = [
        path.parent
        for path in runs.glob("*/plan.json")
        if _fingerprint_of(path.parent) == plan_fingerprint
    ]
    return max(found, key=lambda root: (root / "plan.json").stat().st_mtime, default=None)


def _fingerprint_of(root: Path) -> str | None:
    try:
        return RunFolder(root).plan_fingerprint()
    except RunFolderError:
        # Damaged, or from another version: it is not the run of this plan.
        return None


def _short(candidates: Sequence[str]) -> str:
    """ "clean-vs-noisy"; for more than two, the first and how many more. Long names are cut, so
    that the path of a file in the folder fits on a line."""
    names = [_part_of_path(name) for name in candidates]
    if len(names) <= 2:
        return "-vs-".join(names)
    return f"{names[0]}-and-{len(names) - 1}-more"


def _part_of_path(name: str) -> str:
    """The name without characters that are special to a shell."""
    plain = "".join(char if char.isalnum() or char in "-_." else "-" for char in name)
    return plain[:_MAX_NAME_CHARACTERS].rstrip("-_.") or "data"
