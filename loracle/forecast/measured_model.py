"""Models of few layers that rates are measured on: as wide as the model planned for, or narrow."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch

from loracle.forecast.counting import counted_shape
from loracle.model import adapter
from loracle.model.base import BaseModel
from loracle.model.quantization import NONE, quantization_config, use_exact_products
from loracle.model.step_memory import ModelShape

_MOST_LAYER_WEIGHTS = 12_000_000
"""Wider layers are measured in a smaller size, where products are as fast and take less time."""
_NARROW_HEAD_SIZE = 16
VOCABULARY_SIZE = 256


class Widths(NamedTuple):
    """What a layer's time depends on. rank: of LoRA, over all linear layers."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    rank: int

    @classmethod
    def of(cls, shape: ModelShape) -> Self:
        """The widths of a model's layers, made smaller if they are very wide."""
        heads, layers = shape.num_heads, shape.num_layers
        head_size = max(2, shape.hidden_size // heads // 2 * 2)
        cached = shape.cached_token_bytes // (2 * layers * shape.value_bytes)
        kv_heads = _divisor(heads, cached // head_size or heads)
        hidden = heads * head_size
        attention = 2 * hidden * (hidden + kv_heads * head_size)
        gated = shape.num_linear_parameters / layers - attention
        intermediate = max(head_size, round(gated / (3 * hidden)))
        rank = max(1, round(shape.num_adapter_parameters / max(1, shape.width)))
        found = cls(hidden, intermediate, heads, kv_heads, head_size, rank)
        too_wide = (attention + 3 * hidden * intermediate) / _MOST_LAYER_WEIGHTS
        return found if too_wide <= 1 else found._smaller(math.sqrt(too_wide))

    def _smaller(self, factor: float) -> Self:
        kv_heads = max(1, round(self.kv_heads / factor))
        heads = kv_heads * (self.heads // self.kv_heads)
        return self._replace(
            hidden=heads * self.head_size,
            intermediate=max(64, round(self.intermediate / factor / 64) * 64),
            heads=heads,
            kv_heads=kv_heads,
        )

    def narrow(self) -> Self:
        """As many heads, and next to no products."""
        hidden = self.heads * _NARROW_HEAD_SIZE
        return self._replace(hidden=hidden, intermediate=hidden, head_size=_NARROW_HEAD_SIZE)


@dataclass(frozen=True)
class MeasuredModel:
    """Random layers, with their adapter attached inside `measured_model`."""

    base: BaseModel
    adapted: Any
    shape: ModelShape


@contextmanager
def measured_model(
    widths: Widths, num_layers: int, dtype: torch.dtype, quantization: str
) -> Iterator[MeasuredModel]:
    """A model of these layers on the CPU, with random weights and a fresh adapter.

    Raises:
        MissingExtraError: for a quantised base, bitsandbytes is not installed.
    """
    from transformers import LlamaConfig

    config: Any = LlamaConfig(
        hidden_size=widths.hidden,
        intermediate_size=widths.intermediate,
        num_hidden_layers=num_layers,
        num_attention_heads=widths.heads,
        num_key_value_heads=widths.kv_heads,
        head_dim=widths.head_size,
        vocab_size=VOCABULARY_SIZE,
        tie_word_embeddings=True,
    )
    settings = {"r": widths.rank, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"}
    lora = adapter.lora_config(settings)
    shape = counted_shape(config, lora, dtype, "cpu", quantization=quantization)
    assert shape is not None
    model = _with_weights(config, dtype, quantization).requires_grad_(False).eval()
    base = BaseModel("measured", model, None, dtype, torch.device("cpu"), frozenset(), quantization)
    with adapter.attached(model, lora, 0) as adapted:
        yield MeasuredModel(base, adapted.eval(), shape)


def _divisor(number: int, wanted: int) -> int:
    """The largest divisor that is no larger than wanted."""
    return next(n for n in range(max(1, min(wanted, number)), 0, -1) if number % n == 0)


def _with_weights(config: Any, dtype: torch.dtype, quantization: str) -> Any:
    from transformers import AutoModelForCausalLM

    packing = quantization_config(quantization, dtype)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    if quantization == NONE:
        return model
    with tempfile.TemporaryDirectory() as folder, _no_progress_bars():
        model.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, quantization_config=packing, device_map={"": "cpu"}
        )
    use_exact_products(model)
    return model


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    were_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
