"""Answers without the reasoning before them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loracle.data.reasoning import (
    Answered,
    answer_of,
    is_mark,
    opens_reasoning,
    without_empty_block,
)
from loracle.metrics import METRICS, score

TEXT_METRICS = [m for m in METRICS.values() if not m.needs_model and m.name not in ("bleu", "chrf")]


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("<think>\n\n</think>\n\nDenver", "Denver"),
        ("<think>Lyon? No, the capital is Paris.</think>Paris", "Paris"),
        ("<THINK>x</THINK> Paris", "Paris"),
        ("<thinking>x</thinking>\nParis", "Paris"),
        ("<reasoning>\nx\n</reasoning>\n<answer>\nParis\n</answer>", "Paris"),
        ("<|begin_of_thought|>x<|end_of_thought|>\n<|begin_of_solution|>Paris", "Paris"),
        ("[THINK]x[/THINK]Paris", "Paris"),
        ("◁think▷x◁/think▷Paris", "Paris"),
        ("<seed:think>x</seed:think>Paris", "Paris"),
        ("Lyon? No. </think>\n\nParis", "Paris"),
        ("<think>a</think>Paris<think>b</think>", "Paris"),
        ("<think>a <think> b</think>Paris", "Paris"),
        ("<|channel|>analysis<|message|>x<|end|><|channel|>final<|message|>Paris", "Paris"),
        ("Paris <think>or Lyon?</think>", "Paris"),
    ],
)
def test_the_answer_is_what_stands_outside_of_the_reasoning(prediction: str, answer: str) -> None:
    assert answer_of(prediction) == Answered(answer, True, False)
    assert answer_of(prediction, is_cut=True) == Answered(answer, True, False)


@pytest.mark.parametrize("prediction", ["<think>Let me see", "<think>", "<reasoning>\n12 + 3"])
def test_a_block_without_an_end_leaves_no_answer(prediction: str) -> None:
    assert answer_of(prediction) == Answered("", True, True)


@pytest.mark.parametrize("prediction", ["Paris", "", " a < b ", "I think so", "<answer>x</answer>"])
def test_a_prediction_without_reasoning_stays_as_it_is(prediction: str) -> None:
    assert answer_of(prediction) == Answered(prediction, False, False)
    assert answer_of(prediction, opened=True) == Answered(prediction, False, False)


def test_a_block_that_the_prompt_opened_is_unfinished_where_the_prediction_was_cut() -> None:
    assert answer_of("Let me see", opened=True, is_cut=True) == Answered("", True, True)
    assert answer_of("Well. </think> 4", opened=True, is_cut=True) == Answered("4", True, False)


def test_reasoning_ends_at_the_text_that_the_plan_names() -> None:
    assert answer_of("hm hm FINAL: 4", "FINAL:") == Answered("4", True, False)
    assert answer_of("hm hm", "FINAL:", is_cut=True) == Answered("", True, True)
    assert answer_of("4", "FINAL:") == Answered("4", False, False)


@pytest.mark.parametrize("metric", TEXT_METRICS, ids=lambda metric: metric.name)
def test_every_metric_scores_the_answer_alone(metric) -> None:
    reference = "18" if metric.name == "numeric" else "B" if metric.name == "choice" else "Denver"
    prediction = f"<think>Is it A, 5 or Lyon? Answer: A 5</think>\n\n{reference}"
    assert score(prediction, [reference], [metric.name]) == {metric.name: 1}
    assert score("<think>The answer is 18", ["18"], ["numeric"]) == {"numeric": 0}


@pytest.mark.parametrize(
    ("prompt", "is_opened"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<|im_start|>assistant\n", False),
        ("What does <think> mean?<|im_end|>\n<|im_start|>assistant\n", False),
    ],
)
def test_a_prompt_opens_the_reasoning_where_it_ends_inside_a_block(
    prompt: str, is_opened: bool
) -> None:
    assert opens_reasoning(prompt) == is_opened


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        ("<think>\n\n</think>\n\nDenver<|im_end|>", "Denver<|im_end|>"),
        ("\n</think>\n\nDenver<|im_end|>", "Denver<|im_end|>"),
        (
            "<think>\nIt is Denver.\n</think>\n\nDenver",
            "<think>\nIt is Denver.\n</think>\n\nDenver",
        ),
        ("Denver", "Denver"),
        (" Denver", " Denver"),
        ("", ""),
    ],
)
def test_an_empty_block_is_taken_off_a_reply(reply: str, left: str) -> None:
    assert without_empty_block(reply) == left


def test_the_marks_of_tokenizers_are_known() -> None:
    assert is_mark("[THINK]")
    assert is_mark("</think>")
    assert not is_mark("<|im_end|>")


PIECES = ["<think>", "</think>", "x", " ", "\n", "<answer>", "</answer>", "[THINK]", "[/THINK]"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_taking_reasoning_off_again_changes_nothing_more_of_a_closed_one(text: str) -> None:
    once = answer_of(text)
    assert not is_mark(once.text)
    if not once.is_unfinished:
        assert answer_of(once.text).text.strip() == once.text.strip()
