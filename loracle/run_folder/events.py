"""The events of a run: their fields, the logs they go to, and their text in two languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from loracle.language import Language
from loracle.text import NOTHING, counted, duration, shown_score, visible

_PIPELINE, _TRAINING, _EVALUATION = "pipeline", "training", "evaluation"
EVERY_LOG = (_PIPELINE, _TRAINING, _EVALUATION)


class Event(NamedTuple):
    """A kind of event: its fields, the logs it goes to, and its line in English and Chinese.

    The line may use the fields and what `Narrator` makes of them: place, scores, duration,
    tokens_per_second, remaining, names, failures, where. The logs have the English line.
    """

    fields: tuple[str, ...]
    logs: tuple[str, ...]
    line: str
    line_zh: str


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
        "{run} started: {num_trials:trial} of {names}",
        "{run} 开始：共 {num_trials} 次训练，候选数据集 {names}",
    ),
    "dataset_read": Event(
        ("name", "description"), (_PIPELINE,), "{name}: {description}", "{name}：{description}"
    ),
    "warning": Event(("message",), EVERY_LOG, "warning: {message}", "警告：{message}"),
    "checked": Event(("message",), (_PIPELINE,), "{message}", "{message}"),
    "batch_size_chosen": Event(
        ("batch_size",),
        (_PIPELINE, _EVALUATION),
        "questions answered together: {batch_size}, as recommended",
        "一起回答的问题数：{batch_size}（推荐值）",
    ),
    # All the work of the run: the steps by trial, and the questions that each trial answers.
    "work_planned": Event(
        ("num_steps", "num_questions"),
        (_PIPELINE,),
        "planned: {total_steps:training step}, {total_answers:answer}{few_steps}",
        "计划：共 {total_steps:,} 个训练步，{total_answers:,} 个回答{few_steps}",
    ),
    "base_started": Event(
        (), (_PIPELINE,), "[base] the untrained model", "[base] 评测未训练的基座模型"
    ),
    "base_finished": Event(
        ("seconds",), (_PIPELINE,), "[base] done in {duration}", "[base] 完成，用时 {duration}"
    ),
    # Only where trials run on several devices; then it comes before all else of the trial.
    "trial_placed": Event(
        ("trial", "device"),
        (_PIPELINE,),
        "{place} goes to {device}",
        "{place} 分配到 {device}",
    ),
    "trial_started": Event(
        ("trial", "index", "num_trials", "candidate", "seed", "num_examples", "num_steps"),
        (_PIPELINE, _TRAINING),
        "{place} started: {num_examples:example}, {num_steps:step}",
        "{place} 开始训练：{num_examples:,} 条样本，{num_steps:,} 步",
    ),
    "trial_skipped": Event(
        ("trial", "index", "num_trials", "reason"),
        (_PIPELINE,),
        "{place} skipped: {reason}",
        "{place} 跳过：{reason}",
    ),
    "trial_resumed": Event(
        ("trial", "step", "num_steps"),
        (_PIPELINE, _TRAINING),
        "{place} resumes after step {step:,}/{num_steps:,}",
        "{place} 从第 {step:,}/{num_steps:,} 步之后继续",
    ),
    "step": Event(
        ("trial", "num_steps", *STEP_RECORD_FIELDS),
        (_TRAINING,),
        "{place} step {step}/{num_steps} · loss {loss:.3f} · {tokens_per_second} tokens/s"
        " · ETA {remaining}",
        "{place} 第 {step}/{num_steps} 步 · 损失 {loss:.3f} · {tokens_per_second} token/秒"
        " · 剩余 {remaining}",
    ),
    "evaluation_started": Event(
        ("trial", "evaluation", "num_examples"),
        (_EVALUATION,),
        "{place} {evaluation}: {num_examples:question}",
        "{place} {evaluation}：{num_examples:,} 个问题",
    ),
    # num_tokens: generated for this evaluation by this process, without earlier answers.
    "evaluated": Event(
        ("trial", "evaluation", "num_done", "num_examples", "num_tokens"),
        (_EVALUATION,),
        "{place} {evaluation}: {num_done}/{num_examples} answered · {num_tokens:token}",
        "{place} {evaluation}：已回答 {num_done}/{num_examples} · {num_tokens:,} token",
    ),
    "scored": Event(
        ("trial", "evaluation", "means"),
        (_PIPELINE, _EVALUATION),
        "{place} {evaluation}: {scores}",
        "{place} {evaluation}：{scores}",
    ),
    "trial_finished": Event(
        ("trial", "index", "num_trials", "seconds"),
        (_PIPELINE,),
        "{place} done in {duration}",
        "{place} 完成，用时 {duration}",
    ),
    "trial_failed": Event(
        ("trial", "index", "num_trials", "reason"),
        EVERY_LOG,
        "{place} failed: {reason}",
        "{place} 失败：{reason}",
    ),
    # The overall one first, with None for `evaluation` if it is over several sets.
    "decided": Event(("evaluation", "sentence"), (_PIPELINE,), "{sentence}", "{sentence}"),
    # report: its path; None if it could not be written.
    "run_finished": Event(
        ("run", "num_failed", "seconds", "report"),
        (_PIPELINE,),
        "{run} finished in {duration}{failures}{where}",
        "{run} 已结束，用时 {duration}{failures}{where}",
    ),
}


class _Number(int):
    """A count whose format may be a noun: "{num:step}" is "1 step" or "1,200 steps"."""

    def __format__(self, spec: str) -> str:
        return counted(self, spec) if spec.replace(" ", "").isalpha() else super().__format__(spec)


class Narrator:
    """Puts events into words. Remembers the current trials: their positions and steps' times."""

    def __init__(self, language: Language = "en") -> None:
        self._language: Language = language
        self._places: dict[str, str] = {}
        # By trial, since on several devices more than one is under way: steps, and their seconds.
        self._timed: dict[str, tuple[int, float]] = {}

    def line(self, kind: str, fields: Mapping[str, Any]) -> str:
        """The event's line. Control characters in names and reasons are spelled out."""
        self._follow(kind, fields)
        known = dict(fields) | self._derived(kind, fields)
        event = EVENTS[kind]
        numbers = {name: _Number(value) for name, value in known.items() if type(value) is int}
        text = (event.line if self._language == "en" else event.line_zh).format_map(known | numbers)
        # An error may have several lines; a log has one line for each event.
        return visible("; ".join(part.strip() for part in text.split("\n") if part.strip()))

    def _derived(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What a line may use besides the event's own fields."""
        known: dict[str, Any] = {}
        if "trial" in fields:
            known["place"] = self._places.get(fields["trial"], f"[{fields['trial']}]")
        if "seconds" in fields:
            known["duration"] = duration(fields["seconds"], self._language)
        if kind == "step":
            known["tokens_per_second"] = rate(fields["tokens_read"], fields["seconds"])
            known["remaining"] = self._remaining(
                fields["trial"], fields["num_steps"] - fields["step"]
            )
        elif kind == "scored":
            known["scores"] = _scores_in_words(fields["means"])
        elif kind == "run_started":
            known["names"] = ", ".join(fields["candidates"])
        elif kind == "work_planned":
            steps = fields["num_steps"]
            known["total_steps"] = sum(steps.values())
            known["total_answers"] = fields["num_questions"] * (len(steps) + 1)
            known["few_steps"] = self._few(steps)
        elif kind == "run_finished":
            known |= self._end(fields)
        return known

    def _few(self, num_steps: Mapping[str, int]) -> str:
        """Said before the training, and not only after it, if it is too short to teach much."""
        least = min(num_steps.values(), default=_FEW_STEPS)
        if least >= _FEW_STEPS:
            return ""
        trials = ", ".join(trial for trial, steps in num_steps.items() if steps == least)
        return _FEW_WORDS[self._language].format(
            steps=counted(least, "step"), num=least, trials=trials
        )

    def _end(self, fields: Mapping[str, Any]) -> dict[str, str]:
        num_failed, report = fields["num_failed"], fields["report"]
        stop, failed, where = _END_WORDS[self._language]
        return {
            "failures": f"{stop}{failed.format(num_failed)}" if num_failed else "",
            "where": f"{stop}{where.format(report)}" if report else "",
        }

    def _follow(self, kind: str, fields: Mapping[str, Any]) -> None:
        if "index" in fields:
            trial = fields["trial"]
            self._places[trial] = f"[{fields['index']}/{fields['num_trials']} {trial}]"
        if kind == "trial_started":
            self._timed[fields["trial"]] = 0, 0.0
        elif kind == "step":
            num_timed, seconds = self._timed.get(fields["trial"], (0, 0.0))
            self._timed[fields["trial"]] = num_timed + 1, seconds + fields["seconds"]

    def _remaining(self, trial: str, num_steps: int) -> str:
        num_timed, seconds = self._timed[trial]
        return duration(seconds / num_timed * num_steps, self._language)


_FEW_STEPS = 10
"""In fewer optimizer steps an adapter learns hardly anything at the default learning rate."""
_FEW_WORDS: Mapping[Language, str] = {
    "en": "; only {steps} for {trials}: lower training.batch_size or raise training.epochs",
    "zh": "；{trials} 只训练 {num} 步，调小 training.batch_size 或调大 training.epochs 可增加步数",
}
_END_WORDS: Mapping[Language, tuple[str, str, str]] = {
    "en": ("; ", "{} failed", "report: {}"),
    "zh": ("；", "{} 次失败", "报告 {}"),
}


def rate(num_tokens: int, seconds: float) -> str:
    """Tokens per second, for display."""
    return f"{num_tokens / seconds:,.0f}" if seconds > 0 else NOTHING


def _scores_in_words(means: Mapping[str, float]) -> str:
    return " · ".join(f"{metric} {shown_score(metric, mean)}" for metric, mean in means.items())
