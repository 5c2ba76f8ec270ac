"""FlexAttention with Loracle's own BlockMask: forward on the CPU, and the mask's blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from loracle.forest.attention import flex_rows
from tests.forest.attending import DEVICE, Case, branching, by_definition, cases, inputs, visible

CPU = torch.device("cpu")


def mask_of(case: Case, device: torch.device = CPU) -> flex_rows.FlexMask:
    forest = case.forest
    return flex_rows.FlexMask.of(forest.subtree_ends, forest.depths, case.window, device)


def partners(counts: torch.Tensor, indices: torch.Tensor) -> list[set[int]]:
    return [set(row[:n].tolist()) for n, row in zip(counts[0, 0], indices[0, 0], strict=True)]


@settings(max_examples=20)
@given(cases)
def test_the_output_is_that_of_the_definition(case):
    query, key, value, _ = inputs(case, torch.float32, case.forest.num_nodes)
    found = flex_rows.attend(query, key, value, mask_of(case, DEVICE), 0.2)
    expected = by_definition(query, key, value, visible(case.forest, case.window), 0.2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "token_ids", [branching(5, 150), branching(1, 300), [list(range(1000))], [[1], [2]]]
)
def test_the_blocks_are_those_that_torch_finds_by_trying_every_pair(token_ids):
    mask = mask_of(Case(token_ids))
    length = mask.padded_length
    theirs = create_block_mask(
        mask.block_mask.mask_mod, None, None, length, length, device="cpu", BLOCK_SIZE=128
    )
    ours = mask.block_mask
    for side in ("kv", "q"):
        own, other = (
            [
                partners(
                    getattr(m, f"{kind}{side}_num_blocks"), getattr(m, f"{kind}{side}_indices")
                )
                for kind in ("", "full_")
            ]
            for m in (ours, theirs)
        )
        assert own == other, side


def test_a_window_keeps_every_block_that_is_seen():
    mask = mask_of(Case(branching(3, 200), window=50)).block_mask
    length = mask.seq_lengths[0]
    theirs = create_block_mask(mask.mask_mod, None, None, length, length, device="cpu")
    assert ((theirs.to_dense() == 0) | (mask.to_dense() == 1)).all()


def test_forests_of_one_length_are_compiled_once():
    compiled = []

    def count(graph, example_inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    function = torch.compile(flex_attention, backend=count, dynamic=False)
    for case in (Case(branching(3, 60)), Case(branching(2, 70)), Case(branching(1, 100))):
        mask = mask_of(case)
        assert mask.padded_length == 256
        query, key, value = (torch.randn(1, 2, 256, 32) for _ in range(3))
        function(query, key, value, block_mask=mask.block_mask)
    assert len(compiled) == 1


def test_lengths_are_few():
    lengths = {flex_rows.padded_length(n) for n in range(1, 20_000)}
    assert lengths == {128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192} | {
        12288,
        16384,
        24576,
    }
    assert all(flex_rows.padded_length(n) >= n for n in range(1, 20_000))


@pytest.mark.skipif(DEVICE.type != "cpu", reason="a GPU has the backward")
def test_a_gradient_on_a_cpu_is_refused():
    case = Case(branching(2, 10))
    query, key, value, _ = inputs(case, torch.float32, case.forest.num_nodes)
    with pytest.raises(NotImplementedError, match="backward on CPU"):
        flex_rows.attend(query.requires_grad_(), key, value, mask_of(case), 0.2)
