"""The trie against its definition: paths, targets, rows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loracle.forest.trie import Sequences, build_forest, common_prefix_lengths, num_forest_nodes

TOKENS = st.integers(0, 2)
SEQUENCES = st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=12)


@st.composite
def weighted_sequences(draw: st.DrawFn) -> tuple[list[list[int]], list[list[float]]]:
    token_ids = draw(SEQUENCES)
    weights = [[0.0] + [float(draw(st.integers(0, 1))) for _ in ids[1:]] for ids in token_ids]
    return token_ids, weights


ROW_OPTIONS = {"max_row_tokens": st.integers(1, 40), "attention_cost": st.sampled_from([0, 0.01])}


@given(SEQUENCES, st.fixed_dictionaries(ROW_OPTIONS), st.booleans())
@settings(max_examples=300, deadline=None)
def test_every_sequence_is_a_path_of_the_forest(token_ids, options, share):
    forest = build_forest(Sequences.of(token_ids), **options, share=share)
    for ids, node in zip(token_ids, forest.last_nodes, strict=True):
        path = forest.ancestors(int(node))
        assert forest.token_ids[path].tolist() == ids
        assert forest.depths[path].tolist() == list(range(len(ids)))


@given(weighted_sequences(), st.fixed_dictionaries(ROW_OPTIONS))
@settings(max_examples=300, deadline=None)
def test_the_targets_are_those_of_the_separate_sequences(sequences, options):
    token_ids, weights = sequences
    forest = build_forest(Sequences.of(token_ids, weights), **options)
    expected: Counter[tuple[int, ...]] = Counter()
    for ids, row in zip(token_ids, weights, strict=True):
        expected.update({tuple(ids[: t + 1]): w for t, w in enumerate(row) if w})
    found: Counter[tuple[int, ...]] = Counter()
    for node, token_id, weight in zip(
        forest.target_nodes, forest.target_token_ids, forest.target_weights, strict=True
    ):
        path = forest.token_ids[forest.ancestors(int(node))]
        found[(*path.tolist(), int(token_id))] += float(weight)
    assert found == expected


@given(weighted_sequences(), st.fixed_dictionaries(ROW_OPTIONS), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_nodes_are_counted_as_they_are_built(sequences, options, share, weighted):
    asked = Sequences.of(*sequences) if weighted else Sequences.of(sequences[0])
    built = build_forest(asked, **options, share=share)
    assert num_forest_nodes(asked, **options, share=share) == built.num_nodes


@given(weighted_sequences(), st.integers(1, 30))
@settings(max_examples=200, deadline=None)
def test_micro_batches_cut_between_rows_and_keep_every_target(sequences, budget):
    forest = build_forest(Sequences.of(*sequences), max_row_tokens=20)
    parts = list(forest.micro_batches(budget))
    assert np.concatenate([p.token_ids for p in parts]).tolist() == forest.token_ids.tolist()
    assert sum(p.num_rows for p in parts) == forest.num_rows
    assert sum(len(p.target_nodes) for p in parts) == len(forest.target_nodes)
    for part in parts:
        assert part.num_nodes <= budget or part.num_rows == 1
        assert (part.subtree_ends > np.arange(part.num_nodes)).all()
        assert (part.subtree_ends <= part.num_nodes).all()


def test_a_shared_prefix_is_stored_once():
    passage = list(range(50))
    forest = build_forest(
        Sequences.of([[*passage, 60, 61], [*passage, 60, 62], [*passage, 70]]), max_row_tokens=1000
    )
    assert forest.num_nodes == 50 + 1 + 1 + 1 + 1
    assert forest.num_rows == 1


def test_siblings_do_not_see_each_other():
    forest = build_forest(
        Sequences.of([[1, 2, 3], [1, 2, 4], [1, 5]]), max_row_tokens=100, attention_cost=0.0
    )
    nodes = np.arange(forest.num_nodes)
    sees = (nodes[None, :] <= nodes[:, None]) & (nodes[:, None] < forest.subtree_ends[None, :])
    # Nodes: 1 2 3 4 5, of which 3 and 4 hang below 2.
    assert sees.astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 0, 0, 0, 1],
    ]


def test_the_last_target_and_what_follows_it_are_not_computed():
    forest = build_forest(Sequences.of([[7, 8, 9, 5]], [[0, 0, 1.0, 0]]), max_row_tokens=10)
    assert forest.token_ids.tolist() == [7, 8]
    assert forest.target_token_ids.tolist() == [9]


def test_equal_sequences_share_targets_whose_weights_add_up():
    forest = build_forest(Sequences.of([[1, 2]] * 3, [[0, 0.5]] * 3), max_row_tokens=10)
    assert forest.target_weights.tolist() == [1.5]


def test_sequences_that_share_little_stand_in_rows_of_their_own():
    generator = np.random.default_rng(0)
    token_ids = [[1, 2, *generator.integers(3, 99, 200).tolist()] for _ in range(5)]
    assert build_forest(Sequences.of(token_ids), max_row_tokens=1 << 20).num_rows == 5


def test_a_sequence_longer_than_a_row_stands_alone_and_whole():
    forest = build_forest(Sequences.of([list(range(50)), [1, 2]]), max_row_tokens=10)
    assert sorted(forest.row_lengths.tolist()) == [2, 50]


@given(SEQUENCES)
@settings(max_examples=200, deadline=None)
def test_common_prefixes_equal_their_definition(token_ids):
    order, common = common_prefix_lengths(Sequences.of(token_ids))
    ordered = [token_ids[i] for i in order]
    assert ordered == sorted(token_ids)
    for k in range(1, len(ordered)):
        left, right = ordered[k - 1], ordered[k]
        same = 0
        while same < min(len(left), len(right)) and left[same] == right[same]:
            same += 1
        assert common[k] == same


def test_a_first_token_cannot_be_a_target():
    with pytest.raises(AssertionError, match="first token"):
        build_forest(Sequences.of([[1, 2]], [[1.0, 1.0]]), max_row_tokens=10)
