"""The run folder: where everything is, and how it is written so that a kill never spoils it.

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
        DONE                 written last: the sha256 of every other file, and the summary

One process works in a run folder at a time; it holds RUN/.lock. A file is either rows that are
appended one by one, or it is replaced as a whole, never half.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import mmap
import os
import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from loracle.errors import RunFolderError
from loracle.plan import difference

PLAN_VERSION = 1
DONE_VERSION = 1

_LOCK_NAME = ".lock"
# Files under way. The name is our own, so that remains of a killed process can be removed.
_UNFINISHED_PREFIX = ".loracle-unfinished-"


def write_atomically(path: Path, data: bytes | str) -> None:
    """Put `data` (text as UTF-8) at `path`: whoever reads sees the old file or the whole new one.

    Folders above are made. The file is on disk when this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A short random name: the final one may be as long as the file system allows.
    unfinished = path.with_name(f"{_UNFINISHED_PREFIX}{secrets.token_hex(8)}")
    try:
        with unfinished.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, keys in their own order.

    Raises ValueError where the value holds NaN or infinity, which JSON does not have.
    """
    write_atomically(path, _json_bytes(value, indent=2) + b"\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file atomically. Raises ValueError where a row holds NaN or infinity."""
    write_atomically(path, b"".join(_json_bytes(row, indent=None) + b"\n" for row in rows))


def read_json(path: Path) -> Any:
    """Read a JSON file of the run folder. Raises RunFolderError where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunFolderError(
            f"{path} is not valid JSON ({error}): it was damaged or changed by hand"
        ) from error


class JsonLines(NamedTuple):
    """The rows of a JSONL file; `torn_end` is what a killed writer left of a last row, or None."""

    rows: list[dict[str, Any]]
    torn_end: str | None


def read_json_lines(path: Path, *, allow_torn_end: bool = False) -> JsonLines:
    """Read the rows that a JsonLinesWriter wrote.

    With `allow_torn_end` an incomplete last row is handed back beside the rows, for the caller to
    report. Raises RunFolderError for it otherwise, and for any other damage, with its line.
    """
    try:
        *lines, end = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _parsed_row(line)
        if row is None:
            raise RunFolderError(f"{path}:{number}: not a JSON object; the file is damaged")
        rows.append(row)
    if not end:
        return JsonLines(rows, None)
    last = _parsed_row(end)
    if last is not None:
        return JsonLines([*rows, last], None)
    if not allow_torn_end:
        raise RunFolderError(
            f"{path}:{len(lines) + 1}: the last row is incomplete: its writer was stopped"
        )
    return JsonLines(rows, end.decode(errors="replace"))


class JsonLinesWriter:
    """Appends rows to a JSONL file, each handed to the system before `write` returns.

    resume: keep the rows that are there, else start anew. A last row that a killed writer left
    incomplete is cut off then; `torn_end` holds it, for the caller to report.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.torn_end = _mend_end(path) if resume and path.exists() else None
        self._file = path.open("ab" if resume else "wb")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. Raises ValueError where it holds NaN or infinity."""
        self._file.write(_json_bytes(row, indent=None) + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Put the rows on disk and close the file. A second call does nothing."""
        if not self._file.closed:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


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

    def finish(self, summary: Mapping[str, Any], *, plan_fingerprint: str) -> None:
        """Declare the trial finished: put every file on disk, then write DONE, which lists them."""
        assert not self.failed.exists(), f"{self.root} holds a failed attempt"
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (path for path in self.root.rglob("*") if path.is_dir()):
            _sync_folder(folder)
        hashes = {name: _synced_sha256(self.root / name) for name in self._files()}
        hashes.pop(self.done.name, None)
        write_json(
            self.done,
            {
                "version": DONE_VERSION,
                "plan_fingerprint": plan_fingerprint,
                "summary": dict(summary),
                "files": hashes,
            },
        )

    def verify(self, plan_fingerprint: str) -> str | None:
        """Why the trial has to run (again); None where it is finished and whole."""
        if not self.done.exists():
            return self._why_not_done()
        try:
            done = self._read_done()
        except RunFolderError as error:
            return str(error)
        if done["plan_fingerprint"] != plan_fingerprint:
            return "it was made under another plan"
        for name, expected in done["files"].items():
            path = self.root / name
            if not path.is_file():
                return f"{name} is missing"
            if _sha256(path) != expected:
                return f"{name} has changed since it was written"
        return None

    def summary(self) -> dict[str, Any]:
        """What `finish` was given. Raises RunFolderError where the trial is not finished."""
        return dict(self._read_done()["summary"])

    def require_unchanged(self, paths: Iterable[Path]) -> None:
        """Raise RunFolderError unless the trial is finished and these files are as it left them."""
        hashes = self._read_done()["files"]
        problems = []
        for path in paths:
            name = path.relative_to(self.root).as_posix()
            if name not in hashes:
                problems.append(f"{self.done} does not vouch for {name}")
            elif not path.is_file():
                problems.append(f"{path} is missing")
            elif _sha256(path) != hashes[name]:
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
        self._lock: IO[str] | None = None

    def questions(self, evaluation: str) -> Path:
        """Where the questions of an evaluation are kept, for reports: the data file may move."""
        return self.root / "questions" / f"{evaluation}.jsonl"

    def trial(self, name: str, seed: int) -> TrialFolder:
        """The folder of one candidate trained with one seed."""
        return TrialFolder(self.root / "trials" / f"{name}--s{seed}")

    @classmethod
    def open(cls, root: Path | str, frozen_plan: Mapping[str, Any], fingerprint: str) -> RunFolder:
        """Start a run in an empty or absent folder, or go on where its plan is the same.

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

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_foreign_files(self) -> None:
        if not self.root.exists() or self.plan.exists():
            return
        if not self.root.is_dir():
            raise RunFolderError(f"{self.root} is a file; name a folder with --out")
        foreign = [
            path.name
            for path in sorted(self.root.iterdir())
            if path.name != _LOCK_NAME and not path.name.startswith(_UNFINISHED_PREFIX)
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
        for unfinished in self.root.glob(f"{_UNFINISHED_PREFIX}*"):
            unfinished.unlink()
        record = {"version": PLAN_VERSION, "fingerprint": fingerprint, "plan": dict(frozen_plan)}
        if self.plan.exists():
            stored = self._read_plan()
            if stored["fingerprint"] != fingerprint:
                changes = difference(stored["plan"], frozen_plan)
                raise RunFolderError(
                    f"{self.root} holds a run of another plan; choose another folder with --out, "
                    "or give the same plan. What differs:\n  "
                    + "\n  ".join(changes or ["the fingerprint alone: plan.json was changed"])
                )
            if stored == record:
                return
        # The first time, or a data file was moved: the newest place is the one to go on with.
        write_json(self.plan, record)

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


_PACKAGES = (
    "loracle",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "safetensors",
    "numpy",
    "pyarrow",
    "pydantic",
)


def environment() -> dict[str, Any]:
    """What this process runs on: versions, machine, command line without secrets."""
    return {
        "time": _now(),
        "command": without_secrets(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": _num_cpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


_HIDDEN = "[hidden]"
_SECRET = r"(?:token|secret|password|passwd|credentials?|(?:api|access|secret)[-_]?key)"
_SECRET_OPTION = re.compile(rf"-[^=]*?[-_.]?{_SECRET}", re.IGNORECASE)
_SECRET_SETTING = re.compile(rf"((?:^|[-_.=]){_SECRET}=).+", re.IGNORECASE)
# Access tokens of known services by their first letters, and the user of a URL.
_SECRET_VALUE = re.compile(
    r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|AKIA)[\w-]{16,}|(?<=://)[^/@\s]+(?=@)"
)


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """The arguments with passwords and access tokens hidden: by their option's name or form."""
    kept = []
    previous = ""
    for argument in arguments:
        shown = _SECRET_SETTING.sub(rf"\1{_HIDDEN}", argument)
        shown = _SECRET_VALUE.sub(_HIDDEN, shown)
        kept.append(_HIDDEN if _SECRET_OPTION.fullmatch(previous) else shown)
        previous = argument
    return kept


def _num_cpus() -> int | None:
    """The processors this process may use, which in a container are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _json_bytes(value: Any, indent: int | None) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can spell as \ud83d and UTF-8 cannot.
        return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent).encode()


def _parsed_row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _mend_end(path: Path) -> str | None:
    """Make the file end with a whole line; return an incomplete row that was cut off."""
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.rfind(b"\n") + 1
            end = content[start:]
        if not end:
            return None
        if _parsed_row(end) is not None:
            file.write(b"\n")
            return None
        file.truncate(start)
        return end.decode(errors="replace")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synced_sha256(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Put a folder's list of names on disk, without which a rename may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
