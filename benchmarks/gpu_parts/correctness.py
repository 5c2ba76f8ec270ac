"""Attention by every backend against its definition, the load-time self-test, and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu_parts.measuring import Bench, Case
from gpu_parts.models import make_base, make_rows
from loracle.forest.attention.backends import backends_to_try
from loracle.forest.attention.rows import RowAttention
from loracle.forest.trie import Forest, Sequences, build_forest
from loracle.generation.generate import generate
from loracle.generation.types import GenerationSettings, Question
from loracle.model.base import BaseModel
from loracle.model.self_test import run_self_test

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HEADS, KV_HEADS = 4, 2


def possible(bench: Bench, head_size: int, dtype: torch.dtype) -> Iterator[tuple[str, str | None]]:
    """Every backend of this device, and why it is not to be had."""
    for asked in ("triton", "flex", "dense"):
        first = next(iter(backends_to_try(asked, bench.device, head_size, dtype)))
        yield first.backend, first.problem


def attention_cases(bench: Bench) -> Iterator[Case]:
    """Output and gradients of every backend, by precision, head size and window."""
    for dtype_name, dtype in DTYPES.items():
        for head_size, window in ((64, 0), (128, 0), (128, 100), (256, 0)):
            if bench.is_tiny and (dtype_name, head_size, window) != ("fp32", 64, 0):
                continue
            for backend, problem in possible(bench, head_size, dtype):
                name = f"attention/{backend}/{dtype_name}/head{head_size}/window{window}"

                def measure(
                    backend: Any = backend,
                    problem: str | None = problem,
                    dtype: torch.dtype = dtype,
                    shape: tuple[int, int] = (head_size, window),
                ) -> dict[str, Any]:
                    if problem is not None:
                        return {"skipped": problem}
                    return attention_errors(bench, backend, dtype, *shape)

                yield Case(name, measure)


def attention_errors(
    bench: Bench, backend: Any, dtype: torch.dtype, head_size: int, window: int
) -> dict[str, float]:
    """Relative errors of the output and the three gradients, against float64."""
    forest = small_forest(bench)
    context = RowAttention.of(forest, bench.device, backend=backend)
    generator = torch.Generator().manual_seed(0)
    shapes = [(forest.num_nodes, heads, head_size) for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)]
    drawn = [torch.randn(shape, generator=generator).to(bench.device, dtype) for shape in shapes]
    scale = head_size**-0.5
    inputs = [tensor.transpose(0, 1) for tensor in drawn[:3]]
    found = _with_gradients(
        lambda q, k, v: context.attend(0, q, k, v, scale, window), inputs, drawn[3]
    )
    seen = _visible(forest, window).to(bench.device)
    exact = _with_gradients(
        lambda q, k, v: _by_definition(q, k, v, seen, scale),
        [tensor.double() for tensor in inputs],
        drawn[3].double(),
    )
    names = ("output", "d_query", "d_key", "d_value")
    return {
        name: float((ours.double() - theirs).norm() / theirs.norm())
        for name, ours, theirs in zip(names, found, exact, strict=True)
    }


def small_forest(bench: Bench) -> Forest:
    """Two passages with branches, one of which branches again."""
    rows = make_rows(bench, 50, 12 if bench.is_tiny else 24, sharing=True).token_ids
    return build_forest(Sequences.of(rows), max_row_tokens=1 << 30, attention_cost=0.0)


def _visible(forest: Forest, window: int) -> Tensor:
    node = torch.arange(forest.num_nodes)
    ends, depths = torch.from_numpy(forest.subtree_ends), torch.from_numpy(forest.depths)
    seen = (node[None] <= node[:, None]) & (node[:, None] < ends[None])
    return seen & (depths[:, None] - depths[None] < window) if window else seen


def _by_definition(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float) -> Tensor:
    key, value = (t.repeat_interleave(query.shape[0] // t.shape[0], dim=0) for t in (key, value))
    scores = (query @ key.transpose(1, 2) * scale).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(0, 1)


def _with_gradients(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: list[Tensor], d_output: Tensor
) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = attend(*leaves)
    output.backward(d_output)
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def model_cases(bench: Bench) -> Iterator[Case]:
    """The self-test, and answers against transformers' one at a time, of a model of two layers."""
    for dtype_name, dtype in DTYPES.items():
        if bench.is_tiny and dtype_name != "fp32":
            continue
        base = make_base(bench, "qwen2.5-0.5b", num_hidden_layers=1 if bench.is_tiny else 2)
        base.model.to(dtype)
        base = dataclasses.replace(base, dtype=dtype)
        head_size = base.model.config.hidden_size // base.model.config.num_attention_heads
        for backend, problem in possible(bench, head_size, dtype):
            if problem is None:
                tried = dataclasses.replace(base, attention=backend)  # type: ignore[arg-type]
                yield Case(f"self-test/{backend}/{dtype_name}", lambda b=tried: self_test(b))
                yield Case(
                    f"answers/{backend}/{dtype_name}", lambda b=tried: same_answers(bench, b)
                )
            else:
                yield Case(f"self-test/{backend}/{dtype_name}", lambda p=problem: {"skipped": p})


def self_test(base: BaseModel) -> dict[str, Any]:
    found = run_self_test(base)
    return {"passed": found.passed, "detail": found.detail}


def same_answers(bench: Bench, base: BaseModel) -> dict[str, int]:
    """How many greedy answers equal those of transformers' `generate`, one prompt at a time."""
    prompts = make_rows(bench, 200, 8 if bench.is_tiny else 32, sharing=True).prompts(32)
    num_new = 4 if bench.is_tiny else 24
    settings = GenerationSettings(num_new, 1.0, False, False, 16, 16384)
    ours = [
        list(answer.token_ids)
        for batch in generate(base, None, [Question(ids) for ids in prompts], settings)
        for answer in batch
    ]
    same = 0
    for ids, answer in zip(prompts, ours, strict=True):
        with torch.no_grad():
            output = base.model.generate(
                torch.tensor([ids], device=bench.device), do_sample=False, max_new_tokens=num_new
            )
        theirs = [t for t in output[0, len(ids) :].tolist() if t not in base.end_token_ids]
        same += theirs == answer
    return {"same": same, "of": len(prompts), "new_tokens": int(np.sum([len(a) for a in ours]))}


def cases(bench: Bench) -> Iterator[Case]:
    yield from attention_cases(bench)
    yield from model_cases(bench)
