"""The Triton kernels equal attention by its definition: output and all three gradients.

Without a GPU they are interpreted on the CPU.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from loracle.forest.attention import triton_rows
from loracle.forest.blocks import forest_blocks
from loracle.forest.trie import Forest
from tests.forest.attending import (
    DEVICE,
    Case,
    branching,
    by_definition,
    cases,
    inputs,
    output_and_gradients,
    relative_errors,
    visible,
)

pytest.importorskip("triton", reason="needs triton: pip install 'loracle[cuda]'")

ACCEPTED = 1e-5
ACCEPTED_HALF = {torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
UNHURRIED = [HealthCheck.too_slow]


def errors(
    case: Case,
    ends: np.ndarray | None = None,
    block_ends: np.ndarray | None = None,
    block_window: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """ends: what the mask uses, and block_ends and block_window what the blocks' bounds are made
    from, if not the forest's own."""
    forest = case.forest
    ends = forest.subtree_ends if ends is None else ends
    bounds = ends if block_ends is None else block_ends
    window = case.window if block_window is None else block_window
    blocks = forest_blocks(bounds, forest.depths, case.block_tokens, window)
    kernel = triton_rows.KernelInput.of_blocks(blocks, ends, forest.depths, case.window, DEVICE)
    return relative_errors(case, lambda q, k, v, s: triton_rows.attend(q, k, v, kernel, s), dtype)


def assert_equal(case: Case) -> None:
    for name, error in errors(case).items():
        assert error <= ACCEPTED, f"{name}: {error:.1e}"


@settings(max_examples=15, suppress_health_check=UNHURRIED)
@given(cases)
def test_random_forests_have_the_output_and_gradients_of_the_definition(case):
    assert_equal(case)


@pytest.mark.slow
@settings(max_examples=500, suppress_health_check=UNHURRIED)
@given(cases)
def test_500_random_forests_have_the_output_and_gradients_of_the_definition(case):
    assert_equal(case)


@pytest.mark.parametrize("head_size", [32, 64, 80, 96, 128, 160, 256])
def test_every_head_size_up_to_256(head_size):
    block_tokens = triton_rows.block_tokens_for(head_size, torch.float32)
    assert_equal(Case(branching(2, 20), groups=2, head_size=head_size, block_tokens=block_tokens))


@pytest.mark.parametrize("groups", [1, 3, 7, 8])
def test_every_group_of_query_heads_shares_its_keys(groups):
    assert_equal(Case(branching(3, 12), groups=groups, kv_heads=2))


@pytest.mark.parametrize("num_nodes", [1, 15, 16, 17, 33])
def test_any_number_of_nodes_fills_its_last_block(num_nodes):
    assert_equal(Case([list(range(num_nodes))]))


def test_rows_of_one_node_give_their_values():
    case = Case([[i] for i in range(20)], max_row_tokens=1)
    assert case.forest.num_rows == 20
    assert_equal(case)


@pytest.mark.parametrize("window", [1, 2, 7, 16, 100])
def test_a_window_counts_positions_and_not_nodes(window):
    assert_equal(Case(branching(3, 24), window=window))


def test_values_may_be_shorter_than_keys():
    """As in multi-head latent attention."""
    case = Case(branching(2, 20), groups=2, head_size=64)
    forest = case.forest
    kernel = triton_rows.KernelInput.of(forest.subtree_ends, forest.depths, 0, 16, DEVICE)
    query, key, value, gradient = inputs(case, torch.float32, forest.num_nodes)
    given = [query, key, value[..., :40], gradient[..., :40]]
    found = output_and_gradients(lambda q, k, v: triton_rows.attend(q, k, v, kernel, 0.2), given)
    seen = visible(forest, 0)
    expected = output_and_gradients(lambda q, k, v: by_definition(q, k, v, seen, 0.2), given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_nodes_added_as_rows_of_their_own_change_nothing():
    case = Case(branching(3, 12), groups=3)
    forest = case.forest
    added = np.arange(forest.num_nodes, forest.num_nodes + 21)
    padded = dataclasses.replace(
        forest,
        subtree_ends=np.concatenate([forest.subtree_ends, added + 1]),
        depths=np.concatenate([forest.depths, np.zeros_like(added)]),
    )
    given = inputs(case, torch.float32, len(padded.subtree_ends))
    given[3][forest.num_nodes :] = 0
    whole = by_kernel(padded, case, given)
    number = forest.num_nodes
    own = by_kernel(forest, case, [*(t[:, :number] for t in given[:3]), given[3][:number]])
    torch.testing.assert_close(whole[0][:number], own[0], rtol=1e-5, atol=1e-6)
    for padded_gradient, gradient in zip(whole[1:], own[1:], strict=True):
        torch.testing.assert_close(padded_gradient[:, :number], gradient, rtol=1e-5, atol=1e-6)


def by_kernel(forest: Forest, case: Case, given: list[torch.Tensor]) -> list[torch.Tensor]:
    kernel = triton_rows.KernelInput.of(
        forest.subtree_ends, forest.depths, case.window, case.block_tokens, DEVICE
    )
    return output_and_gradients(lambda q, k, v: triton_rows.attend(q, k, v, kernel, 0.2), given)


def test_tensors_that_are_not_packed_have_the_same_gradients():
    case = Case(branching(2, 12), groups=2)
    packed = inputs(case, torch.float32, case.forest.num_nodes)
    strided = [torch.stack([t, t], dim=-1)[..., 0] for t in packed]
    assert strided[0].stride(-1) == 2
    for ours, theirs in zip(
        by_kernel(case.forest, case, strided), by_kernel(case.forest, case, packed), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", ACCEPTED_HALF)
def test_half_precision_is_as_near_as_its_rounding(dtype, whole_bfloat16_products):
    found = errors(Case(branching(3, 20), groups=3, head_size=64), dtype=dtype)
    assert max(found.values()) <= ACCEPTED_HALF[dtype], found


@pytest.fixture
def whole_bfloat16_products(monkeypatch):
    """Triton's interpreter keeps bfloat16 as its bits, and multiplies those as whole numbers."""
    from triton.runtime import interpreter

    multiply = interpreter.InterpreterBuilder.create_dot

    def multiply_numbers(self, left, right, *others):
        if left.dtype.scalar == interpreter.tl.bfloat16:
            left, right = (self.cast_impl(t, interpreter.tl.float32) for t in (left, right))
        return multiply(self, left, right, *others)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", multiply_numbers)


# What the tests above would say of a wrong kernel.


def test_a_branch_that_sees_another_is_found():
    case = Case(branching(3, 12))
    everything = np.full_like(case.forest.subtree_ends, case.forest.num_nodes)
    assert min(errors(case, ends=everything).values()) > 1e-2


def test_a_node_that_sees_one_too_few_is_found():
    case = Case(branching(3, 12))
    ends = case.forest.subtree_ends.copy()
    ends[np.argmax(ends - np.arange(len(ends)) > 1)] -= 1
    assert min(errors(case, ends=ends).values()) > 1e-3


def test_skipping_one_node_too_early_is_found():
    """Node 16 alone is in the second block, and all before it end one node after its start."""
    case = Case([list(range(17))])
    assert max(errors(case).values()) <= ACCEPTED
    assert max(errors(case, block_ends=case.forest.subtree_ends - 1).values()) > 1e-2


def test_leaving_the_mask_out_one_node_too_early_is_found():
    """The first branch ends with node 30; node 31, the last of the second block, is another's."""
    case = Case([[*range(31)], [*range(12), 50, 51]])
    ends = case.forest.subtree_ends
    assert ends[:16].min() == 31
    assert max(errors(case).values()) <= ACCEPTED
    too_long = np.minimum(ends + 1, case.forest.num_nodes)
    assert max(errors(case, block_ends=too_long).values()) > 1e-3


def test_skipping_what_is_one_position_nearer_than_the_window_is_found():
    """Node 16, the first of the second block, sees node 15 alone of the first one."""
    case = Case([list(range(32))], window=2)
    assert max(errors(case).values()) <= ACCEPTED
    assert max(errors(case, block_window=1).values()) > 1e-2


def test_leaving_the_mask_out_one_position_beyond_the_window_is_found():
    """Node 31, the last of the second block, sees all nodes of the first one but node 0."""
    case = Case([list(range(32))], window=31)
    assert max(errors(case).values()) <= ACCEPTED
    assert max(errors(case, block_window=32).values()) > 1e-3
