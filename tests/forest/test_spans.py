"""Spans of a row: what they leave out is what nothing in them sees, and they are worth it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loracle.forest.spans import cut_into_spans
from loracle.forest.trie import Sequences, build_forest

token_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=150), min_size=1)


def one_row(token_ids: list[list[int]]):
    return build_forest(Sequences.of(token_ids), max_row_tokens=1 << 30, attention_cost=0.0)


@given(token_lists, st.sampled_from([0, 100, 5000]))
def test_every_node_finds_itself_and_its_ancestors_among_its_keys(token_ids, span_pairs):
    forest = one_row(token_ids)
    first = 0
    for row in range(forest.num_rows):
        start, stop = (int(n) for n in forest.row_starts[row : row + 2])
        for span in cut_into_spans(start, stop, forest.subtree_ends, span_pairs):
            assert span.start == first < span.stop
            assert (np.diff(span.keys) > 0).all()
            for node in range(span.start, span.stop):
                assert np.isin(forest.ancestors(node), span.keys).all()
            first = span.stop
        assert first == stop


def test_cuts_fall_where_a_long_branch_starts():
    passages = [[7, 7, *range(100 * p, 100 * p + 90)] for p in range(1, 4)]
    forest = one_row(passages)
    assert forest.num_rows == 1
    spans = cut_into_spans(0, forest.num_nodes, forest.subtree_ends, 1000)
    assert {92, 182} <= {span.start for span in spans}
    assert [len(span.keys) - (span.stop - span.start) for span in spans if span.start == 92] == [2]


def test_a_dear_span_leaves_the_row_whole():
    forest = one_row([[1, *range(50, 90)], [1, *range(100, 140)]])
    assert len(cut_into_spans(0, forest.num_nodes, forest.subtree_ends, 1 << 40)) == 1
