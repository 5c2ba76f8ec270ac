"""The longest row allowed: what the plan says, else what the model takes or memory allows.

Memory binds where one row alone, forward and backward, would not fit into what is free:

    (1 - SPARE_SHARE) of what is free >= weights + logits + attention(row) + row x bytes a token

A training step never holds less than one row, however small its micro-batches, so a longer one
would end the trial. The estimate is made from the model's shape, before its weights are loaded, and
errs on the careful side (docs/log.md has it beside measured steps). It only ever lowers the limit.
What it says is settled when a run begins, and a later start keeps to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from loracle.forest.limits import MAX_EXPLICIT_TOKENS
from loracle.model.memory import FreeMemory

SPARE_SHARE = 0.1
"""Left free for what is not counted: libraries, the adapter and its optimizer, fragmentation."""

_ACTIVATION_FACTOR = {"cpu": 2.0, "cuda": 4.0}
"""Activations kept for the backward, over the widths of the linear layers (inputs and outputs) in
the model's precision. Measured on a CPU: 1.55 to 1.9. On a GPU, where the LoRA layers are peft's
own and keep more, it is not measured yet."""
_LOGIT_TARGETS, _LOGIT_BYTES = 512, 12
"""Targets whose logits exist at once, in float32 and three copies (losses.py)."""
_STEP_TOKENS = 64
"""Limits by memory are multiples of this."""


class LengthLimit(NamedTuple):
    """tokens: None is no limit. reason: why it is that, as it is shown."""

    tokens: int | None
    reason: str

    @classmethod
    def of_record(cls, check: Mapping[str, Any]) -> Self:
        """The limit that a check recorded."""
        return cls(check["max_length"], check["max_length_reason"])


@dataclass(frozen=True)
class ModelShape:
    """What the memory of a training step depends on.

    width: inputs and outputs of all linear layers but the head, added up. layer_width: the same of
    the widest layer. value_bytes: of one number in the model's precision.
    """

    num_parameters: int
    width: int
    layer_width: int
    num_layers: int
    num_heads: int
    hidden_size: int
    vocabulary_size: int
    value_bytes: int
    device_type: str

    @property
    def weight_bytes(self) -> int:
        return self.num_parameters * self.value_bytes

    def step_bytes(self, num_tokens: int, *, gradient_checkpointing: bool) -> int:
        """What a training step over one row takes, its weights included."""
        width, num_kept_layers = self.width, self.num_layers
        if gradient_checkpointing:
            # Each layer's input is kept, and one layer at a time is computed again.
            width, num_kept_layers = self.layer_width + self.num_layers * self.hidden_size, 1
        factor = _ACTIVATION_FACTOR[self.device_type]
        activations = factor * num_tokens * width * self.value_bytes
        explicit = min(num_tokens, MAX_EXPLICIT_TOKENS) ** 2 * self.num_heads * num_kept_layers
        # Beyond, one layer's mask at a time: spread over the heads, and its parts.
        mask = num_tokens**2 * (self.num_heads * self.value_bytes + 8)
        attention = max(explicit * self.value_bytes, mask)
        logits = min(num_tokens, _LOGIT_TARGETS) * self.vocabulary_size * _LOGIT_BYTES
        return self.weight_bytes + int(activations) + attention + logits


def length_limit(
    own: int | None,
    shape: ModelShape | None,
    free: FreeMemory | None,
    *,
    gradient_checkpointing: bool = False,
) -> LengthLimit:
    """The model's own limit, or what memory allows where that is less.

    own: the longest row that the model declares, in tokens; None where it declares none.
    shape, free: None where they are not known; then memory decides nothing.
    """
    said = "the model's own limit" if own is not None else "the model declares none"
    if shape is None or free is None:
        return LengthLimit(own, said)
    usable = (1 - SPARE_SHARE) * free.num_bytes
    gigabytes = f"{free.num_bytes / 1e9:.1f} GB of free {free.place}"
    if shape.step_bytes(_STEP_TOKENS, gradient_checkpointing=gradient_checkpointing) > usable:
        # No row would fit, and a limit of none would only hide that: loading will say so.
        needed = f"{shape.weight_bytes / 1e9:.1f} GB"
        return LengthLimit(own, f"{said}; its weights need {needed}, more than {gigabytes} bear")
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
    return LengthLimit(longest, f"what {gigabytes} bear in one training step; {takes}")


def shape_of(
    config: Any, value_bytes: int, device_type: str, *, trust_remote_code: bool = False
) -> ModelShape | None:
    """The shape of the model that a config describes, built without its weights.

    None where the config is of a kind that cannot be built so: memory decides nothing then.
    """
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, trust_remote_code=trust_remote_code
            )
        text = config.get_text_config()
        head = model.get_output_embeddings()
        widths = [
            module.in_features + module.out_features
            for module in model.modules()
            if isinstance(module, nn.Linear) and module is not head
        ]
        return ModelShape(
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            width=sum(widths),
            layer_width=-(-sum(widths) // int(text.num_hidden_layers)),
            num_layers=int(text.num_hidden_layers),
            num_heads=int(text.num_attention_heads),
            hidden_size=int(text.hidden_size),
            vocabulary_size=int(text.vocab_size),
            value_bytes=value_bytes,
            device_type=device_type,
        )
    except (ValueError, TypeError, AttributeError, ImportError, RuntimeError):
        return None
