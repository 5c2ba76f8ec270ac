"""The events of a run: their fields, the logs they go to, and their words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from loracle.text import duration, shown_score, visible

_PIPELINE, _TRAINING, _EVALUATION = "pipeline", "training", "evaluation"
EVERY_LOG = (_PIPELINE, _TRAINING, _EVALUATION)


class Event(NamedTuple):
    """A kind of event: its fields, the logs it goes to, and its line there.

    The line may use the fields and what `Narrator` makes of them: place, scores, duration,
    tokens_per_second, remaining, names, failures.
    """

    fields: tuple[str, ...]
    logs: tuple[str, ...]
    line: str


# A line of steps.jsonl.
STEP_RECORD_FIELDS = (
    "step",
    "epoch",
    "loss",
    "gradient_norm",
    "learning_rate",
    "tokens_read",
    "tokens_computed",
    "seconds",
)

# `index` counts the trials from 1.
EVENTS: Mapping[str, Event] = {
    "run_started": Event(
        ("run", "num_trials", "candidates"),
        (_PIPELINE,),
        "{run} started: {num_trials} trials of {names}",
    ),
    "dataset_read": Event(("name", "description"), (_PIPELINE,), "{name}: {description}"),
    "warning": Event(("message",), EVERY_LOG, "warning: {message}"),
    "checked": Event(("message",), (_PIPELINE,), "{message}"),
    "base_started": Event((), (_PIPELINE,), "[base] the untrained model"),
    "base_finished": Event(("seconds",), (_PIPELINE,), "[base] done in {duration}"),
    "trial_started": Event(
        ("trial", "index", "num_trials", "candidate", "seed", "num_examples", "num_steps"),
        (_PIPELINE, _TRAINING),
        "{place} started: {num_examples:,} examples, {num_steps:,} steps",
    ),
    "trial_skipped": Event(
        ("trial", "index", "num_trials", "reason"), (_PIPELINE,), "{place} skipped: {reason}"
    ),
    "trial_resumed": Event(
        ("trial", "step", "num_steps"),
        (_PIPELINE, _TRAINING),
        "{place} resumes after step {step:,}/{num_steps:,}",
    ),
    "step": Event(
        ("trial", "num_steps", *STEP_RECORD_FIELDS),
        (_TRAINING,),
        "{place} step {step}/{num_steps} · loss {loss:.3f} · {tokens_per_second} tokens/s"
        " · ETA {remaining}",
    ),
    "evaluation_started": Event(
        ("trial", "evaluation", "num_examples"),
        (_EVALUATION,),
        "{place} {evaluation}: {num_examples:,} questions",
    ),
    "evaluated": Event(
        ("trial", "evaluation", "num_done", "num_examples"),
        (_EVALUATION,),
        "{place} {evaluation}: {num_done}/{num_examples} answered",
    ),
    "scored": Event(
        ("trial", "evaluation", "means"),
        (_PIPELINE, _EVALUATION),
        "{place} {evaluation}: {scores}",
    ),
    "trial_finished": Event(
        ("trial", "index", "num_trials", "seconds"), (_PIPELINE,), "{place} done in {duration}"
    ),
    "trial_failed": Event(
        ("trial", "index", "num_trials", "reason"), EVERY_LOG, "{place} failed: {reason}"
    ),
    # The overall one first, with None for `evaluation` where it is over several sets.
    "decided": Event(("evaluation", "sentence"), (_PIPELINE,), "{sentence}"),
    "run_finished": Event(
        ("run", "num_failed", "seconds"), (_PIPELINE,), "{run} finished in {duration}{failures}"
    ),
}


class Narrator:
    """Puts events into words. Remembers the trial under way: its place and its steps' times."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}
        self._num_timed_steps = 0
        self._timed_seconds = 0.0

    def line(self, kind: str, fields: Mapping[str, Any]) -> str:
        """The event's line. Control characters in names and reasons are spelled out."""
        self._follow(kind, fields)
        known = dict(fields)
        if "trial" in fields:
            known["place"] = self._places.get(fields["trial"], f"[{fields['trial']}]")
        if "seconds" in fields:
            known["duration"] = duration(fields["seconds"])
        if kind == "step":
            known["tokens_per_second"] = _rate(fields["tokens_read"], fields["seconds"])
            known["remaining"] = self._remaining(fields["num_steps"] - fields["step"])
        elif kind == "scored":
            known["scores"] = _scores_in_words(fields["means"])
        elif kind == "run_started":
            known["names"] = ", ".join(fields["candidates"])
        elif kind == "run_finished":
            num_failed = fields["num_failed"]
            known["failures"] = f"; {num_failed} failed" if num_failed else ""
        text = EVENTS[kind].line.format_map(known)
        # An error may come in several lines; a log has one for each event.
        return visible("; ".join(part.strip() for part in text.split("\n") if part.strip()))

    def _follow(self, kind: str, fields: Mapping[str, Any]) -> None:
        if "index" in fields:
            trial = fields["trial"]
            self._places[trial] = f"[{fields['index']}/{fields['num_trials']} {trial}]"
        if kind == "trial_started":
            self._num_timed_steps, self._timed_seconds = 0, 0.0
        elif kind == "step":
            self._num_timed_steps += 1
            self._timed_seconds += fields["seconds"]

    def _remaining(self, num_steps: int) -> str:
        return duration(self._timed_seconds / self._num_timed_steps * num_steps)


def _rate(num_tokens: int, seconds: float) -> str:
    return f"{num_tokens / seconds:,.0f}" if seconds > 0 else "–"


def _scores_in_words(means: Mapping[str, float]) -> str:
    return " · ".join(f"{metric} {shown_score(metric, mean)}" for metric, mean in means.items())
