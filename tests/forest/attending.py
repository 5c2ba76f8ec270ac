"""Attention by its definition, and random forests to hold the backends against it.

Shape suffixes: N packed nodes, H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from loracle.forest.trie import Forest, Sequences, build_forest

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NAMES = ("output", "d_query", "d_key", "d_value")


@dataclass(frozen=True)
class Case:
    """A forest, and the shapes of what attends over it."""

    token_ids: list[list[int]]
    groups: int = 1
    kv_heads: int = 1
    head_size: int = 32
    window: int = 0
    block_tokens: int = 16
    max_row_tokens: int = 1 << 30

    @property
    def forest(self) -> Forest:
        sequences = Sequences.of(self.token_ids)
        return build_forest(sequences, max_row_tokens=self.max_row_tokens, attention_cost=0.0)


# Two tokens share prefixes at every length; rows of one token stand alone; rows are cut anywhere.
cases = st.builds(
    Case,
    token_ids=st.lists(
        st.lists(st.integers(0, 1), min_size=1, max_size=40), min_size=1, max_size=6
    ),
    groups=st.sampled_from([1, 3, 7, 8]),
    kv_heads=st.sampled_from([1, 2]),
    head_size=st.sampled_from([32, 40, 64, 96, 128, 256]),
    window=st.sampled_from([0, 0, 1, 5, 20]),
    block_tokens=st.sampled_from([16, 32]),
    max_row_tokens=st.sampled_from([1, 20, 1 << 30]),
)


def visible(forest: Forest, window: int) -> Tensor:
    """The mask by the paths: bool (N, N)."""
    seen = torch.zeros(forest.num_nodes, forest.num_nodes, dtype=torch.bool)
    for node in range(forest.num_nodes):
        path = forest.ancestors(node)
        seen[node, path[-window:] if window else path] = True
    return seen


def by_definition(
    query: Tensor, key: Tensor, value: Tensor, seen_NN: Tensor, scale: float
) -> Tensor:
    """As a backend's attend, in the precision of its arguments."""
    groups = query.shape[0] // key.shape[0]
    key, value = (t.repeat_interleave(groups, dim=0) for t in (key, value))
    scores = query @ key.transpose(1, 2) * scale
    probability = scores.masked_fill(~seen_NN.to(scores.device), -torch.inf).softmax(-1)
    return (probability @ value).transpose(0, 1)


def inputs(case: Case, dtype: torch.dtype, num_nodes: int) -> list[Tensor]:
    """Queries, keys and values as models hand them over, transposed; the output's gradient."""
    generator = torch.Generator().manual_seed(0)
    heads = [case.groups * case.kv_heads, case.kv_heads, case.kv_heads]
    shapes = [(num_nodes, h, case.head_size) for h in (*heads, heads[0])]
    drawn = [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in shapes]
    return [*(t.transpose(0, 1) for t in drawn[:3]), drawn[3]]


def output_and_gradients(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], given: list[Tensor]
) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in given[:3]]
    output = attend(*leaves)
    output.backward(given[3])
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def relative_errors(
    case: Case,
    attend: Callable[[Tensor, Tensor, Tensor, float], Tensor],
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Of output and gradients, against the definition in float64.

    A gradient of less than a hundredth of the output's is the difference of far larger terms, and
    has their rounding: it is measured by the output's. (Of a row of one node, which has no choice
    whom to attend to, it is zero by definition.)
    """
    forest = case.forest
    given = inputs(case, dtype, forest.num_nodes)
    scale = case.head_size**-0.5
    found = output_and_gradients(lambda q, k, v: attend(q, k, v, scale), given)
    seen = visible(forest, case.window)
    expected = output_and_gradients(
        lambda q, k, v: by_definition(q, k, v, seen, scale), [t.double() for t in given]
    )
    unit = float(given[3].double().norm())
    errors = {}
    for name, ours, exact in zip(NAMES, found, expected, strict=True):
        reference = float(exact.norm())
        difference = float((ours.double() - exact).norm())
        errors[name] = difference / (reference if reference > 0.01 * unit else unit)
    return errors


def branching(num_branches: int, length: int, seed: int = 0) -> list[list[int]]:
    """A trunk with branches, all of one length."""
    draw = np.random.default_rng(seed)
    trunk = draw.integers(0, 9, length).tolist()
    return [[*trunk, 10 + i, *draw.integers(0, 9, length - 1)] for i in range(num_branches)]
