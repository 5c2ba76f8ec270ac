"""Attention inside packed rows by torch's FlexAttention.

On a GPU it is compiled; on a CPU it runs without, and has no backward there. The BlockMask is not
asked of torch, which would evaluate the mask at every pair: it is made from the bounds of
forest/blocks.py. Lengths are rounded up to a few, each of which is compiled once; the places added
are rows of one node, which see themselves.

Shape suffixes: N packed nodes, L nodes with those added, H query heads, K key-value heads,
D head size, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from loracle.forest.attention.uploading import upload
from loracle.forest.blocks import BlockArray, BlockLists, forest_blocks
from loracle.forest.trie import IntArray

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK_TOKENS = 128


@dataclass(frozen=True)
class FlexMask:
    """The BlockMask of a forest, made once per micro-batch and window."""

    num_nodes: int
    padded_length: int
    block_mask: BlockMask

    @classmethod
    def of(
        cls, subtree_ends: IntArray, depths: IntArray, window: int, device: torch.device
    ) -> FlexMask:
        num_nodes = len(subtree_ends)
        length = padded_length(num_nodes)
        added = np.arange(num_nodes, length)
        ends_L = np.concatenate([subtree_ends, added + 1])
        depths_L = np.concatenate([depths, np.zeros_like(added)])
        return cls(num_nodes, length, _block_mask(ends_L, depths_L, window, device))


def padded_length(num_nodes: int) -> int:
    """The next of 128, 256, 384, 512, 768, 1,024, ...: two lengths to every power of two."""
    power = BLOCK_TOKENS
    while power < num_nodes:
        power *= 2
    three_quarters = power * 3 // 4
    fits = num_nodes <= three_quarters and three_quarters % BLOCK_TOKENS == 0
    return three_quarters if fits else power


def attend(query: Tensor, key: Tensor, value: Tensor, mask: FlexMask, scale: float) -> Tensor:
    """query (H, N, D), key and value (K, N, D) to the output (N, H, D).

    Raises:
        NotImplementedError: a gradient is wanted on a CPU.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)
    added = mask.padded_length - mask.num_nodes
    query, key, value = (nn.functional.pad(t, (0, 0, 0, added))[None] for t in (query, key, value))
    output: Tensor = flex_function(query.device.type)(
        query,
        key,
        value,
        block_mask=mask.block_mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output[0, :, : mask.num_nodes].transpose(0, 1)


@cache
def flex_function(device_type: str) -> Any:
    """torch's function, compiled for a GPU. Uncompiled it takes memory of every pair."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False) if device_type == "cuda" else flex_attention


def _block_mask(
    subtree_ends: IntArray, depths: IntArray, window: int, device: torch.device
) -> BlockMask:
    from torch.nn.attention.flex_attention import BlockMask

    blocks = forest_blocks(subtree_ends, depths, BLOCK_TOKENS, window)
    tables = [*_tables(blocks.keys_of_queries), *_tables(blocks.queries_of_keys)]
    ends_L, depths_L, *flat = upload(
        [subtree_ends.astype(np.int32), depths.astype(np.int32), *(t.reshape(-1) for t in tables)],
        device,
    )
    # One batch, and the same for all heads.
    of_all = [tensor.view(1, 1, *table.shape) for tensor, table in zip(flat, tables, strict=True)]
    keys, keys_of, full_keys, full_keys_of, queries, queries_of, full_queries, full_queries_of = (
        of_all
    )
    return BlockMask(
        seq_lengths=(len(subtree_ends), len(subtree_ends)),
        kv_num_blocks=keys,
        kv_indices=keys_of,
        full_kv_num_blocks=full_keys,
        full_kv_indices=full_keys_of,
        q_num_blocks=queries,
        q_indices=queries_of,
        full_q_num_blocks=full_queries,
        full_q_indices=full_queries_of,
        BLOCK_SIZE=(BLOCK_TOKENS, BLOCK_TOKENS),
        mask_mod=_mask(ends_L, depths_L, window),
    )


def _mask(ends_L: Tensor, depths_L: Tensor, window: int) -> Any:
    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < ends_L[key])

    def visible_and_near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return visible(batch, head, query, key) & (depths_L[query] - depths_L[key] < window)

    return visible_and_near if window else visible


def _tables(lists: BlockLists) -> list[BlockArray]:
    """Partial ones, then full ones, as BlockMask has them: counts (B,) and partners (B, B)."""
    num_blocks = len(lists.first_partial)
    starts, stops = lists.starts[:-1], lists.starts[1:]
    return [
        *_table(lists.partners, lists.first_partial, stops, num_blocks),
        *_table(lists.partners, starts, lists.first_partial, num_blocks),
    ]


def _table(
    partners: BlockArray, starts: BlockArray, stops: BlockArray, num_blocks: int
) -> tuple[BlockArray, BlockArray]:
    counts = stops - starts
    row = np.repeat(np.arange(num_blocks), counts)
    column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.zeros((num_blocks, num_blocks), np.int32)
    table[row, column] = partners[starts[row] + column]
    return counts.astype(np.int32), table
