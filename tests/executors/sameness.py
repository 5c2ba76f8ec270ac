"""What a run made, file by file, as it must be whatever executed it: bytes, or values without
times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TIMES = ("seconds", "training_seconds", "evaluation_seconds", "peak_memory_bytes")
# Of DONE and of the files that hold times, what is said of them in other files.
_HOLD_TIMES = ("steps.jsonl", "trial.json", "training.json")


def made(root: Path) -> dict[str, Any]:
    """Every file of every trial, and results.json."""
    found: dict[str, Any] = {}
    for folder in (root / "base", *sorted((root / "trials").iterdir())):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != "DONE":
                found[path.relative_to(root).as_posix()] = _content(path)
        done = json.loads((folder / "DONE").read_text())
        found[f"{folder.name}/DONE"] = {
            name: seal for name, seal in done["files"].items() if name not in _HOLD_TIMES
        }
    found["results.json"] = without_times(json.loads((root / "results.json").read_text()))
    return found


def _content(path: Path) -> Any:
    if path.name not in _HOLD_TIMES:
        return path.read_bytes()
    rows = (
        [json.loads(line) for line in path.read_text().splitlines()]
        if path.suffix == ".jsonl"
        else json.loads(path.read_text())
    )
    return without_times(rows)


def without_times(value: Any) -> Any:
    """A JSON value without times, dates and the run's own path."""
    if isinstance(value, dict):
        return {
            key: without_times(inner)
            for key, inner in value.items()
            if key not in (*_TIMES, "run", "created")
        }
    return [without_times(inner) for inner in value] if isinstance(value, list) else value
