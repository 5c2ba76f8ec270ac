"""Rows that are too long: what may be cut and what never is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loracle.data.conversation import Conversation, Example, Message
from loracle.data.rendering.renderer import Renderer
from loracle.data.rendering.shortening import CUT_MARK, MIN_KEPT_CHARACTERS
from loracle.errors import DataError
from tests import tiny

PASSAGE = " ".join(f"Word{n} of the passage." for n in range(60))


def row(passage: str, question: str = "Who won?", answer: str = "Denver", number: int = 1):
    messages = (
        Message("user", f"Context: {passage}\nQuestion: {question}"),
        Message("assistant", answer),
    )
    return Example(f"q{number}", Conversation(messages), (), "data.jsonl", number)


def renderer(max_length: int, overlong: str = "shorten") -> Renderer:
    end = frozenset([tiny.tokenizer().eos_token_id])
    return Renderer(tiny.tokenizer(), end, max_length=max_length, overlong=overlong)  # type: ignore[arg-type]


def text_of(token_ids: list[int]) -> str:
    return tiny.tokenizer().decode(token_ids).replace("<|unknown|>", "…")


def test_the_middle_of_the_passage_is_cut_and_nothing_else():
    fitted = renderer(400).fit_training([row(PASSAGE)])
    [rendered] = fitted.rows
    text = text_of(rendered.token_ids)
    head, tail = text.split(CUT_MARK)
    assert head.startswith("<|im_start|>user\nContext: Word0 of the passage. Word1")
    assert tail.endswith(
        "Word59 of the passage.\nQuestion: Who won?<|im_end|>\n"
        "<|im_start|>assistant\nDenver<|im_end|>"
    )
    assert 400 - MIN_KEPT_CHARACTERS < len(rendered.token_ids) <= 400
    [note] = fitted.shortened
    assert note.num_tokens > 400
    assert "characters cut out of the middle" in note.reason
    assert fitted.examples[0].conversation != row(PASSAGE).conversation


@settings(deadline=None, max_examples=60)
@given(
    num_words=st.integers(0, 120),
    question_words=st.integers(1, 40),
    answer_words=st.integers(1, 40),
    limit=st.integers(60, 700),
    seed=st.integers(0, 99),
)
def test_every_row_fits_with_its_question_and_answer_or_is_dropped_with_its_reason(
    num_words: int, question_words: int, answer_words: int, limit: int, seed: int
):
    generator = random.Random(seed)

    def words(number: int) -> str:
        return " ".join("abcdefgh"[: generator.randint(1, 8)] for _ in range(number))

    question, answer = f"{words(question_words)}?", words(answer_words)
    example = row(words(num_words), question, answer)
    fitted = renderer(limit).fit_training([example])
    assert len(fitted.rows) + len(fitted.dropped) == 1
    for rendered in fitted.rows:
        text = text_of(rendered.token_ids)
        assert len(rendered.token_ids) <= limit
        assert f"Question: {question}<|im_end|>" in text
        assert text.endswith(f"assistant\n{answer}<|im_end|>")
        assert text.startswith("<|im_start|>user\nContext: ")
    for dropped in fitted.dropped:
        assert dropped.example is example
        assert dropped.num_tokens > limit


def test_a_row_too_long_without_its_passage_is_dropped_and_named():
    fitted = renderer(120).fit_training([row(PASSAGE, answer="x" * 100), row("Short.", number=2)])
    assert [example.id for example in fitted.examples] == ["q2"]
    [dropped] = fitted.dropped
    assert (dropped.example.id, dropped.cuts) == ("q1", ())
    assert "too long even without the passage" in dropped.reason


def test_a_row_that_fits_is_left_as_it_is():
    example = row("Short.")
    fitted = renderer(400).fit_training([example])
    assert fitted.examples == [example]
    assert (fitted.shortened, fitted.dropped) == ([], [])


def test_drop_cuts_nothing():
    fitted = renderer(400, "drop").fit_training([row(PASSAGE), row("Short.", number=2)])
    assert [example.id for example in fitted.examples] == ["q2"]
    assert [note.example.id for note in fitted.dropped] == ["q1"]


def test_error_names_the_row_and_what_to_do():
    with pytest.raises(DataError, match=r"data\.jsonl:1: .*training\.overlong to shorten or drop"):
        renderer(400, "error").fit_training([row(PASSAGE)])


def test_an_evaluation_prompt_keeps_room_for_its_answer_and_its_references_whole():
    example = row(PASSAGE, answer="y" * 90)
    fitted = renderer(400).fit_prompts([example], max_new_tokens=50)
    [prompt] = fitted.rows
    assert len(prompt.token_ids) <= 350
    assert text_of(prompt.reference_ids[0]) == "y" * 90 + "<|im_end|>"
    assert fitted.examples[0].references == example.references


def test_the_longest_of_several_passages_is_cut_first_then_the_next():
    other = " ".join(f"Other{n} text here." for n in range(30))
    messages = (
        Message("user", f"Context: {PASSAGE}\nQuestion: Who won?"),
        Message("assistant", "Denver"),
        Message("user", f"Context: {other}\nQuestion: And when?"),
        Message("assistant", "In 2016"),
    )
    example = Example("q", Conversation(messages), (), "data.jsonl", 1)
    [once] = renderer(1000).fit_training([example]).shortened
    assert [cut.message for cut in once.cuts] == [0]
    [twice] = renderer(500).fit_training([example]).shortened
    assert [cut.message for cut in twice.cuts] == [0, 2]


def test_what_was_cut_is_where_the_mark_stands():
    example = row(PASSAGE)
    [note] = renderer(400).fit_training([example]).shortened
    [cut] = note.cuts
    before = example.conversation.messages[0].content
    after = note.example.conversation.messages[0].content
    assert after == before[: cut.start] + CUT_MARK + before[cut.stop :]
