"""What a stopped attempt left in its trial's folder: what is reused, and what is removed.

attempt.json   written first: the plan, model and template used for the rest
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from loracle.errors import RunFolderError
from loracle.files import UNFINISHED_PREFIX, read_json, write_json
from loracle.run_folder.folder import TrialFolder
from loracle.safety.storage_errors import writing
from loracle.text import counted

_VERSION = 1


def take_up(
    folder: TrialFolder, plan_fingerprint: str, conditions: Mapping[str, str]
) -> str | None:
    """Make the folder ready for an attempt under these conditions (hashes by name).

    Files left by an unfinished attempt under the same conditions stay, for the new one to use.

    Returns why the trial starts over; None if nothing was removed.
    """
    attempt = folder.root / "attempt.json"
    conditions = {"plan": plan_fingerprint, **conditions}
    reason = _why_not_usable(folder, attempt, conditions)
    if reason is None:
        with writing(folder.failed):
            folder.failed.unlink(missing_ok=True)
        with writing(folder.root):
            _remove_unfinished(folder.root)
        return None
    removed = folder.clear()
    write_json(attempt, {"version": _VERSION, "conditions": dict(conditions)})
    return f"{reason}; starting over ({counted(len(removed), 'file')} removed)" if removed else None


def keep_first_rows(path: Path, num_rows: int) -> None:
    """Truncate a JSONL file after its first rows."""
    with writing(path), path.open("r+b") as file:
        for _ in range(num_rows):
            file.readline()
        file.truncate(file.tell())


def _why_not_usable(
    folder: TrialFolder, attempt: Path, conditions: Mapping[str, str]
) -> str | None:
    if folder.done.exists():
        return folder.verify(conditions["plan"]) or "it was finished"
    if folder.failed.exists() and not folder.failed_and_whole():
        return "what its failed attempt left is damaged"
    try:
        record = read_json(attempt)
    except RunFolderError:
        return "there is no record of what it was made with"
    if not isinstance(record, dict) or record.get("version") != _VERSION:
        return f"{attempt} is not of version {_VERSION}"
    before = record.get("conditions")
    if before == dict(conditions):
        return None
    names = [name for name in conditions if (before or {}).get(name) != conditions[name]]
    return f"it was started with another {' and '.join(names)}"


def _remove_unfinished(root: Path) -> None:
    for path in list(root.rglob(f"{UNFINISHED_PREFIX}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
