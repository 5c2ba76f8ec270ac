"""The state of a run, from its growing events.jsonl.

    {"time": "...", "event": "step", "trial": "clean", "step": 14, "num_steps": 56, "loss": ...}
      -> {"status": "running", "trials": [{"name": "clean", "stage": "training", "done": 14,
          "total": 56, "loss": 0.61, "curve": [[1, 3.1], ...]}], ...}

Only complete lines are read. A file that was replaced or has become shorter is read again, so a
restarted run is followed like the first. Long curves are kept at a bounded number of points.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from loracle.run_folder.estimate import RunEstimate

MAX_CURVE_POINTS = 240
_MAX_WARNINGS = 20
_CHUNK_BYTES = 4 << 20


class Curve:
    """Points of a training's loss; when there are too many, each is the mean of twice as many."""

    def __init__(self, max_points: int = MAX_CURVE_POINTS) -> None:
        self._max_points = max_points
        self._span = 1
        self._points: list[tuple[float, float]] = []
        self._pending: list[tuple[float, float]] = []

    def add(self, step: float, value: float) -> None:
        self._pending.append((step, value))
        if len(self._pending) < self._span:
            return
        self._points.append(_mean(self._pending))
        self._pending.clear()
        if len(self._points) > self._max_points:
            whole = len(self._points) // 2 * 2
            pairs = zip(self._points[0:whole:2], self._points[1:whole:2], strict=True)
            rest = self._points[whole:]
            # A point without a partner waits as the first half of the next point.
            self._pending = [point for point in rest for _ in range(self._span)]
            self._points = [_mean(pair) for pair in pairs]
            self._span *= 2

    def points(self) -> list[tuple[float, float]]:
        """All points, including the mean of an incomplete last one."""
        return [*self._points, *([_mean(self._pending)] if self._pending else [])]


def _mean(points: Iterable[tuple[float, float]]) -> tuple[float, float]:
    steps, values = zip(*points, strict=True)
    return sum(steps) / len(steps), sum(values) / len(values)


@dataclass
class TrialState:
    """The progress of one trial. `done` and `total` are steps in training, questions in
    evaluation."""

    name: str
    stage: str = "waiting"
    """waiting | training | evaluating | done | failed | skipped"""
    detail: str = ""
    """The current evaluation, or why the trial failed or was skipped."""
    done: int = 0
    total: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds: float | None = None
    """How long the trial took, once it is done."""
    device: str | None = None
    """Where it runs or ran; None: on the only device."""
    means: dict[str, dict[str, float]] = field(default_factory=dict)
    curve: Curve = field(default_factory=Curve)

    def record(self) -> dict[str, Any]:
        points = [[round(step, 1), round(value, 4)] for step, value in self.curve.points()]
        return {key: value for key, value in vars(self).items() if key != "curve"} | {
            "curve": points
        }


@dataclass
class RunState:
    """The state according to the events so far."""

    estimate: RunEstimate = field(default_factory=RunEstimate)
    status: str = "waiting"
    """waiting (no event yet) | running | finished, according to the events. A killed run wrote no
    final event: the reader of the folder's lock sets `interrupted`."""
    started: str | None = None
    updated: str | None = None
    num_trials: int = 0
    num_failed: int = 0
    num_events: int = 0
    num_unreadable: int = 0
    num_warnings: int = 0
    warnings: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_WARNINGS))
    trials: dict[str, TrialState] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        values = {key: value for key, value in vars(self).items() if key not in _NOT_VALUES}
        running = self.status == "running"
        return values | {
            # As of the last event.
            "remaining_seconds": self.estimate.remaining_seconds if running else None,
            "warnings": list(self.warnings),
            "trials": [trial.record() for trial in self.trials.values()],
        }

    def take(self, event: Mapping[str, Any]) -> None:
        """Follow one event. Kinds from a later version change only the count."""
        self.num_events += 1
        self.updated = event.get("time", self.updated)
        kind = event.get("event")
        if kind == "run_started":
            self._start(event)
        elif kind == "run_finished":
            self.status, self.num_failed = "finished", event["num_failed"]
        elif kind == "warning":
            self.num_warnings += 1
            self.warnings.append(event["message"])
        elif kind == "base_started":
            known = self.trials.get("base", TrialState("base"))
            self.trials["base"] = TrialState("base", "evaluating", device=known.device)
        elif "trial" in event:
            trial = self.trials.setdefault(event["trial"], TrialState(event["trial"]))
            if kind == "trial_started":
                # From the start, whatever an earlier attempt had reached.
                self.trials[trial.name] = TrialState(
                    trial.name, "training", total=event["num_steps"], device=trial.device
                )
            _follow_trial(trial, event)
        self.estimate.take_record(event)

    def _start(self, event: Mapping[str, Any]) -> None:
        """A run starts or restarts: trials that an earlier process left unfinished are waiting
        again."""
        self.status, self.started = "running", event["time"]
        self.num_trials, self.num_failed = event["num_trials"], 0
        self.trials = {
            name: trial if trial.stage in ("done", "skipped") else TrialState(name)
            for name, trial in self.trials.items()
        }
        # With several seeds, trials have their own names, known only when they start.
        if event["num_trials"] == len(event["candidates"]):
            for name in event["candidates"]:
                self.trials.setdefault(name, TrialState(name))


_NOT_VALUES = ("estimate", "warnings", "trials")


def _follow_trial(trial: TrialState, event: Mapping[str, Any]) -> None:
    match event["event"]:
        case "trial_placed":
            trial.device = event["device"]
        case "trial_skipped":
            trial.stage, trial.detail = "skipped", event["reason"]
        case "step":
            trial.done, trial.total, trial.loss = event["step"], event["num_steps"], event["loss"]
            seconds = event["seconds"]
            trial.tokens_per_second = event["tokens_read"] / seconds if seconds > 0 else None
            trial.curve.add(event["step"], event["loss"])
        case "evaluation_started":
            trial.stage, trial.detail = "evaluating", event["evaluation"]
            trial.done, trial.total = 0, event["num_examples"]
        case "evaluated":
            trial.done, trial.total = event["num_done"], event["num_examples"]
        case "scored":
            trial.means[event["evaluation"]] = event["means"]
            if trial.name == "base":
                trial.stage = "done"
        case "trial_finished":
            trial.stage, trial.detail, trial.seconds = "done", "", event["seconds"]
        case "trial_failed":
            trial.stage, trial.detail = "failed", event["reason"]


class Follower:
    """Reads a growing events.jsonl. `read` may be called from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._start_anew(None)

    def _start_anew(self, inode: int | None) -> None:
        self._inode = inode
        self._offset = 0
        self._state = RunState()

    def read(self) -> dict[str, Any]:
        """Read new events, and return the state as JSON values."""
        with self._lock:
            self._take_new()
            return self._state.record()

    def _take_new(self) -> None:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            # Not started, or removed: nothing is known until the file exists.
            self._start_anew(None)
            return
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._start_anew(status.st_ino)
            file.seek(self._offset)
            rest = b""
            while data := file.read(_CHUNK_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                self._offset += sum(len(line) + 1 for line in lines)
                for line in lines:
                    self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        try:
            self._state.take(json.loads(line))
        # A damaged line, or one from another version without a field that is used here.
        except (ValueError, KeyError, TypeError, AttributeError):
            self._state.num_unreadable += 1
