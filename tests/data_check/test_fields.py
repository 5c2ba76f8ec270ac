"""What the check says of columns, marks and values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from loracle.data_check.card import cards
from loracle.data_check.datasets import check_files, inspect_file
from loracle.data_check.result import Check
from loracle.errors import DataError
from tests.data.files import SHARED, lines, row, turn, written

CASES = Path(__file__).parents[1] / "data" / "field_cases"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shown(check: Check) -> str:
    console = Console(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for card in cards(check):
        console.print(card)
    return console.export_text()


def test_the_card_shows_what_columns_are_used_as_and_which_are_not() -> None:
    check = check_files([str(CASES / "choices_columns_lost.csv")], [])
    assert (
        "asked: question · choices: A, B, C, D · reply: answer · id: id · not used: explanation "
        "(1 row)"
    ) in shown(check)
    fields = json.loads(json.dumps(check.to_dict()))["datasets"][0]["fields"]
    assert {"column": "explanation", "used_as": "", "num_rows": 1} in fields


def test_replies_that_must_not_be_learned_are_counted_on_the_card() -> None:
    check = check_files([str(CASES / "turn_loss_false_learned.jsonl")], [])
    assert "1 reply excluded from the loss" in shown(check)
    accounting = check.reports[0].accounting
    assert accounting is not None
    assert accounting.supervised == len("right")


def test_a_lost_column_is_an_error_and_a_named_one_is_not() -> None:
    path = str(CASES / "column_typo.jsonl")
    assert check_files([path], []).exit_code == 2
    assert check_files([path], [], settings={"columns": {"context": "passage"}}).exit_code == 0
    assert check_files([path], [], settings={"ignore_columns": ["passage"]}).exit_code == 0


def test_what_was_done_with_rows_is_told() -> None:
    check = check_files([str(CASES / "na_answers.csv"), str(CASES / "shards_restart_ids")], [])
    (flagged,) = [p for p in check.reports[0].problems if p.severity == "warning"]
    assert flagged.message.startswith("4 cells hold only NA, nan, None or null")
    assert any("6 ids that repeat" in p.message for p in check.reports[1].problems)


def test_multiple_choice_is_to_be_measured_by_the_letter() -> None:
    rows = [
        {"question": f"Which of {n}?", "choices": ["x", "y"], "answer": n % 2} for n in range(8)
    ]
    check = check_files([written(lines(row()))], [written(lines(*rows), "test.jsonl")])
    fixes = [problem.fix for problem in check.reports[1].problems]
    assert any("metrics: [choice]" in fix for fix in fixes)


def test_an_evaluation_row_without_a_reference_is_dropped() -> None:
    bad = {"messages": [turn("user", "a"), turn("assistant", "b"), turn("user", "c")]}
    bad["messages"].append(turn("assistant", "d", weight=0))
    check = check_files([], [written(lines(row(), bad))])
    accounting = check.reports[0].accounting
    assert accounting is not None
    assert (accounting.num_read, accounting.num_kept) == (2, 1)
    assert accounting.dropped_by_reason == {"excluded from the loss": 1}


def test_inspecting_shows_the_marks_and_refuses_lost_columns() -> None:
    found = inspect_file(str(CASES / "sharegpt_weight_0_learned.jsonl"), 1)
    assert found.marks == ["turn 2 of 4 is excluded from the loss"]
    assert found.num_supervised == 2
    with pytest.raises(DataError, match="column passage is not used"):
        inspect_file(str(CASES / "column_typo.jsonl"), 1)
    with pytest.raises(DataError, match="images holds images, sound or video"):
        inspect_file(str(CASES / "image_lost.jsonl"), 1)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("alpaca_zh_demo.json", {"instruction": "asked", "input": "asked", "output": "reply"}),
        ("glaive_toolcall_en_demo.json", {"conversations": "turns", "tools": "tools"}),
    ],
)
def test_the_demo_files_of_llama_factory_show_their_fields(
    name: str, columns: dict[str, str]
) -> None:
    path = SHARED / "formats" / name
    if not path.exists():
        pytest.skip("the shared data is not beside this checkout")
    check = check_files([str(path)], [])
    assert check.exit_code == 0
    assert {use.column: use.used_as for use in check.reports[0].fields} == columns
