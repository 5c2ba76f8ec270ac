"""Attention over a prefix forest, as a registered attention function: no model is patched.

transformers hands the keyword arguments of a model's forward through to its attention function.
Loracle passes one, `forest`, an object that knows which earlier tokens each token may see:

    RowAttention      training and prefill: packed rows, each node sees its ancestors and itself
    BranchAttention   decoding: every live sequence sees its path in its row, then its own branch

Shape suffixes: N packed tokens, H query heads, K key-value heads, G = H / K, D head size,
L row length, R rows, Q branches of a row, S live sequences, C new tokens a sequence, T branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from loracle.forest import Forest

ATTENTION_NAME = "loracle_forest"

# Up to this row length explicit matrix products beat the fused kernel on a CPU (docs/log.md);
# beyond it their quadratic memory does not.
MAX_EXPLICIT_TOKENS = 1024


class ForestContext(Protocol):
    """What the `forest` argument of a forward has to offer."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int
    ) -> Tensor:
        """query (H, N, D), key and value (K, N, D) to the output (N, H, D).

        window: a token sees only this many positions back, itself included; 0 is no limit.
        """
        ...


class KeysValues(NamedTuple):
    """One layer's keys and values, packed: (K, N, D) each."""

    keys: Tensor
    values: Tensor


def forest_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    forest: ForestContext | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls in place of its own attention. Batch size is 1.

    Raises:
        RuntimeError: the model asks for something that forest attention does not do; the
            self-test turns that into padded batches.
    """
    if forest is None:
        raise RuntimeError("forest attention was called without its forest")
    altering = [name for name in ("softcap", "s_aux") if kwargs.get(name) is not None]
    if dropout:
        altering.append("attention dropout")
    if altering:
        raise RuntimeError(f"this model's attention uses {', '.join(altering)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    output = forest.attend(layer, query[0], key[0], value[0], scale, sliding_window or 0)
    return output.unsqueeze(0), None


@contextmanager
def attention_implementation(model: Any, name: str) -> Iterator[None]:
    """Switch a transformers model to the attention `name` and back."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, forest_attention)
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@dataclass
class RowAttention:
    """Attention inside the rows of a packed forest.

    bounds: first node and end of each row. subtree_ends_N, depths_N as in Forest.
    keep: where given, each layer's keys and values are kept there, by layer.
    """

    bounds: list[tuple[int, int]]
    subtree_ends_N: Tensor
    depths_N: Tensor
    keep: dict[int, KeysValues] | None = None
    _visible: dict[int, list[Tensor]] = field(default_factory=dict)
    _biases: dict[tuple[int, torch.dtype], list[Tensor]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, forest: Forest, device: torch.device, keep: dict[int, KeysValues] | None = None
    ) -> RowAttention:
        starts = forest.row_starts.tolist()
        return cls(
            bounds=list(pairwise(starts)),
            subtree_ends_N=torch.from_numpy(forest.subtree_ends).to(device),
            depths_N=torch.from_numpy(forest.depths).to(device),
            keep=keep,
        )

    def visible(self, window: int) -> list[Tensor]:
        """For each row which nodes (columns) a node (row) sees: bool (L, L)."""
        if window not in self._visible:
            self._visible[window] = [self._row_visible(*bound, window) for bound in self.bounds]
        return self._visible[window]

    def _row_visible(self, start: int, stop: int, window: int) -> Tensor:
        node = torch.arange(start, stop, device=self.subtree_ends_N.device)
        ends = self.subtree_ends_N[start:stop]
        visible = (node[None, :] <= node[:, None]) & (node[:, None] < ends[None, :])
        if window:
            depth = self.depths_N[start:stop]
            visible &= depth[:, None] - depth[None, :] < window
        return visible

    def biases(self, window: int, dtype: torch.dtype) -> list[Tensor]:
        """`visible` as numbers to add to the scores: 0 or minus infinity, (L, L)."""
        if (window, dtype) not in self._biases:
            self._biases[window, dtype] = [
                torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
                    ~visible, float("-inf")
                )
                for visible in self.visible(window)
            ]
        return self._biases[window, dtype]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int
    ) -> Tensor:
        if self.keep is not None:
            self.keep[layer] = KeysValues(key, value)
        longest = max(stop - start for start, stop in self.bounds)
        if query.device.type != "cpu" or longest > MAX_EXPLICIT_TOKENS:
            return self._attend_fused(query, key, value, scale, window)
        biases = self.biases(window, query.dtype)
        output: Tensor = _ExplicitRows.apply(query, key, value, self.bounds, biases, scale)  # type: ignore[no-untyped-call]
        return output

    def _attend_fused(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int
    ) -> Tensor:
        num_groups = query.shape[0] // key.shape[0]
        key, value = (t.repeat_interleave(num_groups, dim=0) for t in (key, value))
        outputs = [
            nn.functional.scaled_dot_product_attention(
                query[None, :, start:stop],
                key[None, :, start:stop],
                value[None, :, start:stop],
                attn_mask=visible,
                scale=scale,
            )[0].transpose(0, 1)
            for (start, stop), visible in zip(self.bounds, self.visible(window), strict=True)
        ]
        return torch.cat(outputs)


class _ExplicitRows(torch.autograd.Function):
    """Attention as matrix products, row by row. Keeps only the probabilities for the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        query_HND: Tensor,
        key_KND: Tensor,
        value_KND: Tensor,
        bounds: list[tuple[int, int]],
        biases: list[Tensor],
        scale: float,
    ) -> Tensor:
        num_heads, num_tokens, head_size = query_HND.shape
        num_kv_heads = key_KND.shape[0]
        output_NHD = query_HND.new_empty(num_tokens, num_heads, head_size)
        probabilities = []
        for (start, stop), bias in zip(bounds, biases, strict=True):
            length = stop - start
            # The heads of a group share keys, so they stand as more queries of one product.
            query = query_HND[:, start:stop].reshape(num_kv_heads, -1, head_size)
            scores = torch.bmm(query, key_KND[:, start:stop].transpose(1, 2))
            scores = scores.view(num_heads, length, length).mul_(scale).add_(bias)
            probability = torch.softmax(scores, dim=-1)
            probabilities.append(probability)
            mixed = torch.bmm(probability.view(num_kv_heads, -1, length), value_KND[:, start:stop])
            output_NHD[start:stop] = mixed.view(num_heads, length, head_size).transpose(0, 1)
        ctx.save_for_backward(query_HND, key_KND, value_KND, *probabilities)
        ctx.bounds, ctx.scale = bounds, scale
        return output_NHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_NHD,) = gradients
        query_HND, key_KND, value_KND, *probabilities = ctx.saved_tensors
        num_kv_heads, _, head_size = key_KND.shape
        d_query, d_key, d_value = (torch.empty_like(t) for t in (query_HND, key_KND, value_KND))
        for (start, stop), probability in zip(ctx.bounds, probabilities, strict=True):
            num_heads, length, _ = probability.shape
            grouped = probability.view(num_kv_heads, -1, length)
            gradient = gradient_NHD[start:stop].transpose(0, 1)
            gradient = gradient.reshape(num_kv_heads, -1, head_size)
            d_value[:, start:stop] = torch.bmm(grouped.transpose(1, 2), gradient)
            d_probability = torch.bmm(gradient, value_KND[:, start:stop].transpose(1, 2))
            d_scores = torch._softmax_backward_data(
                d_probability.view_as(probability), probability, -1, probability.dtype
            )
            d_scores = d_scores.mul_(ctx.scale).view(num_kv_heads, -1, length)
            query = query_HND[:, start:stop].reshape(num_kv_heads, -1, head_size)
            d_query[:, start:stop] = torch.bmm(d_scores, key_KND[:, start:stop]).view(
                num_heads, length, head_size
            )
            d_key[:, start:stop] = torch.bmm(d_scores.transpose(1, 2), query)
        return d_query, d_key, d_value, None, None, None


@dataclass
class BranchAttention:
    """Decoding: C new tokens of each of S live sequences, packed as N = S * C.

    A sequence sees its path in its row (keys computed at prefill, stored once a row), then its
    own branch: the tokens decoded so far and the new ones before it.

    prefix: per layer keys and values (R, K, L, D). path_SL: which of its row's nodes a sequence
        descends from. row_S, slot_S: a sequence's row and its place among the row's branches.
    branch: per layer keys and values (S, K, T, D), filled up to branch_lengths_S.
    """

    prefix: list[KeysValues]
    branch: list[KeysValues]
    path_SL: Tensor
    row_S: Tensor
    slot_S: Tensor
    branch_lengths_S: Tensor
    num_new: int
    _biases: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int
    ) -> Tensor:
        prefix, branch = self.prefix[layer], self.branch[layer]
        num_sequences, num_new = len(self.row_S), self.num_new
        num_kv_heads, _, head_size = key.shape
        self._append(branch.keys, key)
        self._append(branch.values, value)
        # (H, S * C, D) to (S, K, G * C, D)
        query = query.view(num_kv_heads, -1, num_sequences, num_new, head_size)
        query = query.permute(2, 0, 1, 3, 4).reshape(num_sequences, num_kv_heads, -1, head_size)
        num_groups = query.shape[2] // num_new
        bias_prefix, bias_branch = self.biases(window, query.dtype)
        scores_prefix = self._by_row(query, prefix.keys.transpose(2, 3)) * scale
        scores_branch = torch.matmul(query, branch.keys.transpose(2, 3)) * scale
        scores = torch.cat(
            [
                scores_prefix + bias_prefix.repeat(1, 1, num_groups, 1),
                scores_branch + bias_branch.repeat(1, 1, num_groups, 1),
            ],
            dim=-1,
        )
        probability = torch.softmax(scores, dim=-1)
        num_prefix = self.path_SL.shape[1]
        mixed = self._by_row(probability[..., :num_prefix], prefix.values)
        mixed = mixed + torch.matmul(probability[..., num_prefix:], branch.values)
        # (S, K, G * C, D) to (S * C, H, D)
        mixed = mixed.view(num_sequences, num_kv_heads, num_groups, num_new, head_size)
        return mixed.permute(0, 3, 1, 2, 4).reshape(
            num_sequences * num_new, num_kv_heads * num_groups, head_size
        )

    def _append(self, store_SKTD: Tensor, new_KND: Tensor) -> None:
        num_sequences = len(self.row_S)
        new = new_KND.view(new_KND.shape[0], num_sequences, self.num_new, -1)
        sequence = torch.arange(num_sequences, device=new.device)[:, None]
        places = self.branch_lengths_S[:, None] + torch.arange(self.num_new, device=new.device)
        store_SKTD[sequence, :, places] = new.permute(1, 2, 0, 3)

    def _by_row(self, left_SKXY: Tensor, right_RKYZ: Tensor) -> Tensor:
        """Multiply every sequence's matrix by its row's, reading each row once."""
        num_rows, num_slots = right_RKYZ.shape[0], int(self.slot_S.max()) + 1
        _, num_kv_heads, x, y = left_SKXY.shape
        padded = left_SKXY.new_zeros(num_rows, num_slots, num_kv_heads, x, y)
        padded[self.row_S, self.slot_S] = left_SKXY
        padded = padded.transpose(1, 2).reshape(num_rows, num_kv_heads, num_slots * x, y)
        product = torch.matmul(padded, right_RKYZ)
        product = product.view(num_rows, num_kv_heads, num_slots, x, -1)
        return product[self.row_S, :, self.slot_S]

    def biases(self, window: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What to add to the scores of path (S, 1, C, L) and branch (S, 1, C, T)."""
        if (window, dtype) not in self._biases:
            self._biases[window, dtype] = self._make_biases(window, dtype)
        return self._biases[window, dtype]

    def _make_biases(self, window: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        device = self.path_SL.device
        capacity = self.branch[0].keys.shape[2]
        place_T = torch.arange(capacity, device=device)
        own_SC = self.branch_lengths_S[:, None] + torch.arange(self.num_new, device=device)
        branch = place_T[None, None, :] <= own_SC[:, :, None]
        path = self.path_SL[:, None, :].expand(-1, self.num_new, -1)
        if window:
            branch = branch & (own_SC[:, :, None] - place_T < window)
            # A path node's position is its rank on the path; the branch follows the last one.
            length_S = self.path_SL.sum(dim=1)
            position_SL = self.path_SL.cumsum(dim=1) - 1
            own_position_SC = length_S[:, None] + own_SC
            path = path & (own_position_SC[:, :, None] - position_SL[:, None, :] < window)
        return tuple(  # type: ignore[return-value]
            torch.zeros(seen.shape, dtype=dtype, device=device)
            .masked_fill_(~seen, float("-inf"))
            .unsqueeze(1)
            for seen in (path, branch)
        )
