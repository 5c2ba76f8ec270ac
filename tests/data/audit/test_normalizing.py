"""Many texts at once are normalised as each by itself is, and hyphens by one rule."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from loracle.data.audit.normalizing import all_normalized, normalized

ALPHABET = "a1-- -\n_%*½２xßé中ーｶﾞ́…“ \t\u2028\x85٣ἀ\ud800𝟗，？（＜̸"
texts = st.text(st.one_of(st.sampled_from(ALPHABET), st.characters()), max_size=14)

# A hyphen stays as the sign of a number and between two digits or signs.
LONE_HYPHEN = re.compile(r"(?<!\S)-+(?!\d)|(?<=[^\W\d])-|-(?=[^\W\d])|-(?!\S)")


@settings(max_examples=400, deadline=None)
@given(st.lists(texts, max_size=6))
def test_many_texts_are_normalised_as_each_by_itself(many: list[str]) -> None:
    assert all_normalized(many) == [normalized(text) for text in many]


@settings(max_examples=400, deadline=None)
@given(st.text("ab19- .é٣", max_size=16))
def test_hyphens_stay_as_signs_and_between_digits(text: str) -> None:
    bare = text.replace(".", " ")
    assert normalized(text) == " ".join(LONE_HYPHEN.sub(" ", bare).split())


def test_width_case_and_punctuation_do_not_count() -> None:
    assert all_normalized(["Ｗho won？  The\nBroncos!", "50 % — of «1/2»", "，。"]) == [
        "who won the broncos",
        "50 % of 1/2",
        "",
    ]
