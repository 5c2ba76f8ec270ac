"""Where another tool's data is: its paths are relative to where its command is run, a plan's to
the plan's folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from loracle.plan import COMPRESSION_ENDINGS

_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
_FILE_ENDINGS = (
    *(".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".txt"),
    *COMPRESSION_ENDINGS,
)
_FIRST_BYTES = 1 << 16
# How many folders above the training file are tried as the folder in which its tool is run.
_FOLDERS_ABOVE = 3


class Places(NamedTuple):
    """Folders that paths start at.

    source: the training file's. plan: the one that the plan is written to.
    """

    source: Path
    plan: Path

    def find(self, name: str) -> Path | None:
        """The file or folder with that name: relative to the current folder, the training file's
        folder, or one above it. None if there is none."""
        above = list(self.source.resolve().parents)[:_FOLDERS_ABOVE]
        for folder in (Path(), self.source, *above):
            path = folder / Path(name).expanduser()
            if path.exists():
                return path
        return None

    def in_plan(self, path: Path | str) -> str:
        """A path as written in the plan: relative to its folder, unless it was absolute."""
        if Path(path).expanduser().is_absolute():
            return str(path)
        return Path(os.path.relpath(path, self.plan)).as_posix()


def is_hub_id(name: str) -> bool:
    """Whether the name looks like a hub's, org/name; a folder may look like that too."""
    return _HUB_ID.fullmatch(name) is not None and not name.endswith(_FILE_ENDINGS)


def first_row(path: Path) -> Mapping[str, Any]:
    """The first row of a JSON or JSONL file; empty if there is none."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        start = file.read(_FIRST_BYTES).decode("utf-8", "replace").lstrip("\ufeff \t\r\n[")
    try:
        row, _ = json.JSONDecoder().raw_decode(start)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
