"""What `loracle check` and `loracle run` show while large files are read: a bar on a terminal, else
a line now and then.

train  ━━━━━━━━━━━━━━━━━━━━━━━━━━  412,000 rows · 31.4 MB/s  0:00:18
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from loracle.data.following import Reached, following
from loracle.language import Language
from loracle.run_folder.bars import SafeConsole
from loracle.text import duration, shortened, visible

_NAME_WIDTH = 18
_SECONDS_BETWEEN_LINES = 10.0
_WORDS: Mapping[Language, Mapping[str, str]] = MappingProxyType(
    {
        "en": {
            "rows": "{rows:,} rows · {speed:.1f} MB/s",
            "comparing": "comparing {rows:,} rows",
            "compared": "comparing: {done:,} of {total:,} texts",
            "left": "about {time} left",
        },
        "zh": {
            "rows": "{rows:,} 行 · {speed:.1f} MB/s",
            "comparing": "正在比较 {rows:,} 行",
            "compared": "正在比较：已完成 {done:,}/{total:,} 段文本",
            "left": "剩余约 {time}",
        },
    }
)


class ReadingBar:
    """One bar, from the first block of a large file on; small files show none."""

    def __init__(
        self,
        language: Language,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._words = _WORDS[language]
        self._clock = clock
        self._progress = Progress(
            TextColumn("{task.fields[dataset]}", markup=False),
            BarColumn(24),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
            console=console or SafeConsole(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None
        self._dataset, self._started = "", 0.0
        self._is_over = False

    @property
    def is_seen(self) -> bool:
        """Whether somebody sees it."""
        return self._progress.console.is_terminal

    def show(self, reached: Reached) -> None:
        """Show how far a dataset is."""
        if reached.stage == "read":
            self.close()
            self._is_over = True
        if self._is_over:
            return
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", dataset="", total=None)
        if reached.name and reached.name != self._dataset:
            self._dataset, self._started = reached.name, self._clock()
            self._progress.reset(self._task, total=None)
        seconds = max(self._clock() - self._started, 1e-3)
        self._progress.update(
            self._task,
            dataset=shortened(visible(self._dataset), _NAME_WIDTH),
            description=_said(reached, self._words, seconds),
            completed=min(reached.done, reached.total),
            # Without a total the bar moves to and fro.
            total=reached.total or None,
        )

    def close(self) -> None:
        self._progress.stop()


class ReadingLines:
    """A line every ten seconds, for a log: small files show none."""

    def __init__(
        self,
        language: Language,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._language, self._write, self._clock = language, write, clock
        self._dataset, self._started, self._said = "", 0.0, 0.0
        self._is_over = False

    def show(self, reached: Reached) -> None:
        """Write a line, if the last one is old enough."""
        self._is_over |= reached.stage == "read"
        if self._is_over:
            return
        now = self._clock()
        if reached.name and reached.name != self._dataset:
            self._dataset, self._started, self._said = reached.name, now, now
        if now - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = now
        words = _WORDS[self._language]
        seconds = max(now - self._started, 1e-3)
        said = _said(reached, words, seconds)
        if reached.stage == "reading":
            left = max(0, reached.total - reached.done) / max(reached.done / seconds, 1.0)
            said += f" · {words['left'].format(time=duration(left, self._language))}"
        self._write(f"{visible(self._dataset)}: {said}")


def _said(reached: Reached, words: Mapping[str, str], seconds: float) -> str:
    """What is done with a dataset, and how much of it."""
    if reached.stage == "reading":
        speed = reached.done / 1e6 / seconds
        return words["rows"].format(rows=reached.num_rows, speed=speed)
    if reached.total:
        return words["compared"].format(done=reached.done, total=reached.total)
    return words["comparing"].format(rows=reached.num_rows)


@contextmanager
def reading_bar(language: Language, progress: str) -> Iterator[None]:
    """Show on standard error what is read meanwhile. progress: as --progress says."""
    bar = ReadingBar(language)
    if progress == "quiet":
        yield
        return
    if progress == "plain" or not bar.is_seen:
        with following(ReadingLines(language, _to_standard_error).show):
            yield
        return
    try:
        with following(bar.show):
            yield
    finally:
        bar.close()


def _to_standard_error(line: str) -> None:
    # A terminal that was closed ends no run.
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
