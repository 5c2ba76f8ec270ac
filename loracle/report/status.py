"""`loracle status`: the progress of a run, from its files and its lock only.

    run.state     running | interrupted | finished | incomplete | waiting | unknown
    trial.state   waiting | training | evaluating | done | failed | interrupted | damaged

A run is interrupted if it is unfinished and its process is gone; unknown if its last process ran
on another machine; incomplete if it ended with trials left out on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loracle.errors import RunFolderError
from loracle.files import read_json_lines
from loracle.report.run_record import TrialRecord, trial_records
from loracle.run_folder.estimate import estimate_of_events
from loracle.run_folder.folder import RunFolder


@dataclass(frozen=True)
class TrialStatus:
    """One trial. percent: of its work, by time. detail: the step, the evaluation, or the reason."""

    name: str
    state: str
    percent: float
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class RunStatus:
    """One run. seconds: the time of all trials so far; eta_seconds: the time left, None if it
    cannot be estimated yet (run_folder/estimate.py). holder: the process working in it, or the one
    that was when it was
    killed."""

    run: str
    state: str
    percent: float
    seconds: float
    eta_seconds: float | None
    holder: str | None
    trials: Sequence[TrialStatus]

    def record(self) -> dict[str, Any]:
        return asdict(self)


def run_status(root: Path | str) -> RunStatus:
    """The progress of a run. Raises RunFolderError if it is not a run folder or its plan is
    damaged."""
    folder = RunFolder(root)
    plan = folder.frozen_plan()
    in_use = folder.in_use()
    records = list(trial_records(folder, plan))
    planned_steps = _planned_steps(folder.events)
    num_questions = {
        entry["name"]: _num_rows(folder.questions(entry["name"])) for entry in plan["evaluation"]
    }
    answering = _answering_seconds(records[0])
    trials = [
        _trial_status(record, planned_steps, num_questions, answering, running=bool(in_use))
        for record in records
    ]
    state = _run_state(folder, trials, in_use)
    holder = folder.holder()
    return RunStatus(
        run=str(root),
        state=state,
        percent=_percent(trials, _weights(plan, records)),
        seconds=sum(trial.seconds for trial in trials),
        eta_seconds=_remaining(state, folder),
        holder=None if holder is None else str(holder),
        trials=trials,
    )


def _run_state(folder: RunFolder, trials: Sequence[TrialStatus], in_use: bool | None) -> str:
    if in_use:
        return "running"
    ended = all(trial.state in ("done", "failed") for trial in trials)
    if folder.results.is_file():
        return "finished" if ended else "incomplete"
    if in_use is None and folder.holder() is not None:
        return "unknown"
    begun = folder.events.is_file() and folder.events.stat().st_size > 0
    return "interrupted" if begun else "waiting"


def _trial_status(
    record: TrialRecord,
    planned_steps: Mapping[str, int],
    num_questions: Mapping[str, int],
    answering_seconds: float,
    *,
    running: bool,
) -> TrialStatus:
    folder = record.folder
    if record.is_done:
        try:
            seconds = sum(_summary_seconds(record))
        except RunFolderError as error:
            return TrialStatus(record.label, "damaged", 0.0, 0.0, str(error))
        return TrialStatus(record.label, "done", 100.0, seconds)
    if folder.failed.is_file():
        return _failed_status(record)
    if not folder.root.exists():
        return TrialStatus(record.label, "waiting", 0.0, 0.0)
    steps = _rows(folder.steps)
    trained = sum(row.get("seconds", 0.0) for row in steps)
    answered = {name: _num_rows(folder.predictions(name)) for name in num_questions}
    share = sum(answered.values()) / (sum(num_questions.values()) or 1)
    total_steps = max(planned_steps.get(_event_name(record), 0), len(steps))
    if any(answered.values()) or record.is_base:
        state, whole_training = "evaluating", trained
        detail = ", ".join(
            f"{name} {count}/{num_questions[name]}" for name, count in answered.items() if count
        )
    else:
        state, detail = "training", f"step {len(steps)}/{total_steps}"
        whole_training = trained * total_steps / len(steps) if steps else 0.0
    spent = trained + share * answering_seconds
    whole = whole_training + answering_seconds
    percent = 100 * min(1.0, spent / whole) if whole else 100 * share
    return TrialStatus(record.label, state if running else "interrupted", percent, spent, detail)


def _failed_status(record: TrialRecord) -> TrialStatus:
    folder = record.folder
    try:
        damage = next(iter(folder.damages()), None)
    except RunFolderError as error:
        damage = str(error)
    if damage is not None:
        return TrialStatus(record.label, "damaged", 0.0, 0.0, damage)
    return TrialStatus(record.label, "failed", 100.0, 0.0, folder.failure() or "")


def _weights(plan: Mapping[str, Any], records: Sequence[TrialRecord]) -> list[float]:
    """Roughly how much work each trial is: the base little, the others by the size of their
    data."""
    sizes = {entry["name"]: float(entry.get("size_bytes") or 1) for entry in plan["candidates"]}
    mean = sum(sizes.values()) / len(sizes)
    return [0.1 * mean if record.is_base else sizes[record.candidate] for record in records]


def _percent(trials: Sequence[TrialStatus], weights: Sequence[float]) -> float:
    done = sum(trial.percent * weight for trial, weight in zip(trials, weights, strict=True))
    return done / sum(weights)


def _remaining(state: str, folder: RunFolder) -> float | None:
    """As the bars and the live page show it."""
    if state == "finished":
        return None
    return estimate_of_events(folder.events).remaining_seconds


def _event_name(record: TrialRecord) -> str:
    """A trial's name as in events: with its seed only if the plan has more than one."""
    return record.candidate if record.label == record.candidate else record.folder.root.name


def _planned_steps(events: Path) -> dict[str, int]:
    """How many steps each trial was to take when it last started."""
    found: dict[str, int] = {}
    if not events.is_file():
        return found
    for line in events.read_bytes().split(b"\n"):
        if b'"trial_started"' not in line:
            continue
        try:
            event = json.loads(line)
            found[event["trial"]] = int(event["num_steps"])
        # A line damaged by a kill or by the disk: the other lines are still valid.
        except (ValueError, LookupError, TypeError):
            continue
    return found


def _answering_seconds(base: TrialRecord) -> float:
    try:
        return _summary_seconds(base)[1]
    # Reported with the base's own state.
    except RunFolderError:
        return 0.0


def _summary_seconds(record: TrialRecord) -> tuple[float, float]:
    """Of training and of evaluation; 0 if not done."""
    if not record.is_done:
        return 0.0, 0.0
    summary = record.folder.summary()
    training = 0.0 if summary.training is None else summary.training.seconds
    return training, summary.evaluation_seconds


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return read_json_lines(path, allow_torn_end=True).rows
    except RunFolderError:
        return []


def _num_rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0
