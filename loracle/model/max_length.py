"""The longest row allowed: the plan's value, else what the model or memory allows.

Memory is the limit if a single row, forward and backward, would not fit into free memory:

    (1 - SPARE_SHARE) of what is free >= weights + logits + attention(row) + row x bytes a token

A training step never holds less than one row, however small its micro-batches, so a longer one
would end the trial. The estimate is made from the model's shape (step_memory.py), before its
weights are loaded, and errs on the safe side (docs/log.md compares it with measured steps). It can
only lower the limit. The limit is fixed when a run first starts, and later starts reuse it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from loracle.model.memory import FreeMemory
from loracle.model.step_memory import ModelShape

SPARE_SHARE = 0.1
"""Left free for what is not counted: libraries, the adapter and its optimizer, fragmentation."""

_STEP_TOKENS = 64
"""Limits by memory are multiples of this."""


class LengthLimit(NamedTuple):
    """tokens: None is no limit. reason: why, in words."""

    tokens: int | None
    reason: str

    @classmethod
    def of_record(cls, check: Mapping[str, Any]) -> Self:
        """The limit recorded by a check."""
        return cls(check["max_length"], check["max_length_reason"])


def length_limit(
    own: int | None,
    shape: ModelShape | None,
    free: FreeMemory | None,
    *,
    gradient_checkpointing: bool = False,
) -> LengthLimit:
    """The model's own limit, or what memory allows if that is less.

    own: the longest row that the model declares, in tokens; None if it declares none. shape, free:
    None if unknown; then memory sets no limit.
    """
    said = "the model's own limit" if own is not None else "the model declares none"
    if shape is None or free is None:
        return LengthLimit(own, said)
    usable = (1 - SPARE_SHARE) * free.num_bytes
    gigabytes = f"{free.num_bytes / 1e9:.1f} GB of free {free.place}"
    if shape.step_bytes(_STEP_TOKENS, gradient_checkpointing=gradient_checkpointing) > usable:
        # No row would fit, and no limit would only hide that: loading will report it.
        needed = f"{shape.weight_bytes / 1e9:.1f} GB"
        return LengthLimit(own, f"{said}; its weights need {needed}, more than {gigabytes} allow")
    low, high = 1, 1 << 16
    while low < high:
        middle = (low + high + 1) // 2
        needed_bytes = shape.step_bytes(
            middle * _STEP_TOKENS, gradient_checkpointing=gradient_checkpointing
        )
        low, high = (middle, high) if needed_bytes <= usable else (low, middle - 1)
    longest = low * _STEP_TOKENS
    if own is not None and own <= longest:
        return LengthLimit(own, said)
    takes = said if own is None else f"the model takes {own:,}"
    return LengthLimit(longest, f"what {gigabytes} allow in one training step; {takes}")


def shape_of(
    config: Any, value_bytes: int, device_type: str, *, trust_remote_code: bool = False
) -> ModelShape | None:
    """The shape of the model that a config describes, built without its weights.

    None if this kind of config cannot be built so: memory then sets no limit.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, trust_remote_code=trust_remote_code
            )
        return shape_of_model(model, value_bytes, device_type)
    except (ValueError, TypeError, AttributeError, ImportError, RuntimeError):
        return None


def shape_of_model(model: Any, value_bytes: int, device_type: str) -> ModelShape:
    """The shape of a transformers model, with or without its weights."""
    from torch import nn

    text = model.config.get_text_config()
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    width = sum(module.in_features + module.out_features for module in linear)
    num_heads = int(text.num_attention_heads)
    head_size = head_size_of(text)
    num_kv_heads = getattr(text, "num_key_value_heads", None) or num_heads
    return ModelShape(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        width=width,
        layer_width=-(-width // int(text.num_hidden_layers)),
        num_layers=int(text.num_hidden_layers),
        num_heads=num_heads,
        hidden_size=int(text.hidden_size),
        vocabulary_size=int(text.vocab_size),
        value_bytes=value_bytes,
        device_type=device_type,
        num_linear_parameters=sum(module.weight.numel() for module in linear),
        cached_token_bytes=2 * int(text.num_hidden_layers) * num_kv_heads * head_size * value_bytes,
    )


def head_size_of(config: Any) -> int:
    """The numbers of one head's query, of the text's config; 0 if it has no heads. If layers
    differ, as in Gemma 4, the largest."""
    layers = getattr(config, "per_layer_config", None) or [config]
    declared = [getattr(layer, "head_dim", None) or 0 for layer in layers]
    num_heads = getattr(config, "num_attention_heads", None)
    return int(max(declared) or (config.hidden_size // num_heads if num_heads else 0))
