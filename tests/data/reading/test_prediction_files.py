"""Predictions as other programs write them are scored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loracle.data.reading.prediction_files import named_columns
from loracle.errors import DataError, PlanError
from loracle.metrics.score_file import score_file
from tests.data.files import lines, written


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"prompt": "p", "predict": "Denver", "label": "Denver"}, id="LLaMA-Factory"),
        pytest.param({"response": "Denver", "labels": "Denver", "messages": []}, id="ms-swift"),
        pytest.param(
            {
                "doc_id": 0,
                "doc": {"question": "q"},
                "target": "Denver",
                "resps": [["Denver"]],
                "filtered_resps": ["Denver"],
                "exact_match": 1.0,
            },
            id="lm-evaluation-harness",
        ),
        pytest.param({"prediction": "Denver", "gold": ["x", "Denver"]}, id="OpenCompass, a row"),
    ],
)
def test_a_row_of_another_program_is_read(row: dict[str, Any]) -> None:
    scores = score_file(written(lines(row, row)), ["em"])
    assert (scores.num_rows, scores.means) == (2, {"em": 1.0})


def test_opencompass_numbers_its_rows_in_one_object() -> None:
    value = {
        "0": {"origin_prompt": [{"role": "HUMAN"}], "prediction": "Denver", "gold": "Denver"},
        "1": {"origin_prompt": "x", "prediction": "5", "gold": 6},
    }
    scores = score_file(written(json.dumps(value, indent=4), "a.json"), ["em"])
    assert (scores.num_rows, scores.means) == (2, {"em": 0.5})


def test_log_likelihoods_are_no_text() -> None:
    row = {"target": "0", "filtered_resps": [["-1.2", "False"], ["-2.0", "False"]]}
    with pytest.raises(DataError, match="filtered_resps holds log-likelihoods, not text"):
        score_file(written(lines(row)), ["em"])


def test_other_keys_are_named() -> None:
    path = written(lines({"output": "Denver", "reference": ["Denver"]}))
    columns = named_columns(["prediction=output", "answers=reference"])
    assert score_file(path, ["em"], columns=columns).means == {"em": 1.0}
    with pytest.raises(PlanError, match="--column predicton=output: did you mean prediction=KEY"):
        named_columns(["predicton=output"])
    with pytest.raises(PlanError, match="expected prediction=KEY or answers=KEY"):
        named_columns(["x"])


def test_rows_of_several_filters_are_refused() -> None:
    row = {"target": "5", "filtered_resps": ["5"]}
    rows = [{**row, "filter": name} for name in ("strict-match", "flexible-extract")]
    with pytest.raises(DataError, match=r"several filters \(flexible-extract, strict-match\)"):
        score_file(written(lines(*rows)), ["em"])
    assert score_file(written(lines(rows[0])), ["em"]).num_rows == 1
