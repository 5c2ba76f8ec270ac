"""The run folder: where everything is, and which process may write there.

    RUN/
      plan.json  {"version": 1, "fingerprint": "9f2c...", "plan": {...}}
      environment.json · pipeline.log · training.log · evaluation.log · events.jsonl · results.json
      questions/EVAL.jsonl   what each evaluation asks, as the reports show it
      report.html            made from all the others
      base/                  a trial folder without training
      trials/NAME--s0/
        trial.json · steps.jsonl · checkpoint/ · adapter/
        predictions/EVAL.jsonl · scores/EVAL.jsonl
        FAILED.json          why the last attempt ended early
        DONE                 written last: the sha256 of every other file, and trial.json's record

One process works in a run folder at a time; it holds RUN/.lock.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from loracle.errors import RunFolderError
from loracle.files import (
    UNFINISHED_PREFIX,
    read_json,
    sha256,
    sync_folder,
    synced_sha256,
    write_json,
)
from loracle.plan import difference
from loracle.run_folder.environment import environment
from loracle.run_folder.trial_record import (
    TrialSummary,
    summary_of_record,
    summary_record,
    write_summary,
)

PLAN_VERSION = 1
DONE_VERSION = 1
_LOCK_NAME = ".lock"


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
        """Where the generated answers to an evaluation's questions are."""
        return self.root / "predictions" / f"{evaluation}.jsonl"

    def scores(self, evaluation: str) -> Path:
        """Where the score of each of those answers is."""
        return self.root / "scores" / f"{evaluation}.jsonl"

    def fail(self, reason: str) -> None:
        """Record why the attempt ended early."""
        write_json(self.failed, {"time": _now(), "reason": reason})

    def finish(self, summary: TrialSummary, *, plan_fingerprint: str) -> None:
        """Write trial.json, put every file on disk, then write DONE, which lists them."""
        assert not self.failed.exists(), f"{self.root} holds a failed attempt"
        self.root.mkdir(parents=True, exist_ok=True)
        write_summary(self.trial_json, summary)
        for folder in (path for path in self.root.rglob("*") if path.is_dir()):
            sync_folder(folder)
        hashes = {name: synced_sha256(self.root / name) for name in self._files()}
        hashes.pop(self.done.name, None)
        write_json(
            self.done,
            {
                "version": DONE_VERSION,
                "plan_fingerprint": plan_fingerprint,
                "summary": summary_record(summary),
                "files": hashes,
            },
        )

    def verify(self, plan_fingerprint: str) -> str | None:
        """Why the trial has to run (again); None where it is finished and whole."""
        if not self.done.exists():
            return self._why_not_done()
        try:
            done = self._read_done()
            summary_of_record(done["summary"], self.done)
        except RunFolderError as error:
            return str(error)
        if done["plan_fingerprint"] != plan_fingerprint:
            return "it was made under another plan"
        for name, expected in done["files"].items():
            path = self.root / name
            if not path.is_file():
                return f"{name} is missing"
            if sha256(path) != expected:
                return f"{name} has changed since it was written"
        return None

    def summary(self) -> TrialSummary:
        """What `finish` was given. Raises RunFolderError if the trial is not finished."""
        return summary_of_record(self._read_done()["summary"], self.done)

    def require_unchanged(self, paths: Iterable[Path]) -> None:
        """Raise RunFolderError unless the trial is finished and these files are as it left them."""
        hashes = self._read_done()["files"]
        problems = []
        for path in paths:
            name = path.relative_to(self.root).as_posix()
            if name not in hashes:
                problems.append(f"{self.done} does not list {name}")
            elif not path.is_file():
                problems.append(f"{path} is missing")
            elif sha256(path) != hashes[name]:
                problems.append(
                    f"{path} has changed since it was written; the command that made the run "
                    "makes it again"
                )
        if problems:
            raise RunFolderError(problems)

    def clear(self) -> list[str]:
        """Remove what an attempt left; return the removed files' paths within the folder."""
        # First of all, so that a kill in between leaves nothing that looks finished.
        self.done.unlink(missing_ok=True)
        removed = self._files()
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

    def _read_done(self) -> dict[str, Any]:
        done = read_json(self.done)
        if (
            not isinstance(done, dict)
            or done.get("version") != DONE_VERSION
            or not done.keys() >= {"plan_fingerprint", "summary", "files"}
        ):
            raise RunFolderError(f"{self.done} is not of a form that this version writes")
        return done


class RunFolder:
    """The files of one experiment. Made by `open`, it holds the folder's lock until `close`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        self.plan = self.root / "plan.json"
        self.environment = self.root / "environment.json"
        self.pipeline_log = self.root / "pipeline.log"
        self.training_log = self.root / "training.log"
        self.evaluation_log = self.root / "evaluation.log"
        self.events = self.root / "events.jsonl"
        self.check = self.root / "check.json"
        self.results = self.root / "results.json"
        self.base = TrialFolder(self.root / "base")
        self.replaced: Sequence[str] = ()
        """How the plan differs from that of an unfinished run which this one replaced."""
        self._lock: IO[str] | None = None

    def questions(self, evaluation: str) -> Path:
        """Where the questions of an evaluation are kept, for reports: the data file may move."""
        return self.root / "questions" / f"{evaluation}.jsonl"

    def trial(self, name: str, seed: int) -> TrialFolder:
        """The folder of one candidate trained with one seed."""
        return TrialFolder(self.root / "trials" / f"{name}--s{seed}")

    @classmethod
    def open(cls, root: Path | str, frozen_plan: Mapping[str, Any], fingerprint: str) -> RunFolder:
        """Start a run in an empty or absent folder, or resume one of the same plan.

        A run of another plan is replaced if no trial of it was finished; `replaced` says so.
        Records the environment. Raises RunFolderError where the folder holds something else or
        another plan (with the difference), or another process works in it.
        """
        run = cls(root)
        try:
            run._refuse_foreign_files()
            run.root.mkdir(parents=True, exist_ok=True)
            run._take_lock()
            run._take_plan(frozen_plan, fingerprint)
            run._record_environment()
        except OSError as error:
            run.close()
            raise RunFolderError(
                f"the run folder {run.root} cannot be used: {error}; choose another with --out"
            ) from error
        except BaseException:
            run.close()
            raise
        return run

    def frozen_plan(self) -> dict[str, Any]:
        """The plan as it was frozen. Raises RunFolderError where it is missing or damaged."""
        return dict(self._read_plan()["plan"])

    def plan_fingerprint(self) -> str:
        """The fingerprint of the frozen plan. Raises RunFolderError as `frozen_plan` does."""
        return str(self._read_plan()["fingerprint"])

    def in_use(self) -> bool | None:
        """Whether a process works in the folder. None: it cannot be told from here, as where the
        last one ran on another machine."""
        try:
            with (self.root / _LOCK_NAME).open(encoding="utf-8") as file:
                # Shared, and for a moment: `_take_lock` waits longer than that.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                last_holder = file.read()
        except BlockingIOError:
            return True
        except OSError:
            return None
        return False if last_holder.endswith(_this_machine()) else None

    def close(self) -> None:
        """Let other processes work in the folder. A second call does nothing."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_foreign_files(self) -> None:
        if not self.root.exists() or self.plan.exists():
            return
        if not self.root.is_dir():
            raise RunFolderError(f"{self.root} is a file; name a folder with --out")
        foreign = [
            path.name
            for path in sorted(self.root.iterdir())
            if path.name != _LOCK_NAME and not path.name.startswith(UNFINISHED_PREFIX)
        ]
        if foreign:
            raise RunFolderError(
                f"{self.root} is not a run folder and not empty (it has {foreign[0]}"
                f"{f' and {len(foreign) - 1} more' if foreign[1:] else ''}); "
                "choose another folder with --out"
            )

    def _take_lock(self) -> None:
        # "a": whoever fails to get the lock must not wipe out the holder's name.
        file = (self.root / _LOCK_NAME).open("a+", encoding="utf-8")
        try:
            _lock_soon(file)
        except BlockingIOError as error:
            with file:
                file.seek(0)
                holder = file.read().strip() or "another process"
            raise RunFolderError(
                f"{self.root} is in use by {holder}; wait for its end, or choose another folder "
                "with --out"
            ) from error
        except BaseException:
            file.close()
            raise
        self._lock = file
        file.truncate(0)
        file.write(f"process {os.getpid()}{_this_machine()}")
        file.flush()

    def _take_plan(self, frozen_plan: Mapping[str, Any], fingerprint: str) -> None:
        for unfinished in self.root.glob(f"{UNFINISHED_PREFIX}*"):
            unfinished.unlink()
        record = {"version": PLAN_VERSION, "fingerprint": fingerprint, "plan": dict(frozen_plan)}
        if self.plan.exists():
            stored = self._read_plan()
            if stored["fingerprint"] != fingerprint:
                changes = difference(stored["plan"], frozen_plan)
                changes = changes or ["the fingerprint alone: plan.json was changed"]
                if self._holds_work():
                    raise RunFolderError(
                        f"{self.root} holds a run of another plan; choose another folder with "
                        "--out, or give the same plan. What differs:\n  " + "\n  ".join(changes)
                    )
                self._remove_run()
                self.replaced = changes
            if stored == record:
                return
        # The first time, or a data file was moved: the newest place is the one to go on with.
        write_json(self.plan, record)

    def _holds_work(self) -> bool:
        """Whether a trial is finished, or has come as far as a checkpoint."""
        patterns = ("trials/*/DONE", "trials/*/checkpoint/*")
        return any(path for pattern in patterns for path in self.root.glob(pattern))

    def _remove_run(self) -> None:
        """Remove what a run wrote, but its logs, which go on, and files that are not a run's."""
        for folder in ("trials", "base", "questions"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        for path in (self.events, self.check, self.results, self.root / "report.html"):
            path.unlink(missing_ok=True)

    def _read_plan(self) -> dict[str, Any]:
        if not self.plan.exists():
            raise RunFolderError(f"{self.root} is not a run folder: it has no plan.json")
        stored = read_json(self.plan)
        if not isinstance(stored, dict) or stored.get("version") != PLAN_VERSION:
            raise RunFolderError(f"{self.plan} is not of version {PLAN_VERSION}")
        if not isinstance(stored.get("plan"), dict) or "fingerprint" not in stored:
            raise RunFolderError(f"{self.plan} is damaged: it lacks the plan or its fingerprint")
        return stored

    def _record_environment(self) -> None:
        """Add this process to environment.json: a run may have been made in several."""
        before = read_json(self.environment) if self.environment.exists() else []
        write_json(self.environment, [*before, environment()])


_LOCK_ATTEMPTS = 5
_SECONDS_BETWEEN_ATTEMPTS = 0.05


def _lock_soon(file: IO[str]) -> None:
    """Lock the file. Raises BlockingIOError where another process keeps it; `in_use` lets go."""
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if attempt == _LOCK_ATTEMPTS - 1:
                raise
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)


def _this_machine() -> str:
    return f" on {platform.node()}\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
