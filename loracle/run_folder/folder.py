"""The run folder: where everything is, and which process may write there.

    RUN/
      plan.json  {"version": 1, "fingerprint": "9f2c...", "plan": {...}}
      environment.json · pipeline.log · training.log · evaluation.log · events.jsonl · results.json
      inputs.json            the model's files when the run started (inputs.py)
      MANIFEST.json          size and sha256 of the above, except logs and events (manifest.py)
      questions/EVAL.jsonl   each evaluation's questions, for the reports
      report.html            generated from all the others
      base/                  a trial folder without training
      trials/NAME--s0/
        trial.json · steps.jsonl · checkpoint/ · adapter/
        predictions/EVAL.jsonl · scores/EVAL.jsonl
        FAILED.json          why the last attempt ended early
        DONE                 written last: size and sha256 of every other file, and the summary

One process works in a run folder at a time; it holds RUN/.lock (lock.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from loracle.errors import RunFolderError
from loracle.files import (
    UNFINISHED_PREFIX,
    json_bytes,
    read_json,
)
from loracle.plan import difference
from loracle.run_folder.environment import environment
from loracle.run_folder.inputs import INPUTS_VERSION
from loracle.run_folder.lock import HOLDER_NAME, LOCK_NAME, FolderLock, Holder
from loracle.run_folder.manifest import MANIFEST_NAME, Manifest
from loracle.run_folder.trial_folder import TrialFolder
from loracle.safety.storage_errors import writing
from loracle.text import first_few

__all__ = ["PLAN_VERSION", "RunFolder", "TrialFolder", "run_folders"]

PLAN_VERSION = 1


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
        self.inputs = self.root / "inputs.json"
        self.forecast_file = self.root / "forecast.json"
        self.base = TrialFolder(self.root / "base")
        self.replaced: Sequence[str] = ()
        """How the plan differs from that of an unfinished run that this one replaced."""
        self.repairs: list[str] = []
        """What was found damaged when the folder was opened, and what was done about it."""
        self._manifest = Manifest(self.root)
        self._lock = FolderLock(self.root)

    def questions(self, evaluation: str) -> Path:
        """Where the questions of an evaluation are kept for reports, because the data file may
        move."""
        return self.root / "questions" / f"{evaluation}.jsonl"

    def trial(self, name: str, seed: int) -> TrialFolder:
        """The folder of one candidate trained with one seed."""
        return TrialFolder(self.root / "trials" / f"{name}--s{seed}")

    @classmethod
    def open(cls, root: Path | str, frozen_plan: Mapping[str, Any], fingerprint: str) -> RunFolder:
        """Start a run in an empty or new folder, or resume one with the same plan.

        A run with another plan is replaced if none of its trials was finished; `replaced` says so.
        Records the environment. Raises RunFolderError if the folder contains something else or
        another plan (with the difference), or if another process works in it.
        """
        run = cls(root)
        try:
            run._refuse_foreign_files()
            with writing(run.root):
                run.root.mkdir(parents=True, exist_ok=True)
                run._lock.take()
            run._repair_manifest()
            run._remove_damaged_forecast()
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

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of the run itself, not of a trial, so that later damage is detected."""
        self.require_own()
        self._manifest.write(path, content)

    def require_own(self) -> None:
        """Raise RunFolderError if the folder that this process opened is no longer there."""
        if self._lock.is_lost():
            raise RunFolderError(
                f"{self.root} was removed, moved or replaced while this run worked in it; run the "
                "same command again: it resumes with what the folder then has"
            )

    def write_json(self, path: Path, value: Any) -> None:
        """Like `write`, for a JSON value."""
        self.write(path, json_bytes(value))

    def damage(self, path: Path) -> str | None:
        """Why a file of the run itself differs from what was written; None if it does not, or is
        absent, or comes from an earlier Loracle, which kept no hashes."""
        return self._manifest.problem(path)

    def require_whole(self, path: Path) -> None:
        """Raise RunFolderError if a file of the run itself differs from what was written."""
        if problem := self.damage(path):
            raise RunFolderError(f"{path} is damaged: {problem}; {self._how_to_redo(path)}")

    def listed_files(self) -> Sequence[Path]:
        """The files of the run itself that MANIFEST.json lists."""
        return [self.root / name for name in self._manifest.files()]

    def frozen_plan(self) -> dict[str, Any]:
        """The plan as it was frozen. Raises RunFolderError if it is missing or damaged."""
        return dict(self.plan_record()["plan"])

    def plan_record(self) -> dict[str, Any]:
        """The content of plan.json: version, fingerprint and plan. Raises as `frozen_plan`."""
        if self.plan.exists():
            self.require_whole(self.plan)
        return self._read_plan()

    def environments(self) -> list[dict[str, Any]]:
        """The environments of the run's processes, in order; empty if none is known."""
        if not self.environment.is_file():
            return []
        self.require_whole(self.environment)
        return list(read_json(self.environment))

    def recorded_model_files(self) -> dict[str, Any] | None:
        """The facts of the model's files when the run started (inputs.py); None: not known."""
        if not self.inputs.is_file():
            return None
        self.require_whole(self.inputs)
        record = read_json(self.inputs)
        return dict(record["model"]) if record.get("version") == INPUTS_VERSION else None

    def has_trials(self) -> bool:
        """Whether any trial, or the base's evaluation, was started."""
        return any((self.root / name).exists() for name in ("base", "trials"))

    def plan_fingerprint(self) -> str:
        """The fingerprint of the frozen plan. Raises RunFolderError as `frozen_plan` does."""
        return str(self.plan_record()["fingerprint"])

    def in_use(self) -> bool | None:
        """Whether a process works in the folder. None if that is unknown, for example because the
        last one ran on another machine."""
        return self._lock.is_held()

    def holder(self) -> Holder | None:
        """The process that works in the folder, or was working in it when it was killed."""
        return self._lock.holder()

    def close(self) -> None:
        """Release the folder for other processes. A second call does nothing."""
        self._lock.release()

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
            if path.name not in _MADE_BEFORE_THE_PLAN
            and not path.name.startswith(UNFINISHED_PREFIX)
        ]
        if foreign:
            raise RunFolderError(
                f"{self.root} is not a run folder, and is not empty (it has "
                f"{first_few(foreign, 1)}); "
                "choose another folder with --out"
            )

    def _repair_manifest(self) -> None:
        """Replace a damaged MANIFEST.json: files that only it could verify are created again."""
        for unfinished in self.root.glob(f"{UNFINISHED_PREFIX}*"):
            unfinished.unlink()
        try:
            known = self._manifest.files()
        except RunFolderError:
            self._manifest.path.unlink()
            for path in (self.check, self.results, self.inputs):
                path.unlink(missing_ok=True)
            shutil.rmtree(self.root / "questions", ignore_errors=True)
            self.repairs.append(
                f"{MANIFEST_NAME} was damaged; the data check, the questions and the results are "
                "created again"
            )
            known = {}
        if not known and self.environment.exists():
            self._manifest.take(self.environment)

    def _remove_damaged_forecast(self) -> None:
        """It is predicted again; the measurements of earlier starts are lost."""
        if problem := self.damage(self.forecast_file):
            self.repairs.append(
                f"{self.forecast_file.name} was damaged ({problem}); it is made again"
            )
            self.forecast_file.unlink()

    def _take_plan(self, frozen_plan: Mapping[str, Any], fingerprint: str) -> None:
        record = {"version": PLAN_VERSION, "fingerprint": fingerprint, "plan": dict(frozen_plan)}
        if self.plan.exists():
            stored = self._stored_plan(record)
            if stored["fingerprint"] != fingerprint:
                changes = difference(stored["plan"], frozen_plan)
                changes = changes or ["only the fingerprint: plan.json was changed"]
                if self._holds_work():
                    raise RunFolderError(
                        f"{self.root} contains a run of another plan; choose another folder with "
                        "--out, or use the same plan. What differs:\n  " + "\n  ".join(changes)
                    )
                self._remove_run()
                self.replaced = changes
            if stored == record and self.plan.name in self._manifest.files():
                return
        # The first start, or a data file was moved: the newest path is the one to resume with.
        self.write_json(self.plan, record)

    def _stored_plan(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The content of plan.json; if it is damaged, this start's plan, provided it is the same
        plan."""
        problem = self.damage(self.plan)
        if problem is None:
            return self._read_plan()
        if not self._manifest.expects(self.plan, json_bytes(record)):
            self.require_whole(self.plan)
        self.repairs.append(f"plan.json was damaged ({problem}); it is written again")
        self.write_json(self.plan, record)
        return dict(record)

    def _holds_work(self) -> bool:
        """Whether a trial is finished, or has reached a checkpoint."""
        patterns = ("trials/*/DONE", "trials/*/checkpoint/*")
        return any(path for pattern in patterns for path in self.root.glob(pattern))

    def _remove_run(self) -> None:
        """Remove what a run wrote, except its logs, which are continued, and files that are not a
        run's."""
        for folder in ("trials", "base", "questions"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        written = (self.events, self.check, self.results, self.inputs, self._manifest.path)
        for path in (*written, self.root / "report.html"):
            path.unlink(missing_ok=True)
        if self.environment.exists():
            self._manifest.take(self.environment)

    def _read_plan(self) -> dict[str, Any]:
        if not self.plan.exists():
            raise RunFolderError(f"{self.root} is not a run folder: it has no plan.json")
        stored = read_json(self.plan)
        if not isinstance(stored, dict) or stored.get("version") != PLAN_VERSION:
            raise RunFolderError(f"{self.plan} is not of version {PLAN_VERSION}")
        if not isinstance(stored.get("plan"), dict) or "fingerprint" not in stored:
            raise RunFolderError(f"{self.plan} is damaged: the plan or its fingerprint is missing")
        return stored

    def _record_environment(self) -> None:
        """Add this process to environment.json: a run may take several processes."""
        try:
            before = self.environments()
        except RunFolderError as error:
            before = []
            self.repairs.append(f"{error.problems[0]}; the record of earlier processes is lost")
        self.write_json(self.environment, [*before, environment()])

    def _how_to_redo(self, path: Path) -> str:
        if path == self.plan:
            return "rerun the command that started the run to rewrite it, or restore it from a copy"
        return f"run `loracle resume {self.root}` to create it again"


def run_folders(folder: Path) -> list[Path]:
    """The runs in a folder, or the folder itself if it is one.

    Raises RunFolderError if there is none.
    """
    if RunFolder(folder).plan.is_file():
        return [folder]
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in inside if path.is_dir() and RunFolder(path).plan.is_file()]
    if not found:
        raise RunFolderError(f"{folder} is not a run folder and contains none: it has no plan.json")
    return found


_MADE_BEFORE_THE_PLAN = frozenset({LOCK_NAME, HOLDER_NAME, MANIFEST_NAME})
