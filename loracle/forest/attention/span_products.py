"""Attention inside packed rows on a CPU: matrix products, span by span (forest/spans.py).

Shape suffixes: N packed nodes, H query heads, K key-value heads, D head size, Q queries of a span,
J its keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loracle.forest.attention.dense import sees
from loracle.forest.limits import SPAN_PAIRS
from loracle.forest.spans import cut_into_spans
from loracle.native import kernels, takes


class _Span(NamedTuple):
    """Queries [start, stop), the nodes of their keys (J,), and which they see, as 0 or -inf (Q, J).

    keys_J is None where the keys are the queries themselves.
    """

    start: int
    stop: int
    keys_J: Tensor | None
    bias_QJ: Tensor

    def take(self, tensor_KND: Tensor) -> Tensor:
        if self.keys_J is None:
            return tensor_KND[:, self.start : self.stop]
        return tensor_KND.index_select(1, self.keys_J)

    def add_to(self, total_KND: Tensor, part_KJD: Tensor) -> None:
        if self.keys_J is None:
            total_KND[:, self.start : self.stop] += part_KJD
        else:
            total_KND.index_add_(1, self.keys_J, part_KJD.to(total_KND.dtype))


@dataclass
class SpanRows:
    """bounds: first node and end of every row. subtree_ends_N, depths_N as in Forest."""

    bounds: list[tuple[int, int]]
    subtree_ends_N: Tensor
    depths_N: Tensor
    _spans: dict[tuple[int, torch.dtype], list[_Span]] = field(default_factory=dict)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int
    ) -> Tensor:
        spans = self._cut(window, query.dtype)
        output: Tensor = ExplicitSpans.apply(query, key, value, spans, scale)  # type: ignore[no-untyped-call]
        return output

    def _cut(self, window: int, dtype: torch.dtype) -> list[_Span]:
        if (window, dtype) not in self._spans:
            self._spans[window, dtype] = self._make_spans(window, dtype)
        return self._spans[window, dtype]

    def _make_spans(self, window: int, dtype: torch.dtype) -> list[_Span]:
        subtree_ends = self.subtree_ends_N.numpy()
        spans = []
        for bound in self.bounds:
            for start, stop, keys in cut_into_spans(*bound, subtree_ends, SPAN_PAIRS):
                keys_J = torch.from_numpy(keys)
                visible = self._sees(start, stop, keys_J, window)
                bias = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, -torch.inf)
                own = len(keys) == stop - start
                spans.append(_Span(start, stop, None if own else keys_J, bias))
        return spans

    def _sees(self, start: int, stop: int, keys_J: Tensor, window: int) -> Tensor:
        queries_Q = torch.arange(start, stop)
        return sees(queries_Q, keys_J, self.subtree_ends_N, self.depths_N, window)


class ExplicitSpans(torch.autograd.Function):
    """Attention as matrix products, span by span. Keeps only the probabilities for the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        query_HND: Tensor,
        key_KND: Tensor,
        value_KND: Tensor,
        spans: list[_Span],
        scale: float,
    ) -> Tensor:
        num_heads, num_tokens, head_size = query_HND.shape
        num_kv_heads = key_KND.shape[0]
        # Models hand over transposed views, which every selection of keys would copy as a whole.
        key_KND, value_KND = key_KND.contiguous(), value_KND.contiguous()
        output_NHD = query_HND.new_empty(num_tokens, num_heads, head_size)
        probabilities = []
        for span in spans:
            # The heads of a group share keys, so they stand as more queries of one product.
            query = query_HND[:, span.start : span.stop].reshape(num_kv_heads, -1, head_size)
            scores = torch.bmm(query, span.take(key_KND).transpose(1, 2))
            probability = _probability(scores, span.bias_QJ, scale)
            probabilities.append(probability)
            grouped = probability.view(num_kv_heads, -1, probability.shape[-1])
            mixed = torch.bmm(grouped, span.take(value_KND))
            mixed = mixed.view(num_heads, -1, head_size)
            output_NHD[span.start : span.stop] = mixed.transpose(0, 1)
        ctx.save_for_backward(query_HND, key_KND, value_KND, *probabilities)
        ctx.spans, ctx.scale = spans, scale
        return output_NHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_NHD,) = gradients
        query_HND, key_KND, value_KND, *probabilities = ctx.saved_tensors
        num_kv_heads, _, head_size = key_KND.shape
        d_query = torch.empty_like(query_HND)
        # A trunk's keys serve many spans: their parts are added up in float32.
        d_key, d_value = (torch.zeros(t.shape, dtype=torch.float32) for t in (key_KND, value_KND))
        for span, probability in zip(ctx.spans, probabilities, strict=True):
            num_heads, num_queries, num_keys = probability.shape
            grouped = probability.view(num_kv_heads, -1, num_keys)
            gradient = gradient_NHD[span.start : span.stop].transpose(0, 1)
            gradient = gradient.reshape(num_kv_heads, -1, head_size)
            span.add_to(d_value, torch.bmm(grouped.transpose(1, 2), gradient))
            d_probability = torch.bmm(gradient, span.take(value_KND).transpose(1, 2))
            d_scores = _scores_gradient(grouped, d_probability, ctx.scale)
            query = query_HND[:, span.start : span.stop].reshape(num_kv_heads, -1, head_size)
            d_query[:, span.start : span.stop] = torch.bmm(d_scores, span.take(key_KND)).view(
                num_heads, num_queries, head_size
            )
            span.add_to(d_key, torch.bmm(d_scores.transpose(1, 2), query))
        return d_query, d_key.to(key_KND.dtype), d_value.to(value_KND.dtype), None, None


def _probability(scores: Tensor, bias_QJ: Tensor, scale: float) -> Tensor:
    """softmax(scores * scale + bias), (H, Q, J); the scores (..., J) may be overwritten."""
    scores_HQJ = scores.view(-1, *bias_QJ.shape)
    found = kernels() if takes(scores_HQJ, bias_QJ) else None
    if found is None:
        return torch.softmax(scores_HQJ.mul_(scale).add_(bias_QJ), dim=-1)
    found.masked_softmax(scores_HQJ, bias_QJ, scale)
    return scores_HQJ


def _scores_gradient(probability: Tensor, gradient: Tensor, scale: float) -> Tensor:
    """Of the scores, from that of their probabilities, which may be overwritten: (..., J)."""
    found = kernels() if takes(probability, gradient) else None
    if found is None:
        d_scores = torch._softmax_backward_data(gradient, probability, -1, probability.dtype)
        return d_scores.mul_(scale)
    num_keys = gradient.shape[-1]
    found.softmax_backward(probability.view(-1, num_keys), gradient.view(-1, num_keys), scale)
    return gradient
