"""What is shown while large files are read."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from loracle.cli.reading_bar import ReadingBar
from loracle.data.following import Reached, following, tell
from loracle.language import Language


def shown(language: Language, *steps: Reached, width: int = 80) -> str:
    console = Console(file=StringIO(), force_terminal=True, width=width, color_system=None)
    times = iter(range(100))
    bar = ReadingBar(language, console, clock=lambda: float(next(times)))
    with console.capture() as captured, following(bar.show):
        for step in steps:
            tell(step)
        bar._progress.refresh()
        bar.close()
    return captured.get()


def test_rows_speed_and_what_is_left_are_shown() -> None:
    text = shown(
        "en",
        Reached("reading", "train", 1_000, 10_000_000, 100_000_000),
        Reached("reading", "train", 42_000, 62_800_000, 100_000_000),
    )
    assert "train" in text
    assert "42,000 rows · 31.4 MB/s" in text
    assert "0:00:" in text or "-:--:--" in text


def test_the_bar_speaks_chinese_and_says_when_rows_are_compared() -> None:
    text = shown(
        "zh",
        Reached("reading", "训练", 1_000, 1_000_000, 2_000_000),
        Reached("comparing", "训练", 2_000, 0, 0),
    )
    assert "正在比较 2,000 行" in text


def test_a_long_name_does_not_push_the_bar_out() -> None:
    text = shown("en", Reached("reading", "name" * 40, 1_000, 10, 20))
    assert all(len(line.rstrip()) <= 80 for line in text.replace("\r", "\n").split("\n"))


def test_nobody_is_told_if_nobody_follows() -> None:
    tell(Reached("reading", "train", 1, 1, 1))
