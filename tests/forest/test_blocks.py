"""Block lists: a kernel that follows them visits what it must, masks what it must, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from loracle.forest.blocks import BlockLists, forest_blocks
from tests.forest.attending import Case, branching, cases, visible


def pairs(lists: BlockLists) -> dict[tuple[int, int], bool]:
    """(own block, partner): whether the pair is partial."""
    found = {}
    for block, first_partial in enumerate(lists.first_partial):
        for place in range(lists.starts[block], lists.starts[block + 1]):
            found[block, int(lists.partners[place])] = bool(place >= first_partial)
    return found


def blocks_of(case: Case):
    forest = case.forest
    return forest_blocks(forest.subtree_ends, forest.depths, case.block_tokens, case.window)


@settings(max_examples=300)
@given(cases)
def test_lists_hold_every_pair_that_sees_and_mask_every_pair_that_does_not_see_whole(case):
    blocks, seen = blocks_of(case), visible(case.forest, case.window).numpy()
    found = pairs(blocks.keys_of_queries)
    size = case.block_tokens
    for i in range(blocks.num_blocks):
        for j in range(blocks.num_blocks):
            part = seen[i * size : (i + 1) * size, j * size : (j + 1) * size]
            assert part.any() <= ((i, j) in found)
            if (i, j) in found and not found[i, j]:
                assert part.all()
            if not case.window:
                assert part.any() == ((i, j) in found)
                assert found.get((i, j), True) == (i == j or not part.all())


@given(cases)
def test_keys_and_queries_have_the_same_pairs(case):
    blocks = blocks_of(case)
    by_query = pairs(blocks.keys_of_queries)
    assert {(j, i): partial for (i, j), partial in by_query.items()} == pairs(
        blocks.queries_of_keys
    )


def test_a_window_skips_what_is_too_far_back():
    long = Case([list(range(200))], window=20)
    assert len(pairs(blocks_of(long).keys_of_queries)) < 40
    assert len(pairs(blocks_of(Case([list(range(200))])).keys_of_queries)) == 13 * 14 // 2


def test_branches_skip_one_another():
    blocks = blocks_of(Case(branching(8, 64)))
    trunk, branch = 4, 4
    expected = (1 + trunk) * trunk // 2 + 8 * (branch * trunk + (1 + branch) * branch // 2)
    assert len(pairs(blocks.keys_of_queries)) == expected


@pytest.mark.parametrize("num_nodes", [1, 15, 16, 17])
def test_any_number_of_nodes_makes_blocks(num_nodes):
    blocks = blocks_of(Case([list(range(num_nodes))]))
    assert blocks.num_blocks == -(-num_nodes // 16)
    assert np.array_equal(np.unique(blocks.keys_of_queries.partners), np.arange(blocks.num_blocks))
