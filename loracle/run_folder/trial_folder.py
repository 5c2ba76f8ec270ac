"""The files of one trial, or of the base model, and DONE or FAILED.json, which lists them.

    DONE          {"version": 2, "plan_fingerprint": "9f2c..", "summary": {...}, "files":
                   {"steps.jsonl": {"sha256": "ab..", "num_bytes": 812}, ...}, "seal": "ef.."}
    FAILED.json   {"version": 2, "time": "2026-..", "reason": "..", "files": {..}, "seal": "cd.."}

Either is written last. Files of an ended trial are checked against it before they are read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loracle.errors import RunFolderError
from loracle.files import Seal, read_json, seal, seal_is_whole, sealed, sync_folder, write_json
from loracle.run_folder.trial_record import (
    TrialSummary,
    summary_of_record,
    summary_record,
    write_summary,
)
from loracle.safety.secrecy import without_secrets
from loracle.safety.storage_errors import writing

DONE_VERSION = 2
# Version 1 has hashes without sizes, and no seal.
_OLDEST_DONE = 1
# Version 1 has neither files nor a seal.
_FAILED_VERSION = 2


class TrialFolder:
    """The files of one trial, or of the base model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trial_json = root / "trial.json"
        self.steps = root / "steps.jsonl"
        self.checkpoint = root / "checkpoint"
        self.adapter = root / "adapter"
        self.failed = root / "FAILED.json"
        self.done = root / "DONE"

    def predictions(self, evaluation: str) -> Path:
        """The path of the generated answers to an evaluation's questions."""
        return self.root / "predictions" / f"{evaluation}.jsonl"

    def scores(self, evaluation: str) -> Path:
        """The path of the scores of those answers."""
        return self.root / "scores" / f"{evaluation}.jsonl"

    def fail(self, reason: str) -> None:
        """Record why the attempt ended early, and what it left, each file with size and hash.

        Passwords and access tokens in the reason are hidden. Checkpoints have hashes of their own.
        """
        aside = (self.failed.name, f"{self.checkpoint.name}/")
        names = [
            name
            for name in self._files()
            if not name.startswith(aside) and (self.root / name).is_file()
        ]
        record = {
            "version": _FAILED_VERSION,
            "time": _now(),
            "reason": without_secrets(reason),
            "files": {name: seal(self.root / name)._asdict() for name in names},
        }
        write_json(self.failed, sealed(record))

    def failure(self) -> str | None:
        """Why the last attempt failed; None if it did not."""
        if not self.failed.exists():
            return None
        try:
            return str(self._read_failed()["reason"])
        except RunFolderError:
            return f"it failed, and {self.failed.name} is damaged"

    def failed_and_whole(self) -> bool:
        """Whether the last attempt failed, and what it left is as it left it."""
        try:
            return self.failed.exists() and not self.done.exists() and not self.damages()
        except RunFolderError:
            return False

    def finish(self, summary: TrialSummary, *, plan_fingerprint: str) -> None:
        """Write trial.json, put every file on disk, then write DONE, which lists them."""
        assert not self.failed.exists(), f"{self.root} holds a failed attempt"
        self.root.mkdir(parents=True, exist_ok=True)
        write_summary(self.trial_json, summary)
        for folder in (path for path in self.root.rglob("*") if path.is_dir()):
            sync_folder(folder)
        seals = {name: seal(self.root / name, sync=True) for name in self._files()}
        seals.pop(self.done.name, None)
        record = {
            "version": DONE_VERSION,
            "plan_fingerprint": plan_fingerprint,
            "summary": summary_record(summary),
            "files": {name: found._asdict() for name, found in seals.items()},
        }
        write_json(self.done, sealed(record))

    def verify(self, plan_fingerprint: str) -> str | None:
        """Why the trial has to run (again); None if it is finished and intact."""
        if not self.done.exists():
            return self._why_not_done()
        try:
            done = self._read_done()
            summary_of_record(done["summary"], self.done)
        except RunFolderError as error:
            return str(error)
        if done["plan_fingerprint"] != plan_fingerprint:
            return "it was made under another plan"
        return next(iter(self.damages()), None)

    def damages(self) -> list[str]:
        """What is wrong with the files that DONE or FAILED.json lists. Raises RunFolderError if
        that file itself is damaged or absent."""
        files = self._listed_files()
        found = (self._problem(name, known) for name, known in files.items())
        return [problem for problem in found if problem is not None]

    def summary(self) -> TrialSummary:
        """The summary given to `finish`. Raises RunFolderError if the trial is not finished."""
        return summary_of_record(self._read_done()["summary"], self.done)

    def require_unchanged(self, paths: Iterable[Path]) -> None:
        """Raise RunFolderError unless the trial ended and these files are unchanged."""
        files, record = self._listed_files(), self._last_written()
        problems = []
        for path in paths:
            name = path.relative_to(self.root).as_posix()
            if name not in files:
                problems.append(f"{record} does not list {name}")
            elif problem := self._problem(name, files[name]):
                problems.append(f"{self.root}/{problem}; {self.how_to_redo()}")
        if problems:
            raise RunFolderError(problems)

    def is_sealed(self, path: Path) -> bool:
        """Whether the trial ended, and the record of its end lists the file.

        Raises RunFolderError if that record is damaged.
        """
        if not self._last_written().exists():
            return False
        return path.relative_to(self.root).as_posix() in self._listed_files()

    def clear(self) -> list[str]:
        """Remove what an attempt left; return the removed files' paths within the folder."""
        # First, so that a kill in between leaves nothing that looks finished.
        with writing(self.done):
            self.done.unlink(missing_ok=True)
        removed = self._files()
        with writing(self.root):
            for path in self.root.iterdir() if self.root.exists() else ():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        return removed

    def _files(self) -> list[str]:
        paths = (path for path in self.root.rglob("*") if path.is_file() or path.is_symlink())
        return sorted(path.relative_to(self.root).as_posix() for path in paths)

    def _why_not_done(self) -> str:
        if self.failed.exists():
            return "it failed before"
        return "it was not finished" if self._files() else "it has not run yet"

    def num_listed_files(self) -> int:
        """How many files DONE or FAILED.json lists, including itself; 1 if it is damaged."""
        try:
            return 1 + len(self._listed_files())
        except RunFolderError:
            return 1

    def _problem(self, name: str, known: Seal) -> str | None:
        path = self.root / name
        if not path.is_file():
            return f"{name} is missing"
        found = seal(path)
        # Version 1 does not know the size.
        if known.num_bytes not in (found.num_bytes, _UNKNOWN_SIZE):
            return (
                f"{name} has changed since it was written: it has {found.num_bytes:,} bytes, but "
                f"{known.num_bytes} were written"
            )
        return None if found.sha256 == known.sha256 else f"{name} has changed since it was written"

    def how_to_redo(self) -> str:
        """The command that repeats the trial."""
        # RUN/trials/NAME--s0, or RUN/base.
        name, separator, _ = self.root.name.rpartition("--s")
        if not separator:
            return f"run `loracle resume {self.root.parent}` to repeat it"
        run = self.root.parent.parent
        return f"run `loracle resume {run} --candidate {name}` to repeat it"

    def _last_written(self) -> Path:
        """The record of the trial's end, which lists its files."""
        is_failed = self.failed.exists() and not self.done.exists()
        return self.failed if is_failed else self.done

    def _listed_files(self) -> dict[str, Seal]:
        is_failed = self._last_written() == self.failed
        files: dict[str, Seal] = (self._read_failed() if is_failed else self._read_done())["files"]
        return files

    def _read_failed(self) -> dict[str, Any]:
        try:
            record = read_json(self.failed)
        except RunFolderError as error:
            raise RunFolderError(f"{error}; {self.how_to_redo()}") from error
        # Version 1 has no number of its own.
        version = record.get("version", 1) if isinstance(record, dict) else None
        is_whole = version == 1 or (version == _FAILED_VERSION and seal_is_whole(record))
        if not is_whole or "reason" not in record:
            raise RunFolderError(
                f"{self.failed} is damaged: its content is not what was written; "
                f"{self.how_to_redo()}"
            )
        files = record.get("files", {})
        return {**record, "files": {name: _seal_of(known) for name, known in files.items()}}

    def _read_done(self) -> dict[str, Any]:
        done = read_json(self.done)
        if (
            not isinstance(done, dict)
            or done.get("version") not in range(_OLDEST_DONE, DONE_VERSION + 1)
            or not done.keys() >= {"plan_fingerprint", "summary", "files"}
        ):
            raise RunFolderError(f"{self.done} does not have the format that this version writes")
        if done["version"] > _OLDEST_DONE and not seal_is_whole(done):
            raise RunFolderError(
                f"{self.done} is damaged: its content is not what was written; {self.how_to_redo()}"
            )
        return {**done, "files": {name: _seal_of(known) for name, known in done["files"].items()}}


_UNKNOWN_SIZE = -1


def _seal_of(known: Any) -> Seal:
    return Seal(**known) if isinstance(known, dict) else Seal(str(known), _UNKNOWN_SIZE)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
