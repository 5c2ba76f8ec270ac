"""The state that a model is in while it trains, and is not in before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

from loracle.forest.attention.interface import ATTENTION_NAME, attention_implementation
from loracle.model.base import BaseModel, input_casting_off


@contextmanager
def training_mode(
    base: BaseModel, adapted: Any, *, forest: bool, gradient_checkpointing: bool
) -> Iterator[None]:
    """Inside, the adapter trains: over the forest's attention where `forest`, else the model's."""
    attention = attention_implementation(base.model, ATTENTION_NAME) if forest else nullcontext()
    # Checkpointed layers run again in the backward, outside `computing`: casting stays off there.
    with attention, input_casting_off(base.dtype, adapted):
        adapted.train()
        if gradient_checkpointing:
            _checkpointing(base.model, "enable")({"use_reentrant": False})
        try:
            yield
        finally:
            if gradient_checkpointing:
                _checkpointing(base.model, "disable")()
            adapted.eval()


def _checkpointing(model: Any, switch: Literal["enable", "disable"]) -> Callable[..., None]:
    """transformers renames gradient checkpointing to activation checkpointing for version 6."""
    new, old = f"activation_checkpointing_{switch}", f"gradient_checkpointing_{switch}"
    method: Callable[..., None] = getattr(model, new if hasattr(model, new) else old)
    return method
