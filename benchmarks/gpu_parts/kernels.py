"""Attention alone, forward and backward, at the heads of Qwen2.5-7B; and how to start kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from gpu_parts.correctness import possible
from gpu_parts.measuring import Bench, Case, seconds_of
from gpu_parts.models import make_rows
from loracle.forest.attention import triton_rows
from loracle.forest.attention.rows import RowAttention
from loracle.forest.trie import Forest, Sequences, build_forest


class Heads(NamedTuple):
    queries: int
    keys: int
    size: int


def heads_of(bench: Bench) -> Heads:
    """Those of Qwen2.5-7B."""
    return Heads(2, 1, 32) if bench.is_tiny else Heads(28, 4, 128)


def cases(bench: Bench) -> Iterator[Case]:
    for sharing in (True, False):
        forest = _forest(bench, sharing=sharing)
        words = "sharing" if sharing else "separate"
        for backend, problem in possible(bench, heads_of(bench).size, bench.half):
            if problem is None:
                yield Case(f"{words}/{backend}", lambda f=forest, b=backend: speed(bench, f, b))
    if dict(possible(bench, heads_of(bench).size, bench.half))["triton"] is None:
        yield from starts(bench, _forest(bench, sharing=True))


def starts(bench: Bench, forest: Forest) -> Iterator[Case]:
    """Other sizes of blocks, warps and stages than those that Loracle chooses."""
    for block_tokens in (16,) if bench.is_tiny else (32, 64, 128):
        for num_warps in (4,) if bench.is_tiny else (4, 8):
            for num_stages in (1,) if bench.is_tiny else (1, 2, 3):
                options = {"num_warps": num_warps, "num_stages": num_stages}

                def measure(
                    block_tokens: int = block_tokens, options: dict[str, Any] = options
                ) -> dict[str, float]:
                    return started_as(bench, forest, block_tokens, options)

                yield Case(
                    f"start/block{block_tokens}/warps{num_warps}/stages{num_stages}", measure
                )


def started_as(
    bench: Bench, forest: Forest, block_tokens: int, options: dict[str, Any]
) -> dict[str, float]:
    chosen = triton_rows.block_tokens_for, triton_rows.launch_options
    triton_rows.block_tokens_for = lambda head_size, dtype: block_tokens
    triton_rows.launch_options = lambda head_size, dtype, tokens: options
    try:
        return speed(bench, forest, "triton")
    finally:
        triton_rows.block_tokens_for, triton_rows.launch_options = chosen


def speed(bench: Bench, forest: Forest, backend: Any) -> dict[str, float]:
    """Milliseconds, and the rate of the products that the mask asks for."""
    context = RowAttention.of(forest, bench.device, backend=backend)
    generator = torch.Generator().manual_seed(0)
    heads = heads_of(bench)
    each = (heads.queries, heads.keys, heads.keys, heads.queries)
    shapes = [(forest.num_nodes, number, heads.size) for number in each]
    query, key, value, d_output = (
        torch.randn(shape, generator=generator).to(bench.device, bench.half) for shape in shapes
    )
    leaves = [tensor.transpose(0, 1).requires_grad_() for tensor in (query, key, value)]

    def forward() -> torch.Tensor:
        return context.attend(0, *leaves, heads.size**-0.5, 0)

    def both() -> None:
        torch.autograd.grad(forward(), leaves, d_output)

    with torch.no_grad():
        forward_seconds = seconds_of(bench, forward)
    both_seconds = seconds_of(bench, both)
    pairs = int((forest.depths.astype(np.int64) + 1).sum())
    products = 2.0 * pairs * heads.queries * heads.size
    return {
        "num_nodes": forest.num_nodes,
        "visible_pairs": pairs,
        "forward_ms": round(1e3 * forward_seconds, 3),
        "both_ms": round(1e3 * both_seconds, 3),
        # Two products forward, five backward.
        "forward_tflops": round(2 * products / forward_seconds / 1e12, 3),
        "both_tflops": round(7 * products / both_seconds / 1e12, 3),
    }


def _forest(bench: Bench, *, sharing: bool) -> Forest:
    rows = make_rows(bench, 1000, 4 if bench.is_tiny else 64, sharing=sharing).token_ids
    return build_forest(Sequences.of(rows), max_row_tokens=1 << 30, attention_cost=0.0)
