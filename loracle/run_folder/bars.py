"""The progress bars of a run on a terminal: one for the run, one for each current trial.

    ⠹ 1 of 3 trials      ━━━━──────── 3 min 12 s · about 6 min 40 s left
      alpaca-zh…eaned-v2 ━━━━━━━━──── step 39/56 · loss 0.612 · 4,310 tokens/s

Results and warnings stay above them. A thread draws the bars; an error in it (such as a closed
terminal) is raised by the next event. Parts that don't fit the width are left out whole; names are
cut in the middle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loracle.language import Language
from loracle.plan import BASE_NAME
from loracle.run_folder.estimate import RunEstimate
from loracle.run_folder.events import rate
from loracle.text import cell_width, duration, shortened, visible, wrapped

_NAME_WIDTH = 18
_BAR_WIDTH = 12
_EVALUATION_WIDTH = 12
_SECONDS_BETWEEN_FRAMES = 0.1
_SECONDS_BETWEEN_TICKS = 0.25
_MOST_STAGES = 8
"""Trials under way that have a bar of their own."""
_SPINNER, _ASCII_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"

_WORDS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "trials": "{done} of {total} trials",
        "left": "about {time} left",
        "preparing": "checking data, loading the model",
        "evaluating": "evaluating",
        "step": "step {done:,}/{total:,}",
        "loss": "loss {loss:.3f}",
        "rate": "{rate} tokens/s",
        "answered": "{evaluation}: {done:,}/{total:,} questions",
        "tokens": "{tokens:,} tokens",
        "more": "and {num} more",
    },
    "zh": {
        "trials": "训练 {done}/{total}",
        "left": "剩余约 {time}",
        "preparing": "检查数据，加载模型",
        "evaluating": "评测中",
        "step": "第 {done:,}/{total:,} 步",
        "loss": "损失 {loss:.3f}",
        "rate": "{rate} token/秒",
        "answered": "{evaluation}：已答 {done:,}/{total:,} 题",
        "tokens": "{tokens:,} token",
        "more": "另有 {num} 个",
    },
}
_LINE_STYLES = {"warning": "yellow", "trial_failed": "red", "scored": "bold"}
# These are shown only by the bars.
_SHOWN_BY_BARS = frozenset({"step", "evaluated", "trial_started", "evaluation_started"})
_STAGE_ENDS = frozenset({"base_finished", "trial_finished", "trial_failed", "trial_skipped"})


_BarRow: TypeAlias = tuple[str, str, int, int | None, Sequence[str]]
"""Spinner, name, amount done, total, and the parts of the text."""


@dataclass
class _Stage:
    """What the lower bar shows. total: None while the amount of work is unknown."""

    name: str
    started: float
    num_done: int = 0
    total: int | None = None
    parts: Sequence[str] = ()


class RichView:
    """A bar for the run and one for each current trial; results stay above them."""

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        language: Language = "en",
    ) -> None:
        self._console = console or SafeConsole(stderr=True)
        self._clock = clock
        self._words = _WORDS[language]
        self._language: Language = language
        self._estimate = RunEstimate()
        self._started: float | None = None
        self._last_event = self._last_frame = -float("inf")
        self._num_trials_done, self._num_trials = 0, 0
        # By trial: on several devices more than one is under way.
        self._stages: dict[str, _Stage] = {}
        self._ended: set[str] = set()
        self._devices: set[str] = set()
        self._live = Live(
            get_renderable=self._frame,
            console=self._console,
            auto_refresh=False,
            transient=True,
            # Standard output is reserved for the result.
            redirect_stdout=False,
        )
        self._ticker = _Ticker(self._live.refresh)

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        self._ticker.raise_error()
        now = self._clock()
        if self._started is None:
            self._started = now
            self._live.start()
            self._ticker.start()
        self._last_event = now
        self._estimate.take(kind, fields, now)
        self._follow(kind, fields, now)
        if kind not in _SHOWN_BY_BARS:
            text = Text(wrapped(line, self._console.width), style=_LINE_STYLES.get(kind, ""))
            self._console.print(text, overflow="ignore", crop=False)
        often = kind in ("step", "evaluated") and not self._is_done(fields["trial"])
        if not often or now - self._last_frame >= _SECONDS_BETWEEN_FRAMES:
            self._last_frame = now
            self._live.refresh()

    def close(self) -> None:
        self._ticker.stop()
        self._live.stop()

    def _is_done(self, trial: str) -> bool:
        stage = self._stages.get(trial)
        return stage is not None and stage.num_done == stage.total

    def _follow(self, kind: str, fields: Mapping[str, Any], now: float) -> None:
        words = self._words
        match kind:
            case "run_started":
                self._num_trials = fields["num_trials"]
                self._stages = {"": _Stage("", now, parts=[words["preparing"]])}
            case "trial_placed":
                self._devices.add(fields["device"])
                self._put(_Stage(fields["trial"], now))
            case "base_started":
                self._put(_Stage(BASE_NAME, now, parts=[words["evaluating"]]))
            case "trial_started":
                self._put(_Stage(fields["trial"], now, total=fields["num_steps"]))
            case "trial_resumed":
                self._stage_of(fields["trial"], fields["num_steps"], now).num_done = fields["step"]
            case "step":
                self._show_step(fields, now)
            case "evaluation_started":
                self._show_answers({**fields, "num_done": 0, "num_tokens": 0}, now)
            case "evaluated":
                self._show_answers(fields, now)
            case "run_finished":
                self._stages = {}
        if "index" in fields:
            self._num_trials = fields["num_trials"]
            self._num_trials_done = fields["index"] - (kind == "trial_started")
        if kind in _STAGE_ENDS:
            trial = fields.get("trial", BASE_NAME)
            self._stages.pop(trial, None)
            self._ended.add(trial)
        if self._devices:
            self._num_trials_done = len(self._ended - {BASE_NAME})

    def _put(self, stage: _Stage) -> None:
        """Show a stage, on one device in place of the one before."""
        stages = {} if not self._devices else self._stages
        self._stages = {**stages, stage.name: stage}
        self._stages.pop("", None)

    def _show_step(self, fields: Mapping[str, Any], now: float) -> None:
        stage = self._stage_of(fields["trial"], fields["num_steps"], now)
        stage.num_done = fields["step"]
        stage.parts = [
            self._words["step"].format(done=stage.num_done, total=stage.total),
            self._words["loss"].format(loss=fields["loss"]),
            self._words["rate"].format(rate=rate(fields["tokens_read"], fields["seconds"])),
        ]

    def _show_answers(self, fields: Mapping[str, Any], now: float) -> None:
        stage = self._stage_of(fields["trial"], fields["num_examples"], now)
        if fields["num_done"] == 0:
            stage.started = now
        stage.num_done, num_tokens = fields["num_done"], fields["num_tokens"]
        stage.parts = [
            self._words["answered"].format(
                evaluation=shortened(visible(fields["evaluation"]), _EVALUATION_WIDTH),
                done=stage.num_done,
                total=stage.total,
            ),
            self._words["tokens"].format(tokens=num_tokens),
        ]
        if num_tokens:
            speed = rate(num_tokens, now - stage.started)
            stage.parts = [*stage.parts, self._words["rate"].format(rate=speed)]

    def _stage_of(self, trial: str, total: int, now: float) -> _Stage:
        if trial not in self._stages:
            self._put(_Stage(trial, now))
        stage = self._stages[trial]
        stage.total = total
        return stage

    def _frame(self) -> RenderableType:
        """All bars in their current state; also called by the ticker's thread, so it only reads."""
        now, started, stages = self._clock(), self._started, list(self._stages.values())
        if started is None:
            return Text("")
        frames = _ASCII_SPINNER if self._console.options.ascii_only else _SPINNER
        spinner = frames[int(now * 8) % len(frames)]
        trials = self._words["trials"].format(done=self._num_trials_done, total=self._num_trials)
        rows: list[_BarRow] = [
            (spinner, trials, self._num_trials_done, self._num_trials, self._times(started, now))
        ]
        for stage in stages[:_MOST_STAGES]:
            elapsed = duration(now - stage.started, self._language, tenths=False)
            parts = [*stage.parts, elapsed]
            rows.append((" ", visible(stage.name), stage.num_done, stage.total, parts))
        if (num_more := len(stages) - _MOST_STAGES) > 0:
            rows.append((" ", self._words["more"].format(num=num_more), 0, 1, []))
        return self._grid(rows, now)

    def _times(self, started: float, now: float) -> list[str]:
        parts = [duration(now - started, self._language, tenths=False)]
        remaining = self._estimate.remaining_seconds
        if remaining is not None and self._num_trials_done < self._num_trials:
            left = max(remaining - (now - self._last_event), 1.0)
            shown = duration(left, self._language, tenths=False)
            parts.append(self._words["left"].format(time=shown))
        return parts

    def _grid(self, rows: Sequence[_BarRow], now: float) -> Table:
        width = self._console.width
        name_width = min(_NAME_WIDTH, width // 3)
        bar_width = min(_BAR_WIDTH, width // 5)
        # The spinner, and one column between the four parts; the last column stays free.
        rest = width - 1 - name_width - bar_width - 3 - 1
        grid = Table.grid(padding=(0, 1, 0, 0))
        for column_width in (1, name_width, bar_width, max(rest, 1)):
            grid.add_column(width=column_width, no_wrap=True)
        for spinner, name, num_done, total, parts in rows:
            bar = ProgressBar(
                # A bar with a total of 0 would be drawn as full.
                total=total or 1,
                completed=num_done,
                width=bar_width,
                pulse=total is None,
                animation_time=now,
            )
            grid.add_row(spinner, Text(shortened(name, name_width)), bar, Text(_fit(parts, rest)))
        return grid


def _fit(parts: Sequence[str], width: int) -> str:
    """As many whole parts as fit, from the first."""
    line = ""
    for part in parts:
        longer = f"{line} · {part}" if line else part
        if cell_width(longer) > width:
            break
        line = longer
    return line


class SafeConsole(Console):
    """A console that raises an ordinary error for a closed pipe; Rich's own exits the program."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that is being handled


class _Ticker:
    """Calls `draw` every quarter of a second, in a separate thread, until it fails or is stopped.

    Errors of a thread cannot be caught, so `raise_error` raises them for the caller.
    """

    def __init__(self, draw: Callable[[], None]) -> None:
        self._draw = draw
        self._stopped = threading.Event()
        self._error: OSError | ValueError | None = None
        self._thread = threading.Thread(target=self._run, name="loracle-bars", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def raise_error(self) -> None:
        """Raise the error that stopped the drawing, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        while not self._stopped.wait(_SECONDS_BETWEEN_TICKS):
            try:
                self._draw()
            # ValueError: the stream was closed in this process.
            except (OSError, ValueError) as error:
                self._error = error
                return
