"""Numbers and choices as people and models write them."""

from __future__ import annotations

import pytest

from loracle.errors import DataError
from loracle.metrics import choice, numeric


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("42", "42"),
        ("17 + 25 = 42 apples.", "#### 42"),
        ("It costs $1,234.50 in total.", "1234.5"),
        ("1234", "1,234"),
        ("x = -3", "-3"),
        ("x = −3", "-3"),  # U+2212
        ("The result is -3", "-3"),
        ("答案是-3", "-3"),
        ("10-3", "3"),
        ("x-3", "3"),
        ("(2)-3", "3"),
        ("about 1.5e3", "1500"),
        (".5", "0.50"),
        ("50%", "50"),
        ("共４２个", "42"),
        ("答案是 42。", "42"),
        ("12,34", "34"),
        ("1,2,3", "3"),
        ("The year was 1998.", "1998"),
    ],
)
def test_the_last_numbers_are_equal(prediction: str, reference: str) -> None:
    assert numeric(prediction, ["no number", reference]) == 1


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("42.01", "42"),
        ("-42", "42"),
        ("42 of 100", "42"),
        ("none", "none"),
        ("forty-two", "42"),
        ("0.1", "0.10000000000000001"),
        ("1e3", "1"),
        ("50%", "0.5"),
    ],
)
def test_other_numbers_or_none_score_nothing(prediction: str, reference: str) -> None:
    assert numeric(prediction, [reference]) == 0


@pytest.mark.parametrize(
    "prediction",
    [
        "B",
        "B.",
        "(B)",
        "B) Paris",
        "B. Paris, not A",
        "**B**",
        "Ｂ",
        "B、巴黎",
        "The answer is B.",
        "Answer: (B)",
        "the correct answer is **B** because A is wrong",
        "At first the answer is A. No: the answer is B",
        "答案是B",
        "答案：B。",
        "因此选B",
        "正确答案为（B）",
        "Paris (B) is right",
    ],
)
def test_the_letter_chosen_is_found(prediction: str) -> None:
    assert choice(prediction, ["B"]) == 1
    assert choice(prediction, ["A", "(B) Paris"]) == 1
    assert choice(prediction, ["A"]) == 0


@pytest.mark.parametrize(
    "prediction",
    [
        "",
        "b",
        "A man came",
        "I think so",
        "Both (A) and (B)",
        "BBC",
        "The answer is Berlin",
        "none",
    ],
)
def test_what_chooses_no_letter_scores_nothing(prediction: str) -> None:
    assert [choice(prediction, [letter]) for letter in "ABI"] == [0, 0, 0]
    assert choice(prediction, [prediction]) == 0


@pytest.mark.parametrize("metric", [numeric, choice])
def test_references_are_needed(metric) -> None:
    with pytest.raises(DataError, match="no reference answer"):
        metric("B 1", [])
