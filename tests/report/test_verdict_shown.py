"""A verdict as readers meet it: on the page, as tables in the terminal, on the command line."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner as CommandRunner
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

import loracle
from loracle.cli import app
from loracle.cli.shell import command_tree
from loracle.export.model_card import model_card
from loracle.files import read_json, write_json
from loracle.report.charts import NARROW, WIDE, PointRow, estimates_chart
from loracle.report.decision_table import Language, decision_tables
from loracle.report.page import build_page
from loracle.report.run_record import read_run
from loracle.report.sections import all_sections
from loracle.report.sections.audited import by_candidate
from tests.report.large import CANDIDATES, make_large_run
from tests.report.runs import Shape, make_run


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_large_run(tmp_path_factory.mktemp("runs") / "large")


@pytest.fixture(scope="module")
def page(large: Path) -> str:
    return build_page(read_run(large)).text


@pytest.fixture(scope="module")
def values(large: Path) -> dict[str, Any]:
    return all_sections(read_run(large))


def printed(record: dict[str, Any], width: int, language: Language) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for table in decision_tables(record, language, width):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_could_overturn_the_verdict_stands_above_its_reasons(page: str) -> None:
    above, below = page.split("Read this first")
    assert "<h1" in above
    listed = below.partition("</ul>")[0]
    assert "shares text with the questions: 客服对话数据-2…洗去重-第二版 with 10 of 60" in listed
    assert "Rows not trained on: 客服对话数据-2…动清洗-第一版 31 of 500 rows." in listed
    assert "训练数据与评测题目有重合内容" in listed
    assert below.index("Rule: F1") > below.index("What the data check found")


def test_findings_stand_by_candidate_beside_the_verdict_and_no_fact_stands_twice(
    values: dict[str, Any], large: Path
) -> None:
    (found,) = values["decision"]["data"]
    assert found["name"] == CANDIDATES[1]
    assert found["words"][0] == "7 rows repeated except for case, spaces or punctuation"
    first, second = by_candidate(read_run(large), told=())
    assert first["words"] == (
        "shares text with 10 questions of 客服评测集",
        "与 客服评测集 的 10 题有重合内容",
    )
    assert second["words"][0].startswith("31 rows dropped; 7 rows repeated except for case")


def test_a_page_of_results_before_version_3_says_what_it_lacks(large: Path, tmp_path: Path) -> None:
    import shutil

    old = Path(shutil.copytree(large, tmp_path / "old"))
    results = read_json(old / "results.json")
    del results["read_first"]
    for comparison in results["comparisons"]:
        for key in ("absent", "p_absent", "largest", "questions_to_absence"):
            del comparison[key]
    for decision in results["decisions"]:
        decision["verdict"] = decision["verdict"].replace("cannot_tell", "no_difference")
    write_json(old / "results.json", results | {"version": 2})
    text = build_page(read_run(old)).text
    assert "Made by an earlier version" in text
    assert "Read this first" not in text


def test_the_models_name_stands_at_the_top(page: str, values: dict[str, Any]) -> None:
    assert re.search(r"<strong>Loracle</strong> · large · invented", page)
    assert values["decision"]["facts"][0]["value"] == "invented"


def test_costs_are_summed_over_the_seeds_with_every_seed_below(values: dict[str, Any]) -> None:
    cost = values["cost"]
    assert [row["name"] for row in cost["rows"]] == ["base", *CANDIDATES]
    assert len(cost["trials"]) == 11
    one, both = cost["trials"][1], cost["rows"][1]
    assert (one["steps"], both["steps"]) == ("12", "24")
    assert (one["training"], both["training"]) == ("0:24", "0:48")
    assert both["final_loss"] == "0.500"


def axis_of(chart: str) -> list[str]:
    """The numbers below the plot."""
    return re.findall(r'text-anchor="middle"[^>]*>(\d+)<', chart)


def test_all_sets_share_one_axis(values: dict[str, Any]) -> None:
    charts = values["estimates"]["charts"]
    assert len(charts) == 4
    assert len({tuple(axis_of(one["chart"])) for one in charts}) == 1
    assert len({tuple(axis_of(one["narrow"])) for one in charts}) == 1


def width_of(chart: str) -> float:
    found = re.search(r'viewBox="0 0 ([\d.]+) ', chart)
    assert found is not None
    return float(found[1])


def test_a_chart_for_phones_fits_them(values: dict[str, Any]) -> None:
    charts = values["estimates"]["charts"]
    # Its letters are not shrunk by more than a tenth.
    assert all(width_of(one["narrow"]) <= 1.1 * NARROW for one in charts)
    assert width_of(values["training"]["narrow"]) <= 1.1 * NARROW
    assert width_of(values["estimates"]["sizes"]["narrow"]) <= 1.1 * NARROW
    assert WIDE <= width_of(charts[0]["chart"]) <= 1.1 * WIDE


def test_scores_are_shown_against_rows_only_if_candidates_differ_in_them(
    values: dict[str, Any], tmp_path: Path
) -> None:
    sizes = values["estimates"]["sizes"]
    assert [entry["name"] for entry in sizes["legend"]] == list(CANDIDATES)
    alike = make_run(tmp_path / "alike", Shape({"base": 0.2, "a": 0.5, "b": 0.6}))
    assert all_sections(read_run(alike))["estimates"]["sizes"] is None


def test_an_axis_of_one_value_is_drawn_too() -> None:
    row = PointRow("base", None, "0.0", 0, 0, 0)
    assert "0.0" in estimates_chart([row], (0, 0), NARROW)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_of_a_decision_fit_the_terminal_and_say_what_each_candidate_shows(
    large: Path, width: int, language: Language
) -> None:
    record = read_json(large / "results.json")
    text = printed(record, width, language)
    assert max(map(cell_len, text.splitlines())) <= width
    words = {"en": ("helps", "forgets", "cannot"), "zh": ("有效", "遗忘", "无法判断")}[language]
    assert all(word in text for word in words)
    assert text.count("base") >= 4


def test_decide_prints_a_table_and_with_why_the_sentences(large: Path) -> None:
    table = CommandRunner().invoke(command_tree("en"), ["decide", str(large), "--language", "en"])
    assert table.exit_code == 0
    assert "Read this first:\n- Training data shares text" in table.stdout
    assert "gain over" in table.stdout
    assert "Rule: F1" not in table.stdout
    assert table.stdout.count(" alone: ") == 3
    arguments = ["decide", str(large), "--why", "--language", "zh"]
    why = CommandRunner().invoke(command_tree("zh"), arguments)
    assert "请先阅读：" in why.stdout
    assert "规则：指标 F1" in why.stdout
    assert "━" not in why.stdout
    as_json = json.loads(CliRunner().invoke(app, ["decide", str(large), "--json"]).stdout)
    assert [fact["kind"] for fact in as_json["read_first"]] == ["leakage", "rows_lost"]


def test_a_card_has_what_could_overturn_the_verdict(large: Path) -> None:
    record = read_run(large)
    card = model_card(record, record.trials[1], "peft", "Load it.")
    below = card.partition("**Read this first · 请先阅读**")[2]
    assert below.index("- Training data shares text") < below.index("## Data")
    assert "  训练数据与评测题目有重合内容" in below


@pytest.mark.parametrize(
    ("flags", "facts", "code"),
    [([], True, 0), (["--strict"], True, 1), (["--strict"], False, 0)],
)
def test_only_a_strict_run_fails_by_what_could_overturn_its_verdict(
    large: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    facts: bool,
    code: int,
) -> None:
    results = read_json(large / "results.json")
    if not facts:
        results["read_first"] = []

    class Finished(loracle.Run):
        @property
        def results(self) -> Any:
            return results

    monkeypatch.setattr("loracle.run", lambda *args, **kwargs: Finished(large))
    row = '{"question": "What is it?", "answer": "a town"}\n'
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "test.jsonl")]
    for file in files:
        file.write_text(row)
    command = ["run", str(files[0]), str(files[1]), "--eval", str(files[2]), *flags]
    found = CommandRunner().invoke(command_tree("en"), [*command, "--language", "en"])
    assert found.exit_code == code
    assert ("Read this first:" in found.stdout) == facts


def test_a_metric_that_is_0_everywhere_is_said_to_measure_nothing(tmp_path: Path) -> None:
    zero = make_run(tmp_path / "zero", Shape({"base": 0, "a": 0, "b": 0}, seeds=(0, 1)))
    decision = read_json(zero / "results.json")["decisions"][0]
    assert decision["sentence"]["en"] == (
        "Cannot tell: F1 is 0 for every row, the base included, so it measures nothing here. Look "
        "at some answers, and choose another metric."
    )
    assert "换一个指标" in decision["sentence"]["zh"]
    # More questions would be 0 as well.
    assert not any("more questions" in reason["en"] for reason in decision["reasons"])
