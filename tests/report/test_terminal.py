"""What a large run looks like in a terminal of 80 columns, in both languages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from loracle.files import read_json
from loracle.language import Language
from loracle.report.decision_table import decision_tables
from loracle.report.status import run_status
from loracle.report.status_lines import status_lines
from loracle.report.table import results_table, summary_lines
from loracle.report.terminal_table import Column, Row, terminal_table
from loracle.text import cell_width
from tests.report.large import make_large_run

WIDTH = 80


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_large_run(tmp_path_factory.mktemp("runs") / "large")


def printed(tables: list[object], width: int = WIDTH) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def lines_of(large: Path, language: Language) -> Iterator[str]:
    results = read_json(large / "results.json")
    yield from printed([*results_table(results, language, WIDTH)])
    yield from printed([*decision_tables(results, language, WIDTH)])
    yield from status_lines(run_status(large), language)[1:]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_figure_is_cut_and_no_line_is_too_long(large: Path, language: Language) -> None:
    lines = list(lines_of(large, language))
    assert max(map(cell_width, lines)) <= WIDTH
    # A cut figure ends in the mark that only names may hold in their middle.
    assert not any(word.endswith("…") for line in lines for word in line.split())
    assert sum("+41.4…+58.1" in line for line in lines) == 2


def test_one_candidate_takes_two_lines_at_most(large: Path) -> None:
    results = read_json(large / "results.json")
    for table in (*results_table(results, "zh", WIDTH), *decision_tables(results, "zh", WIDTH)):
        # Title, two lines of headings, a rule and the caption; the base has one or two lines.
        assert len(printed([table])) <= 5 + 2 * 6


def test_what_is_the_same_on_all_sets_stands_once(large: Path) -> None:
    results = read_json(large / "results.json")
    *sets, mean = ("\n".join(printed([table])) for table in results_table(results, "en", WIDTH))
    assert all("minutes" not in table and "seeds" not in table for table in sets)
    assert "minutes" in mean
    assert "seeds" in mean


def test_the_tables_and_notes_speak_chinese(large: Path) -> None:
    text = "\n".join(lines_of(large, "zh"))
    assert "客服评测集 · 60 题 · 60 个独立组" in text
    assert "3 个评测集的平均" in text
    assert not any(word in text for word in ("candidate", "examples", "done", "lift"))
    notes = summary_lines(read_json(large / "results.json"), "zh")
    assert notes[0] == "客服评测集：em, f1 的计算单位：60 题按单词"


def test_status_is_aligned_by_the_width_of_characters(large: Path) -> None:
    first, *trials = status_lines(run_status(large), "zh")
    assert first.endswith("已结束 · 100 % · 已用 9 分 30 秒")
    assert len({cell_width(line[: line.index("完成")]) for line in trials}) == 1
    assert "客服对话数据-2…洗去重-第二版 · seed 0" in trials[1]


def test_borders_go_before_names_do() -> None:
    columns = [Column("name", is_number=False, is_name=True), Column("score")]
    rows = [Row(["a-name-of-some-length\nfailed: it ran out of memory", "12.3"])]
    assert "┏" in printed([terminal_table("t", "c", columns, rows, 40)], 40)[1]
    narrow = printed([terminal_table("t", "c", columns, rows, 24)], 24)
    assert not any("┃" in line or "│" in line for line in narrow)
    assert any(line.startswith("a-name-of…e-length") for line in narrow)
    assert "12.3" in "\n".join(narrow)
