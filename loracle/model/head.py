"""From hidden states to logits as a model does it, which may be more than a product.

    Granite, Cohere, Falcon-H1   logits times a number of the config: `logit_scale`
    Gemma 2, 3n and 4            logits capped at c: c * tanh(logits / c): `CappedHead`

The self-test compares the result with the model's own logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class CappedHead(nn.Module):
    """A head whose logits cannot pass a limit."""

    def __init__(self, head: nn.Module, cap: float) -> None:
        super().__init__()
        self.head, self.cap = head, cap

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden)
        return torch.tanh(logits / self.cap) * self.cap


def output_head(model: Any) -> nn.Module:
    """What makes logits of hidden states that `logit_scale` has been applied to."""
    head: nn.Module = model.get_output_embeddings()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return head if cap is None else CappedHead(head, float(cap))


def logit_scale(config: Any) -> float:
    """The factor on a model's logits, of the text's config."""
    scale = getattr(config, "logit_scale", None) or 1.0
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0
    return float(scale / (getattr(config, "logits_scaling", None) or 1.0))
