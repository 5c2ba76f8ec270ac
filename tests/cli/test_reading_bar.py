"""What is shown while large files are read."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from loracle.cli import reading_bar as reading_bar_module
from loracle.cli.reading_bar import ReadingBar, ReadingLines, reading_bar
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


def test_what_is_compared_is_counted_under_the_name_of_its_dataset() -> None:
    steps = [
        Reached("comparing", "train", 120_000, 0, 0),
        Reached("comparing", "", 240_000, 60_000, 240_000),
    ]
    text = shown("en", *steps)
    counted = next(line for line in text.splitlines() if "60,000 of 240,000 texts" in line)
    assert "train" in counted
    assert lines_of("en", [steps[0], *[steps[1]] * 2]) == [
        "train: comparing: 60,000 of 240,000 texts"
    ]


def test_a_long_name_does_not_push_the_bar_out() -> None:
    text = shown("en", Reached("reading", "name" * 40, 1_000, 10, 20))
    assert all(len(line.rstrip()) <= 80 for line in text.replace("\r", "\n").split("\n"))


def test_nobody_is_told_if_nobody_follows() -> None:
    tell(Reached("reading", "train", 1, 1, 1))


def test_the_bar_ends_when_a_run_has_read_everything() -> None:
    steps = [
        Reached("reading", "train", 42_000, 10, 20),
        Reached("read", "", 0, 0, 0),
        Reached("comparing", "train", 42_000, 0, 0),
    ]
    assert "comparing" not in shown("en", *steps)
    assert lines_of("en", [*steps, *steps]) == []


def lines_of(language: Language, steps: list[Reached]) -> list[str]:
    said: list[str] = []
    times = iter(range(0, 600, 6))
    lines = ReadingLines(language, said.append, clock=lambda: float(next(times)))
    for step in steps:
        lines.show(step)
    return said


def test_without_a_terminal_a_line_is_written_every_ten_seconds() -> None:
    steps = [Reached("reading", "train", n * 1000, n * 6_000_000, 120_000_000) for n in range(5)]
    compared = Reached("comparing", "train", 5000, 0, 0)
    assert lines_of("en", [*steps, compared, compared]) == [
        "train: 2,000 rows · 1.0 MB/s · about 1 min 48 s left",
        "train: 4,000 rows · 1.0 MB/s · about 1 min 36 s left",
        "train: comparing 5,000 rows",
    ]
    assert "剩余约" in lines_of("zh", steps)[0]


@pytest.mark.parametrize(("progress", "is_told"), [("quiet", False), ("plain", True)])
def test_a_quiet_command_shows_nothing(
    progress: str,
    is_told: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading_bar_module, "_SECONDS_BETWEEN_LINES", -1.0)
    with reading_bar("en", progress):
        tell(Reached("reading", "train", 1_000, 10, 20))
    assert ("train: 1,000 rows" in capsys.readouterr().err) == is_told
