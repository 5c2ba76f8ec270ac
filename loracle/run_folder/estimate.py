"""The remaining time of a run, from its events: for the bars and for the live page.

The remaining work is counted in training steps and answers, each at the speed measured so far. The
current trial is measured by its own steps; later trials by those of all before them. There is no
estimate before both speeds are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """Follows the events of one process of a run; `remaining_seconds` is as of the last one."""

    def __init__(self) -> None:
        self._num_steps: Mapping[str, int] = {}
        self._num_questions: int | None = None
        self._num_answered: dict[str, int] = {}
        self._ended: set[str] = set()
        self._step_pace = _Pace()
        self._base_pace = _Pace()
        self._trained_pace = _Pace()
        self._training: _Stage | None = None
        self._answering: _Stage | None = None

    def take(self, kind: str, fields: Mapping[str, Any], now: float) -> None:
        """Follow one event. now: its time in seconds, from any starting point."""
        match kind:
            case "work_planned":
                self._num_steps = fields["num_steps"]
                self._num_questions = fields["num_questions"]
            case "trial_started":
                # The base comes first; if it was already finished, there is no event for it.
                self._end(BASE_NAME)
                self._training = _Stage(fields["trial"], fields["num_steps"], now)
            case "trial_resumed":
                if self._training is not None:
                    self._training.num_done = fields["step"]
            case "step":
                self._step(fields)
            case "evaluation_started":
                self._training = None
                self._answering = _Stage(fields["trial"], fields["num_examples"], now)
            case "evaluated":
                self._answered(fields, now)
            case "base_finished":
                self._end(BASE_NAME)
            case "trial_finished" | "trial_failed" | "trial_skipped":
                self._end(BASE_NAME)
                self._end(fields["trial"])

    @property
    def remaining_seconds(self) -> float | None:
        """None: too little is known."""
        if self._num_questions is None:
            return None
        left = [name for name in self._num_steps if name not in self._ended]
        training, answering = self._training_left(left), self._answering_left(left)
        return None if training is None or answering is None else training + answering

    def _training_left(self, left: list[str]) -> float | None:
        seconds, each = 0.0, self._step_pace.seconds_each
        under_way = {stage.trial for stage in (self._training, self._answering) if stage}
        if (stage := self._training) is not None and stage.num_left:
            own = stage.pace.seconds_each or each
            if own is None:
                return None
            seconds = own * stage.num_left
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
        if self._training is not None and self._training.trial == fields["trial"]:
            self._training.num_done = fields["step"]
            self._training.pace.add(1, fields["seconds"])

    def _answered(self, fields: Mapping[str, Any], now: float) -> None:
        stage, trial = self._answering, fields["trial"]
        # Events without planned work come from an earlier version.
        if self._num_questions is None or stage is None or stage.trial != trial:
            return
        num_new = fields["num_done"] - stage.num_done
        # Answers from an earlier process took no tokens in this one, and tell nothing about time.
        if fields["num_tokens"]:
            pace = self._base_pace if trial == BASE_NAME else self._trained_pace
            pace.add(num_new, max(now - stage.started, 0.0))
        stage.num_done, stage.started = fields["num_done"], now
        self._num_answered[trial] = self._num_answered.get(trial, 0) + num_new

    def _end(self, trial: str) -> None:
        self._ended.add(trial)
        self._training = self._answering = None
