from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from loracle.errors import RunFolderError, UserError
from loracle.export.parquet import export_predictions
from loracle.files import read_json, read_json_lines
from tests.report.runs import Shape, make_run

SHAPE = Shape(
    {"base": 0.2, "clean": 0.8}, num_questions=12, evaluations=("one", "two"), seeds=(0, 1)
)


def test_every_prediction_is_exported_with_its_scores_and_its_prompt(tmp_path: Path) -> None:
    root = make_run(tmp_path / "demo", SHAPE)
    num_rows = export_predictions(root, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert num_rows == table.num_rows == 3 * 2 * 12
    rows = [
        row
        for row in table.to_pylist()
        if (row["candidate"], row["seed"], row["evaluation"]) == ("clean", 1, "two")
    ]
    predictions = read_json_lines(root / "trials/clean--s1/predictions/two.jsonl").rows
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in predictions]
    assert rows[0]["prompt"][-1]["content"].endswith("What is item 0?")
    scores = read_json(root / "results.json")["rows"][-1]["scores"]["two"]
    assert sum(row["f1"] for row in rows) / 12 == pytest.approx(scores["f1"]["mean"], abs=1e-15)
    assert {row["seed"] for row in table.to_pylist() if row["candidate"] == "base"} == {None}


def test_half_a_surrogate_pair_is_exported_as_a_replacement_character(tmp_path: Path) -> None:
    root = make_run(tmp_path / "demo", Shape({"base": 0, "a": 0}, num_questions=6), _half_a_pair)
    export_predictions(root, tmp_path / "out.parquet")
    texts = parquet.read_table(tmp_path / "out.parquet")["prediction"].to_pylist()
    assert set(texts) == {"odd \ufffd 😀"}


def _half_a_pair(*_: object) -> str:
    return "odd \ud83d 😀"


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    root = make_run(tmp_path / "demo", Shape({"base": 0, "a": 0}, num_questions=6))
    with pytest.raises(UserError, match=r"missing/out\.parquet cannot be written"):
        export_predictions(root, tmp_path / "missing" / "out.parquet")


def test_a_run_without_answers_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    root = make_run(tmp_path / "demo", Shape({"base": 0, "a": 0}, num_questions=6))
    for done in root.rglob("DONE"):
        done.unlink()
    with pytest.raises(RunFolderError, match="no finished trial"):
        export_predictions(root, tmp_path / "out.parquet")
    assert not list(tmp_path.glob("*.parquet*"))
