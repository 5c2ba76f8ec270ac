"""Metrics against the references they are to read."""

from __future__ import annotations

import pytest

from loracle.metrics import METRICS, Scorer, advised_metric, better_metric, unreadable_references

LETTERS = [["A"], ["B"], ["(C)"], ["D"]]
MULTIPLE = [["ABD"]] * 4
WORKED = [["6 * 7 = 42\n#### 42"], ["1 + 1 = 2\n#### 2"]]
NUMBERS = [["5"], ["1,000 km"], ["3/4"], ["$3.50"]]
WORDS = [["Denver"], ["The Broncos", "Broncos"], ["in 1998 by John"], ["A dog"]]


@pytest.mark.parametrize(
    ("metric", "references", "rows"),
    [
        ("numeric", NUMBERS + WORKED, []),
        ("numeric", [["5"], ["Denver"], ["none", "5"], []], [1, 3]),
        ("choice", LETTERS + MULTIPLE, []),
        ("choice", [["A"], ["Vitamin C"], ["Paris", "B"], ["12"]], [1, 3]),
        ("em", [*WORDS, [""]], []),
        ("answer_nll", WORDS, []),
        ("my_metrics:contains", WORDS, []),
    ],
)
def test_the_rows_that_a_metric_cannot_read_are_named(metric, references, rows) -> None:
    assert unreadable_references(metric, references) == rows


@pytest.mark.parametrize(
    ("references", "metric"),
    [
        (LETTERS, "choice"),
        (MULTIPLE, "choice"),
        (WORKED, "numeric"),
        (NUMBERS, "numeric"),
        (WORDS, None),
        ([*LETTERS, ["Paris"]], None),
        ([*LETTERS * 5, ["Paris"]], "choice"),
        ([], None),
    ],
)
def test_the_metric_made_for_such_references_is_advised(references, metric) -> None:
    assert advised_metric(references) == metric


@pytest.mark.parametrize("metric", ["em", "f1", "squad_em", "squad_f1", "cmrc_em", "cmrc_f1"])
def test_texts_are_not_to_be_compared_where_letters_or_worked_answers_are(metric: str) -> None:
    assert better_metric(metric, LETTERS) == "choice"
    assert better_metric(metric, WORKED) == "numeric"
    assert better_metric(metric, NUMBERS) is None
    assert better_metric(metric, WORDS) is None


@pytest.mark.parametrize("metric", ["numeric", "choice", "rouge_l", "my_metrics:contains"])
def test_other_metrics_are_left_as_chosen(metric: str) -> None:
    assert better_metric(metric, LETTERS) is None


def test_every_metric_that_may_read_nothing_says_what_it_reads() -> None:
    reading = {
        metric.name: metric.reads_what for metric in METRICS.values() if metric.reads_reference
    }
    assert reading == {"numeric": "number", "choice": "letter"}


def test_a_scorer_counts_what_it_could_not_read() -> None:
    scorer = Scorer.of(["numeric", "em"], [["5"], ["6"]])
    predictions = ("<think>4?</think>5", "five", "<think>It may be", "5")
    scores = [scorer.score(prediction, ["5"])["numeric"] for prediction in predictions]
    assert scores == [1, 0, 0, 1]
    assert (scorer.num_reasoned, scorer.num_unfinished) == (2, 1)
    assert scorer.num_unreadable == {"numeric": 1}
    first, second = scorer.warnings
    assert first.startswith("1 of 4 predictions were cut while the model was still reasoning")
    assert "generation.max_new_tokens" in first
    assert second == "numeric reads no number in 1 of 4 predictions; they score 0"


def test_a_scorer_has_nothing_to_say_where_all_was_read() -> None:
    scorer = Scorer.of(["em", "choice"], LETTERS)
    scorer.score("B", ["B"], is_cut=True)
    assert scorer.warnings == []
    assert scorer.num_unreadable == {}


def test_a_prompt_that_opened_the_reasoning_leaves_cut_predictions_without_answer() -> None:
    scorer = Scorer.of(["em"], WORDS, opened=True)
    assert scorer.score("Denver", ["Denver"], is_cut=True) == {"em": 0}
    assert scorer.score("Denver", ["Denver"]) == {"em": 1}
    assert scorer.num_unfinished == 1
