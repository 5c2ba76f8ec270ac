"""Attention inside packed rows by Loracle's own Triton kernels (triton_kernels.py).

Shape suffixes: N packed nodes, H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loracle.forest.attention.uploading import upload
from loracle.forest.blocks import ForestBlocks, forest_blocks
from loracle.forest.trie import IntArray

MAX_HEAD_SIZE = 256
_MIN_TILE = 16
_TILE_BYTES = 16384
"""One head's keys of a block take at most this much: what a program holds of them then fits into
the 99 KB that it may have on an RTX 4090 (tests/forest/test_triton_compiles.py)."""
_SMALL_TILE_BYTES = 8192
"""Up to this size four warps hold a block's accumulators in registers, and the next block can be
loaded while this one is computed."""
_MAX_BLOCK_BYTES = 128
"""A block's nodes, as a number for every node: 64 in half precision, 32 in float32, whose exact
products need twice the registers."""
_LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class _Lists:
    """As BlockLists, on the device."""

    starts: Tensor
    first_partial: Tensor
    partners: Tensor


@dataclass(frozen=True)
class KernelInput:
    """What the kernels read of a forest, made once per micro-batch and window, on the device.

    subtree_ends_N, depths_N: int32. window: 0 is no limit.
    """

    num_nodes: int
    num_blocks: int
    block_tokens: int
    window: int
    subtree_ends_N: Tensor
    depths_N: Tensor
    keys_of_queries: _Lists
    queries_of_keys: _Lists

    @classmethod
    def of(
        cls,
        subtree_ends: IntArray,
        depths: IntArray,
        window: int,
        block_tokens: int,
        device: torch.device,
    ) -> KernelInput:
        blocks = forest_blocks(subtree_ends, depths, block_tokens, window)
        return cls.of_blocks(blocks, subtree_ends, depths, window, device)

    @classmethod
    def of_blocks(
        cls,
        blocks: ForestBlocks,
        subtree_ends: IntArray,
        depths: IntArray,
        window: int,
        device: torch.device,
    ) -> KernelInput:
        ends, depths_N, *lists = upload(
            [
                subtree_ends.astype(np.int32),
                depths.astype(np.int32),
                *blocks.keys_of_queries,
                *blocks.queries_of_keys,
            ],
            device,
        )
        return cls(
            blocks.num_nodes,
            blocks.num_blocks,
            blocks.block_tokens,
            window,
            ends,
            depths_N,
            _Lists(*lists[:3]),
            _Lists(*lists[3:]),
        )


def block_tokens_for(head_size: int, dtype: torch.dtype) -> int:
    """Nodes of a block: a power of two, as many as shared memory and registers take."""
    row_bytes = padded_head_size(head_size) * dtype.itemsize
    return max(_MIN_TILE, min(_MAX_BLOCK_BYTES // dtype.itemsize, _TILE_BYTES // row_bytes))


def launch_options(head_size: int, dtype: torch.dtype, block_tokens: int) -> dict[str, Any]:
    """How Triton compiles the kernels. Known from compiling, not yet from timing on a GPU."""
    is_small = block_tokens * padded_head_size(head_size) * dtype.itemsize <= _SMALL_TILE_BYTES
    return {
        "num_warps": 4 if is_small else 8,
        "num_stages": 2 if is_small else 1,
        "enable_fp_fusion": True,
    }


def attend(query: Tensor, key: Tensor, value: Tensor, kernel: KernelInput, scale: float) -> Tensor:
    """query (H, N, D), key and value (K, N, D) to the output (N, H, D).

    Raises:
        RuntimeError: the kernel cannot be compiled or started here.
    """
    # Under autocast a norm may leave queries in float32; values come straight from a product.
    query, key = query.to(value.dtype), key.to(value.dtype)
    # Values may be shorter (multi-head latent attention); the kernels take one size for all.
    size = value.shape[-1]
    padded = nn.functional.pad(value, (0, query.shape[-1] - size))
    output: Tensor = _TreeAttention.apply(query, key, padded, kernel, scale)  # type: ignore[no-untyped-call]
    return output[..., :size]


def padded_head_size(head_size: int) -> int:
    """Tiles are powers of two."""
    return max(_MIN_TILE, 1 << (head_size - 1).bit_length())


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Start kernels on that device. What Triton raises becomes a RuntimeError."""
    from triton.errors import TritonError

    try:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            yield
    except TritonError as error:
        raise RuntimeError(f"the Triton kernel does not run on {device}: {error}") from error


def _constants(query: Tensor, key: Tensor, kernel: KernelInput) -> dict[str, Any]:
    head_size = query.shape[-1]
    return {
        "GROUPS": query.shape[0] // key.shape[0],
        "WINDOWED": kernel.window > 0,
        "BLOCK": kernel.block_tokens,
        "HEAD": head_size,
        "D": padded_head_size(head_size),
        **launch_options(head_size, query.dtype, kernel.block_tokens),
    }


def _strides(*tensors_HND: Tensor) -> list[int]:
    return [stride for tensor in tensors_HND for stride in tensor.stride()[:2]]


def _even(tensor_HND: Tensor) -> Tensor:
    """The kernels take any strides, but a head's numbers must be neighbours."""
    return tensor_HND if tensor_HND.stride(-1) == 1 else tensor_HND.contiguous()


class _TreeAttention(torch.autograd.Function):
    """FlashAttention-2 over the forest's mask. Keeps the output and one number per query."""

    @staticmethod
    def forward(
        ctx: Any,
        query_HND: Tensor,
        key_KND: Tensor,
        value_KND: Tensor,
        kernel: KernelInput,
        scale: float,
    ) -> Tensor:
        from loracle.forest.attention import triton_kernels

        query_HND, key_KND, value_KND = _even(query_HND), _even(key_KND), _even(value_KND)
        num_heads, num_nodes, head_size = query_HND.shape
        output_NHD = query_HND.new_empty(num_nodes, num_heads, head_size)
        level_HN = query_HND.new_empty(num_heads, num_nodes, dtype=torch.float32)
        lists = kernel.keys_of_queries
        with _on(query_HND.device):
            triton_kernels.forward_kernel[kernel.num_blocks, num_heads](
                query_HND,
                key_KND,
                value_KND,
                output_NHD,
                level_HN,
                kernel.subtree_ends_N,
                kernel.depths_N,
                lists.starts,
                lists.first_partial,
                lists.partners,
                num_nodes,
                kernel.window,
                scale * _LOG2_E,
                *_strides(query_HND, key_KND, value_KND, output_NHD.transpose(0, 1)),
                **_constants(query_HND, key_KND, kernel),
            )
        ctx.save_for_backward(query_HND, key_KND, value_KND, output_NHD, level_HN)
        ctx.kernel, ctx.scale = kernel, scale
        return output_NHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (d_output_NHD,) = gradients
        query_HND, key_KND, value_KND, output_NHD, level_HN = ctx.saved_tensors
        d_output_HND = _even(d_output_NHD).transpose(0, 1)
        output_HND = output_NHD.transpose(0, 1)
        # As the models hand queries over: views of packed nodes, which take gradients as they are.
        d_query, d_key, d_value = (
            t.new_empty(t.shape[1], t.shape[0], t.shape[2]).transpose(0, 1)
            for t in (query_HND, key_KND, value_KND)
        )
        delta_HN = torch.empty_like(level_HN)
        with _on(query_HND.device):
            _start_backward(
                ctx.kernel,
                ctx.scale,
                (query_HND, key_KND, value_KND),
                (output_HND, d_output_HND, level_HN, delta_HN),
                (d_query, d_key, d_value),
            )
        return d_query, d_key, d_value, None, None


def _start_backward(
    kernel: KernelInput,
    scale: float,
    inputs: tuple[Tensor, Tensor, Tensor],
    outputs: tuple[Tensor, Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Fill the gradients: that of the queries first, which leaves delta for the other two."""
    from loracle.forest.attention import triton_kernels

    query, key, value = inputs
    output, d_output, level, delta = outputs
    d_query, d_key, d_value = gradients
    constants = _constants(query, key, kernel)
    forest = (kernel.subtree_ends_N, kernel.depths_N)
    by_query, by_key = kernel.keys_of_queries, kernel.queries_of_keys
    numbers = (kernel.num_nodes, kernel.window, scale * _LOG2_E, scale)
    triton_kernels.query_gradient_kernel[kernel.num_blocks, query.shape[0]](
        *(query, key, value, output, d_output, d_query, level, delta, *forest),
        *(by_query.starts, by_query.first_partial, by_query.partners, *numbers),
        *_strides(query, key, value, output, d_output, d_query),
        **constants,
    )
    triton_kernels.key_gradient_kernel[kernel.num_blocks, key.shape[0]](
        *(query, key, value, d_output, d_key, d_value, level, delta, *forest),
        *(by_key.starts, by_key.first_partial, by_key.partners, *numbers),
        *_strides(query, key, value, d_output, d_key, d_value),
        **constants,
    )
