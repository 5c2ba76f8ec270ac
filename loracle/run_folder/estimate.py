"""The remaining time of a run, from its events: for the bars, the live page and `status`.

The remaining work is counted in training steps and answers, each at the speed measured so far. A
current trial is measured by its own steps; later trials by those of all before them. If trials run
on several devices, the remaining work is shared among them. There is no estimate before both speeds
are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from loracle.plan import BASE_NAME


@dataclass
class _Pace:
    """How much was done, and in how much time."""

    num_done: float = 0.0
    seconds: float = 0.0

    def add(self, num_done: float, seconds: float) -> None:
        self.num_done += num_done
        self.seconds += seconds

    @property
    def seconds_each(self) -> float | None:
        return self.seconds / self.num_done if self.num_done else None


@dataclass
class _Stage:
    """The current training or answering."""

    trial: str
    total: int
    started: float
    num_done: int = 0
    pace: _Pace = field(default_factory=_Pace)

    @property
    def num_left(self) -> int:
        return max(self.total - self.num_done, 0)


class RunEstimate:
    """Follows the events of a run's last process; `remaining_seconds` is as of the last event."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._num_steps: Mapping[str, int] = {}
        self._num_questions: int | None = None
        self._num_answered: dict[str, int] = {}
        self._ended: set[str] = set()
        self._step_pace = _Pace()
        self._base_pace = _Pace()
        self._trained_pace = _Pace()
        # By trial: on several devices more than one is under way.
        self._training: dict[str, _Stage] = {}
        self._answering: dict[str, _Stage] = {}
        self._placed: dict[str, str] = {}

    def take_record(self, event: Mapping[str, Any]) -> None:
        """Follow one line of events.jsonl, which may be of several processes."""
        if "event" in event:
            self.take(event["event"], event, _seconds(event.get("time")))

    def take(self, kind: str, fields: Mapping[str, Any], now: float) -> None:
        """Follow one event. now: its time in seconds, from any starting point."""
        match kind:
            case "run_started":
                # Another process: it plans its own work, and may be of another speed.
                self._start()
            case "work_planned":
                self._num_steps = fields["num_steps"]
                self._num_questions = fields["num_questions"]
            case "trial_placed":
                self._place(fields["trial"], fields["device"])
            case "trial_started":
                self._end_base()
                trial = fields["trial"]
                self._training[trial] = _Stage(trial, fields["num_steps"], now)
            case "trial_resumed":
                if fields["trial"] in self._training:
                    self._training[fields["trial"]].num_done = fields["step"]
            case "step":
                self._step(fields)
            case "evaluation_started":
                trial = fields["trial"]
                self._training.pop(trial, None)
                self._answering[trial] = _Stage(trial, fields["num_examples"], now)
            case "evaluated":
                self._answered(fields, now)
            case "base_finished":
                self._end(BASE_NAME)
            case "trial_finished" | "trial_failed" | "trial_skipped":
                self._end_base()
                self._end(fields["trial"])

    @property
    def remaining_seconds(self) -> float | None:
        """None: too little is known."""
        if self._num_questions is None:
            return None
        left = [name for name in self._num_steps if name not in self._ended]
        training, answering = self._training_left(left), self._answering_left(left)
        if training is None or answering is None:
            return None
        return (training + answering) / max(1, len(self._placed))

    def _training_left(self, left: list[str]) -> float | None:
        seconds, each = 0.0, self._step_pace.seconds_each
        under_way = self._training.keys() | self._answering.keys()
        for stage in self._training.values():
            own = stage.pace.seconds_each or each
            if own is None and stage.num_left:
                return None
            seconds += (own or 0.0) * stage.num_left
        num_steps = sum(self._num_steps[name] for name in left if name not in under_way)
        if not num_steps:
            return seconds
        return None if each is None else seconds + each * num_steps

    def _answering_left(self, left: list[str]) -> float | None:
        assert self._num_questions is not None
        names = left if BASE_NAME in self._ended else [BASE_NAME, *left]
        num_left = sum(self._num_questions - self._num_answered.get(name, 0) for name in names)
        if num_left <= 0:
            return 0.0
        # Trained models answer at a different speed from the base, because earlier answers are
        # their drafts.
        each = self._trained_pace.seconds_each or self._base_pace.seconds_each
        return None if each is None else each * num_left

    def _step(self, fields: Mapping[str, Any]) -> None:
        self._step_pace.add(1, fields["seconds"])
        stage = self._training.get(fields["trial"])
        if stage is not None:
            stage.num_done = fields["step"]
            stage.pace.add(1, fields["seconds"])

    def _answered(self, fields: Mapping[str, Any], now: float) -> None:
        trial = fields["trial"]
        stage = self._answering.get(trial)
        # Events without planned work come from an earlier version.
        if self._num_questions is None or stage is None:
            return
        num_new = fields["num_done"] - stage.num_done
        # Answers from an earlier process took no tokens in this one, and tell nothing about time.
        if fields["num_tokens"]:
            pace = self._base_pace if trial == BASE_NAME else self._trained_pace
            pace.add(num_new, max(now - stage.started, 0.0))
        stage.num_done, stage.started = fields["num_done"], now
        self._num_answered[trial] = self._num_answered.get(trial, 0) + num_new

    def _place(self, trial: str, device: str) -> None:
        """A device takes a trial, so that the one it had before has ended, or was lost."""
        before = self._placed.get(device)
        if before is not None and before != trial:
            self._end(before)
        # One whose process was lost comes a second time.
        self._ended.discard(trial)
        self._num_answered.pop(trial, None)
        self._placed[device] = trial

    def _end_base(self) -> None:
        """On one device the base comes first; if it was already finished, no event says so."""
        if not self._placed:
            self._end(BASE_NAME)

    def _end(self, trial: str) -> None:
        self._ended.add(trial)
        self._training.pop(trial, None)
        self._answering.pop(trial, None)


def estimate_of_events(path: Path) -> RunEstimate:
    """The estimate as of the last line of an events.jsonl; of none if there is no such file."""
    estimate = RunEstimate()
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            estimate.take_record(json.loads(line))
        # A line that a kill or a disk left damaged: the others still say what they say.
        except (ValueError, LookupError, TypeError, AttributeError):
            continue
    return estimate


def _seconds(time: str | None) -> float:
    """An event's time in seconds; 0 if it cannot be read."""
    try:
        return datetime.fromisoformat(time or "").timestamp()
    except ValueError:
        return 0.0
