"""Predictions that people reported as scored wrong: each file is a kind, with the right score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loracle.metrics import score

CASES = [
    (path.stem, json.loads(line))
    for path in sorted((Path(__file__).parent / "cases").glob("*.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{name}-{row['prediction'][:20]}") for name, row in CASES]
)
def test_a_reported_answer_scores_as_its_field_reads_it(row) -> None:
    assert score(row["prediction"], row["answers"], [row["metric"]]) == {
        row["metric"]: row["right"]
    }
