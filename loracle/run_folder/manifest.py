"""RUN/MANIFEST.json: the state of every file of the run itself when it was written.

    {"version": 1,
     "files": {"plan.json": {"sha256": "ab..", "num_bytes": 812, "before": "cd.."}, ...},
     "seal": "ef.."}

A file's entry is written before the file, with the file's previous hash: a kill in between leaves
a file that is still known. The files of a trial are in its DONE.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loracle.errors import RunFolderError
from loracle.files import Seal, read_json, seal, seal_is_whole, sealed, write_atomically, write_json

MANIFEST_NAME = "MANIFEST.json"
_VERSION = 1


class Manifest:
    """The manifest of one run folder. A folder from an earlier Loracle has none, so nothing is
    known."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / MANIFEST_NAME

    def files(self) -> dict[str, dict[str, Any]]:
        """The entries by path within the folder. Raises RunFolderError if they are damaged."""
        if not self.path.exists():
            return {}
        record = read_json(self.path)
        if not isinstance(record, dict) or not seal_is_whole(record):
            raise RunFolderError(
                f"{self.path} is damaged: its content is not what was written; run `loracle "
                f"resume {self.root}` to write it again"
            )
        if record.get("version") != _VERSION:
            raise RunFolderError(f"{self.path} is not of version {_VERSION}")
        return dict(record["files"])

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of the run and its entry."""
        files = self.files()
        name = path.relative_to(self.root).as_posix()
        entry: dict[str, Any] = Seal.of(content)._asdict()
        if path.is_file() and (before := seal(path).sha256) != entry["sha256"]:
            entry["before"] = before
        if files.get(name) != entry:
            self._store({**files, name: entry})
        write_atomically(path, content)

    def expects(self, path: Path, content: bytes) -> bool:
        """Whether the file was last written with exactly this content."""
        entry = self.files().get(path.relative_to(self.root).as_posix())
        return entry is not None and entry["sha256"] == Seal.of(content).sha256

    def take(self, path: Path) -> None:
        """Add a file in its current state, for a folder that had no manifest."""
        name = path.relative_to(self.root).as_posix()
        self._store({**self.files(), name: seal(path)._asdict()})

    def problem(self, path: Path) -> str | None:
        """Why a file differs from what was written; None if it does not, or nothing is known about
        it."""
        entry = self.files().get(path.relative_to(self.root).as_posix())
        if entry is None or not path.is_file():
            return None
        found = seal(path)
        if found.sha256 in (entry["sha256"], entry.get("before")):
            return None
        if found.num_bytes != entry["num_bytes"]:
            return f"it has {found.num_bytes} bytes, but {entry['num_bytes']} were written"
        return "its content is not what was written"

    def _store(self, files: dict[str, dict[str, Any]]) -> None:
        write_json(self.path, sealed({"version": _VERSION, "files": files}))
