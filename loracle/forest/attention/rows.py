"""Attention inside the rows of a packed forest: each node sees its ancestors and itself.

What computes it is one of backends.py. Spans are for a CPU; rows whose quadratic memory would be
too much, and layers on another device, take the dense one in their place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from loracle.forest.attention import flex_rows, triton_rows
from loracle.forest.attention.backends import AttentionBackend, default_backend
from loracle.forest.attention.dense import DenseRows
from loracle.forest.attention.interface import KeysValues
from loracle.forest.attention.span_products import SpanRows
from loracle.forest.attention.uploading import on_device
from loracle.forest.limits import MAX_EXPLICIT_TOKENS
from loracle.forest.trie import Forest


@dataclass
class RowAttention:
    """What RowAttention.attend needs to know of a forest.

    bounds: first node and end of every row. subtree_ends_N, depths_N: as in Forest, on the CPU.
    keep: where given, each layer's keys and values are kept there, by layer.
    """

    bounds: list[tuple[int, int]]
    subtree_ends_N: Tensor
    depths_N: Tensor
    device: torch.device
    backend: AttentionBackend
    keep: dict[int, KeysValues] | None = None
    _simple: SpanRows | DenseRows | None = None
    _kernels: dict[tuple[int, int], triton_rows.KernelInput] = field(default_factory=dict)
    _masks: dict[int, flex_rows.FlexMask] = field(default_factory=dict)
    _copies: dict[torch.device, RowAttention] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        forest: Forest,
        device: torch.device,
        keep: dict[int, KeysValues] | None = None,
        backend: AttentionBackend | None = None,
    ) -> RowAttention:
        """backend: None is what needs nothing beyond torch on that device."""
        starts = forest.row_starts.tolist()
        return cls(
            bounds=list(pairwise(starts)),
            subtree_ends_N=torch.from_numpy(forest.subtree_ends),
            depths_N=torch.from_numpy(forest.depths),
            device=device,
            backend=backend or default_backend(device),
            keep=keep,
        )

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int
    ) -> Tensor:
        if query.device != self.device:
            copy = self._on(query.device)
            return copy.attend(layer, query, key, value, scale, window)
        if self.keep is not None:
            self.keep[layer] = KeysValues(key, value)
        if self.backend == "triton":
            kernel = self._kernel(window, query.shape[-1], value.dtype)
            return triton_rows.attend(query, key, value, kernel, scale)
        if self.backend == "flex":
            return flex_rows.attend(query, key, value, self._mask(window), scale)
        self._simple = self._simple or self._simple_rows()
        return self._simple.attend(query, key, value, scale, window)

    def _on(self, device: torch.device) -> RowAttention:
        """The same for layers on another device; made once."""
        if device not in self._copies:
            same_kind = device.type == self.device.type
            self._copies[device] = RowAttention(
                self.bounds,
                self.subtree_ends_N,
                self.depths_N,
                device,
                self.backend if same_kind else default_backend(device),
                self.keep,
            )
        return self._copies[device]

    def _simple_rows(self) -> SpanRows | DenseRows:
        longest = max(stop - start for start, stop in self.bounds)
        if self.backend == "spans" and longest <= MAX_EXPLICIT_TOKENS:
            return SpanRows(self.bounds, self.subtree_ends_N, self.depths_N)
        return DenseRows(
            self.bounds,
            on_device(self.subtree_ends_N.numpy(), self.device),
            on_device(self.depths_N.numpy(), self.device),
        )

    def _kernel(self, window: int, head_size: int, dtype: torch.dtype) -> triton_rows.KernelInput:
        # Layers may differ in their head size.
        block_tokens = triton_rows.block_tokens_for(head_size, dtype)
        if (window, block_tokens) not in self._kernels:
            self._kernels[window, block_tokens] = triton_rows.KernelInput.of(
                self.subtree_ends_N.numpy(),
                self.depths_N.numpy(),
                window,
                block_tokens,
                self.device,
            )
        return self._kernels[window, block_tokens]

    def _mask(self, window: int) -> flex_rows.FlexMask:
        if window not in self._masks:
            self._masks[window] = flex_rows.FlexMask.of(
                self.subtree_ends_N.numpy(), self.depths_N.numpy(), window, self.device
            )
        return self._masks[window]
