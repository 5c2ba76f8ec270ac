"""A run's progress as lines for the terminal, in English or Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from loracle.decision.wording import short_name
from loracle.language import Language
from loracle.report.status import RunStatus
from loracle.text import cell_width, duration, visible

_WORDS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "spent": "{time} spent",
        "left": "about {time} left",
        "colon": ": ",
        "resume": "run `loracle resume {run}` to finish it",
    },
    "zh": {
        "spent": "已用 {time}",
        "left": "剩余约 {time}",
        "colon": "：",
        "resume": "执行 `loracle resume {run}` 可继续完成",
        "running": "运行中",
        "interrupted": "已中断",
        "finished": "已结束",
        "incomplete": "未全部完成",
        "waiting": "等待",
        "unknown": "未知",
        "training": "训练中",
        "evaluating": "评测中",
        "done": "完成",
        "failed": "失败",
        "damaged": "已损坏",
    },
}


def status_lines(run: RunStatus, language: Language = "en") -> list[str]:
    """The run in one line, then each of its trials, then what to do if it is unfinished."""
    words = _WORDS[language]
    state = words.get(run.state, run.state)
    parts = [f"{run.percent:.0f} %", words["spent"].format(time=duration(run.seconds, language))]
    if run.eta_seconds is not None and run.state == "running":
        parts.append(words["left"].format(time=duration(run.eta_seconds, language)))
    if run.holder and run.state in ("running", "unknown"):
        parts.append(run.holder)
    lines = [f"{run.run}{words['colon']}{state} · {' · '.join(parts)}"]
    lines += _trial_lines(run, words, language)
    if run.state in ("interrupted", "incomplete"):
        lines.append(f"  {words['resume'].format(run=run.run)}")
    return lines


def _trial_lines(run: RunStatus, words: Mapping[str, str], language: Language) -> list[str]:
    """Columns: name, state, percent, time, and the first line of the detail."""
    full = [visible(trial.name) for trial in run.trials]
    names = [_short_trial(name, full) for name in full]
    states = [words.get(trial.state, trial.state) for trial in run.trials]
    times = [duration(trial.seconds, language) for trial in run.trials]
    name_width, state_width, time_width = (
        max(map(cell_width, column)) for column in (names, states, times)
    )
    return [
        f"  {_padded(name, name_width)}  {_padded(state, state_width)}  {trial.percent:3.0f} %  "
        f"{' ' * (time_width - cell_width(time))}{time}  "
        f"{visible(trial.detail.split(chr(10))[0])}".rstrip()
        for trial, name, state, time in zip(run.trials, names, states, times, strict=True)
    ]


def _short_trial(name: str, among: list[str]) -> str:
    """A trial's name without its middle; its seed stays."""
    candidate, seed, number = name.partition(" · seed ")
    candidates = list(dict.fromkeys(one.partition(" · seed ")[0] for one in among))
    return f"{short_name(candidate, candidates)}{seed}{number}"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_width(text))
