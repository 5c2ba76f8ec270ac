"""A split never puts one passage on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loracle.data.audit import audited, leakage
from loracle.data.conversation import Example
from loracle.data.reading.dataset import read_examples
from loracle.data.splitting import row_groups, split
from loracle.errors import DataError
from tests import tiny
from tests.data.audit.test_leakage import SHARED, needs_shared, unlike


def dataset(num_passages: int, num_questions: int):
    examples = [
        tiny.example(
            f"Context: {unlike(str(p))}\nQuestion: what of {p} in {q}?", "x", id=f"{p}-{q}"
        )
        for p in range(num_passages)
        for q in range(num_questions)
    ]
    return audited([("a", examples)])[0]


@settings(deadline=None, max_examples=20)
@given(
    num_passages=st.integers(2, 12),
    num_questions=st.integers(1, 4),
    share=st.floats(0.1, 0.9),
    seed=st.integers(0, 1000),
)
def test_every_row_is_on_one_side_and_every_passage_too(num_passages, num_questions, share, seed):
    subject = dataset(num_passages, num_questions)
    try:
        found = split(subject, share, seed)
    except DataError:
        assert share * num_passages <= 0.5 or share * num_passages >= num_passages - 0.5
        return
    assert sorted([*found.kept, *found.held_out]) == list(range(num_passages * num_questions))
    sides = [{row // num_questions for row in side} for side in (found.kept, found.held_out)]
    assert not sides[0] & sides[1]
    assert abs(len(sides[1]) - share * num_passages) <= 0.5


def test_the_same_seed_gives_the_same_split_and_another_another():
    subject = dataset(30, 2)
    splits = [split(subject, 0.3, seed) for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_rows_joined_by_a_row_that_has_both_passages_are_one_group():
    first, second, third = (unlike(name) for name in "abc")
    examples = [
        tiny.example(f"{first}\nwhat is it?", "x", id="1"),
        tiny.example(f"{first}\n{second}\nwho is it?", "x", id="2"),
        tiny.example(f"{second}\nwhere is it?", "x", id="3"),
        tiny.example(f"{third}\nwhen is it?", "x", id="4"),
    ]
    [subject] = audited([("a", examples)])
    assert row_groups(subject).tolist() == [0, 0, 0, 1]


def test_one_passage_cannot_be_split():
    with pytest.raises(DataError, match=r"found 1 group .* largest of 5 rows"):
        split(dataset(1, 5), 0.2, 0)


@needs_shared
def test_the_two_sides_of_xquad_leak_nothing():
    examples = read_examples(Path(SHARED) / "xquad-en/candidates/clean.json")
    [subject] = audited([("clean", examples)])
    found = split(subject, 0.1, 0)
    sides: list[list[Example]] = [
        [examples[row] for row in rows] for rows in (found.kept, found.held_out)
    ]
    assert 0.08 < len(sides[1]) / len(examples) < 0.12
    assert leakage(*audited([("train", sides[0]), ("holdout", sides[1])])).leaks == ()
