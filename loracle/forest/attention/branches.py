"""Attention of answers under way: each sees its path in its row, then its own branch.

Shape suffixes: N packed tokens, H query heads, K key-value heads, G = H / K, D head size,
L row length, R rows, Q branches of a row, S live sequences, C new tokens a sequence, T branch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from loracle.forest.attention.interface import KeysValues


@dataclass
class BranchAttention:
    """Decoding: C new tokens for each of S live sequences, packed as N = S * C.

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
    _biases: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)
    _copies: dict[torch.device, BranchAttention] = field(default_factory=dict)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int
    ) -> Tensor:
        if query.device != self.row_S.device:
            copy = self._on(query.device)
            return copy.attend(layer, query, key, value, scale, window)
        prefix, branch = self.prefix[layer], self.branch[layer]
        num_sequences, num_new = len(self.row_S), self.num_new
        num_kv_heads, _, head_size = key.shape
        self._append(branch.keys, key)
        self._append(branch.values, value)
        # (H, S * C, D) to (S, K, G * C, D)
        query = query.view(num_kv_heads, -1, num_sequences, num_new, head_size)
        query = query.permute(2, 0, 1, 3, 4).reshape(num_sequences, num_kv_heads, -1, head_size)
        num_groups = query.shape[2] // num_new
        scores_prefix = self._by_row(query, prefix.keys.transpose(2, 3))
        scores_branch = torch.matmul(query, branch.keys.transpose(2, 3))
        scores = torch.cat([scores_prefix, scores_branch], dim=-1).mul_(scale)
        scores.view(num_sequences, num_kv_heads, num_groups, num_new, -1).add_(
            self._bias(window, query.dtype)
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

    def _on(self, device: torch.device) -> BranchAttention:
        """The same for layers on another device; made once a step. Each layer's keys are there."""
        if device not in self._copies:
            copy = self._copies[device] = BranchAttention(
                self.prefix,
                self.branch,
                self.path_SL.to(device),
                self.row_S.to(device),
                self.slot_S.to(device),
                self.branch_lengths_S.to(device),
                self.num_new,
            )
            # Known here: reading it from the copy would wait for that device.
            vars(copy)["_num_slots"] = self._num_slots
        return self._copies[device]

    @cached_property
    def _sequences_S1(self) -> Tensor:
        return torch.arange(len(self.row_S), device=self.row_S.device)[:, None]

    @cached_property
    def _places_SC(self) -> Tensor:
        """Where in its branch each new token stands."""
        new = torch.arange(self.num_new, device=self.row_S.device)
        return self.branch_lengths_S[:, None] + new

    @cached_property
    def _num_slots(self) -> int:
        return int(self.slot_S.max()) + 1

    def _append(self, store_SKTD: Tensor, new_KND: Tensor) -> None:
        new = new_KND.view(new_KND.shape[0], len(self.row_S), self.num_new, -1)
        store_SKTD[self._sequences_S1, :, self._places_SC] = new.permute(1, 2, 0, 3)

    def _by_row(self, left_SKXY: Tensor, right_RKYZ: Tensor) -> Tensor:
        """Multiply every sequence's matrix by its row's, reading each row once."""
        num_rows, num_slots = right_RKYZ.shape[0], self._num_slots
        _, num_kv_heads, x, y = left_SKXY.shape
        padded = left_SKXY.new_zeros(num_rows, num_slots, num_kv_heads, x, y)
        padded[self.row_S, self.slot_S] = left_SKXY
        padded = padded.transpose(1, 2).reshape(num_rows, num_kv_heads, num_slots * x, y)
        product = torch.matmul(padded, right_RKYZ)
        product = product.view(num_rows, num_kv_heads, num_slots, x, -1)
        return product[self.row_S, :, self.slot_S]

    def _bias(self, window: int, dtype: torch.dtype) -> Tensor:
        """What to add to the scores of path and branch, L + T = J: (S, 1, 1, C, J)."""
        if (window, dtype) not in self._biases:
            self._biases[window, dtype] = self._make_bias(window, dtype)
        return self._biases[window, dtype]

    def _make_bias(self, window: int, dtype: torch.dtype) -> Tensor:
        device = self.path_SL.device
        capacity = self.branch[0].keys.shape[2]
        place_T = torch.arange(capacity, device=device)
        own_SC = self._places_SC
        branch = place_T[None, None, :] <= own_SC[:, :, None]
        path = self.path_SL[:, None, :].expand(-1, self.num_new, -1)
        if window:
            branch = branch & (own_SC[:, :, None] - place_T < window)
            # A path node's position is its rank on the path; the branch follows the last one.
            length_S = self.path_SL.sum(dim=1)
            position_SL = self.path_SL.cumsum(dim=1) - 1
            own_position_SC = length_S[:, None] + own_SC
            path = path & (own_position_SC[:, :, None] - position_SL[:, None, :] < window)
        seen = torch.cat([path, branch], dim=-1)[:, None, None]
        return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)
