"""Attention inside packed rows with a mask of every row: the reference of the other backends.

Shape suffixes: N packed nodes, H query heads, K key-value heads, D head size, Q queries, J keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class DenseRows:
    """bounds: first node and end of every row. subtree_ends_N, depths_N as in Forest."""

    bounds: list[tuple[int, int]]
    subtree_ends_N: Tensor
    depths_N: Tensor
    _visible: dict[int, list[Tensor]] = field(default_factory=dict)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int
    ) -> Tensor:
        """One call of the fused kernel for every row."""
        num_groups = query.shape[0] // key.shape[0]
        key, value = (t.repeat_interleave(num_groups, dim=0) for t in (key, value))
        if window not in self._visible:
            self._visible[window] = self._masks(window)
        outputs = [
            nn.functional.scaled_dot_product_attention(
                query[None, :, start:stop],
                key[None, :, start:stop],
                value[None, :, start:stop],
                attn_mask=visible,
                scale=scale,
            )[0].transpose(0, 1)
            for (start, stop), visible in zip(self.bounds, self._visible[window], strict=True)
        ]
        return torch.cat(outputs)

    def _masks(self, window: int) -> list[Tensor]:
        device = self.subtree_ends_N.device
        rows = [torch.arange(start, stop, device=device) for start, stop in self.bounds]
        return [sees(row, row, self.subtree_ends_N, self.depths_N, window) for row in rows]


def sees(
    queries_Q: Tensor, keys_J: Tensor, subtree_ends_N: Tensor, depths_N: Tensor, window: int
) -> Tensor:
    """Which keys (columns) a query (row) sees: bool (Q, J)."""
    query, key = queries_Q[:, None], keys_J[None, :]
    visible = (key <= query) & (query < subtree_ends_N[keys_J][None, :])
    if window:
        visible &= depths_N[query] - depths_N[key] < window
    return visible
