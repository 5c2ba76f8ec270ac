"""Attention over a prefix forest, as a registered attention function: no model is patched.

transformers hands the keyword arguments of a model's forward through to its attention function.
Loracle passes one, `forest`, an object that knows which earlier tokens each token may see:

    RowAttention      training and prefill: packed rows, each node sees its ancestors and itself
    BranchAttention   decoding: every live sequence sees its path in its row, then its own branch

Shape suffixes: N packed tokens, H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

ATTENTION_NAME = "loracle_forest"

# Arguments of attention functions that change what attention computes.
_ALTERING = {"softcap": "capped scores (softcap)", "s_aux": "attention sinks"}


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
    altering = [words for name, words in _ALTERING.items() if kwargs.get(name) is not None]
    if dropout:
        altering.append("attention dropout")
    if value.shape[-1] != query.shape[-1]:
        altering.append("values of another size than keys")
    if altering:
        raise RuntimeError(f"its attention uses {', '.join(altering)}")
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
