"""The bar of `loracle check` while large files are read.

train  ━━━━━━━━━━━━━━━━━━━━━━━━━━  412,000 rows · 31.4 MB/s  0:00:18
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from loracle.data.following import Reached, following
from loracle.language import Language
from loracle.run_folder.bars import SafeConsole
from loracle.text import shortened, visible

_NAME_WIDTH = 18
_WORDS: Mapping[Language, Mapping[str, str]] = MappingProxyType(
    {
        "en": {"rows": "{rows:,} rows · {speed:.1f} MB/s", "comparing": "comparing {rows:,} rows"},
        "zh": {"rows": "{rows:,} 行 · {speed:.1f} MB/s", "comparing": "正在比较 {rows:,} 行"},
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

    @property
    def is_seen(self) -> bool:
        """Whether somebody sees it."""
        return self._progress.console.is_terminal

    def show(self, reached: Reached) -> None:
        """Show how far a dataset is."""
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", dataset="", total=None)
        if reached.name != self._dataset:
            self._dataset, self._started = reached.name, self._clock()
            self._progress.reset(self._task, total=None)
        seconds = max(self._clock() - self._started, 1e-3)
        is_read = reached.stage == "reading"
        words = self._words["rows" if is_read else "comparing"]
        self._progress.update(
            self._task,
            dataset=shortened(visible(reached.name), _NAME_WIDTH),
            description=words.format(
                rows=reached.num_rows, speed=reached.num_bytes / 1e6 / seconds
            ),
            completed=min(reached.num_bytes, reached.total_bytes),
            total=reached.total_bytes if is_read else None,
        )

    def close(self) -> None:
        self._progress.stop()


@contextmanager
def reading_bar(language: Language, *, is_shown: bool) -> Iterator[None]:
    """Show what is read meanwhile, on standard error if that is a terminal."""
    bar = ReadingBar(language)
    if not is_shown or not bar.is_seen:
        yield
        return
    try:
        with following(bar.show):
            yield
    finally:
        bar.close()
