"""How a step's sequences are shared out: all of them, each once, and evenly by tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loracle.forest.ordering import prefix_groups
from loracle.forest.trie import Sequences, num_forest_nodes
from loracle.training.micro_batches import take
from loracle.training.shares import shares_of


def cut(batch: Sequences, num_shares: int, *, forest: bool = True) -> list[np.ndarray]:
    return shares_of(batch, prefix_groups(batch), num_shares, forest=forest)


def batch_of(texts: list[str]) -> Sequences:
    return Sequences.of([list(map(ord, text)) for text in texts])


def computed(batch: Sequences, share: np.ndarray) -> int:
    return num_forest_nodes(take(batch, share), max_row_tokens=10**6, attention_cost=0.0)


def largest(batch: Sequences, num_shares: int) -> int:
    return max(computed(batch, share) for share in cut(batch, num_shares) if len(share))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=12),
    st.integers(1, 5),
    st.booleans(),
)
def test_every_sequence_is_in_one_share(texts, num_shares, forest):
    batch = batch_of(texts)
    shares = cut(batch, num_shares, forest=forest)
    assert len(shares) == num_shares
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(texts)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=12), st.integers(1, 5))
def test_no_share_computes_more_than_an_even_part_and_one_sequence(texts, num_shares):
    batch = batch_of(texts)
    whole = num_forest_nodes(batch, max_row_tokens=10**6, attention_cost=0.0)
    longest = int(batch.lengths.max())
    assert largest(batch, num_shares) <= whole / num_shares + longest


def passages(num_questions: list[int]) -> list[str]:
    return [
        f"template {chr(65 + p) * 100} {q}" for p, n in enumerate(num_questions) for q in range(n)
    ]


def test_whole_trees_stay_together_where_that_is_even():
    texts = passages([4, 4, 4, 4])
    for share in cut(batch_of(texts), 2):
        assert len(share) == 8
        assert len({row // 4 for row in share.tolist()}) == 2


def test_trees_that_begin_alike_are_trees_all_the_same():
    texts = [f"template The {p * 100} {q}" for p in "ABCD" for q in range(4)]
    for share in cut(batch_of(texts), 2):
        assert len({row // 4 for row in share.tolist()}) == 2


def test_a_tree_is_cut_where_one_share_would_have_too_much():
    texts = [f"{'A' * 20}{chr(97 + q) * 30}" for q in range(8)]
    batch = batch_of(texts)
    assert largest(batch, 2) == 20 + 4 * 30


def test_padded_batches_are_shared_by_length():
    batch = batch_of(["a" * 100, "b" * 40, "c" * 30, "d" * 30])
    shares = cut(batch, 2, forest=False)
    assert [share.tolist() for share in shares] == [[0], [1, 2, 3]]


def test_sequences_that_share_nothing_go_to_the_emptiest():
    batch = batch_of(["a" * 9, "b" * 7, "c" * 6, "d" * 5, "e" * 5])
    sizes = [int(batch.lengths[share].sum()) for share in cut(batch, 2)]
    assert max(sizes) <= 17


@pytest.mark.parametrize("num_shares", [2, 3])
def test_the_shares_are_the_same_each_time(num_shares):
    batch = batch_of(passages([3, 1, 5, 2]))
    first = [share.tolist() for share in cut(batch, num_shares)]
    again = [share.tolist() for share in cut(batch, num_shares)]
    assert first == again
