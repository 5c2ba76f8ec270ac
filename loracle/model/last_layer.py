"""The last layer where it is asked for only: the tokens whose hidden states are wanted.

In the last layer a token that nothing is predicted from serves others by its key and value alone.
Everything behind attention, above all the gated layer with three quarters of the weights, is then
computed for the wanted tokens only, forward and backward: a training row wants its few targets.

Shape suffixes: N packed tokens, W wanted ones, E hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, cast

from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from loracle.model.fused_layers import gives_the_same, is_checkpointing
from loracle.model.token_dropout import TokenKeys, token_dropouts


@contextmanager
def only_at(decoder: nn.Module, wanted_W: Tensor) -> Iterator[bool]:
    """Let the decoder's last layer give the wanted tokens alone, for one pass.

    Yields False if the layer is of another kind, and everything is computed: under gradient
    checkpointing, too, since a layer computed again must be computed in the same way.
    """
    layer = _last_layer(decoder)
    if layer is None:
        yield False
        return
    vars(layer)["forward"] = partial(_forward, layer, wanted_W)
    try:
        yield True
    finally:
        del vars(layer)["forward"]


def _last_layer(decoder: Any) -> Any | None:
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or is_checkpointing(decoder):
        return None
    layer = layers[len(layers) - 1]
    # Hooks that move a layer's tensors to its device stand in place of its forward.
    is_plain = _is_plain(type(layer))  # type: ignore[arg-type]
    return layer if is_plain and "forward" not in vars(layer) else None


@cache
def _is_plain(kind: type) -> bool:
    """Whether such a layer is h + mlp(norm(h)) with h = x + attention(norm(x))."""

    def tried(x_1NE: Tensor) -> tuple[Any, Tensor]:
        # transformers' wrapper of a layer's forward asks for these three.
        own = {"forward": cast(Any, kind).forward, "gradient_checkpointing": False}
        stand_in = type("StandIn", (SimpleNamespace,), {**own, "training": False})(
            input_layernorm=lambda x: x * 2.0,
            self_attn=lambda hidden_states, **_: (hidden_states - 1.0, None),
            post_attention_layernorm=lambda x: x * 3.0,
            mlp=lambda x: x * x,
        )
        middle = x_1NE + 2.0 * x_1NE - 1.0
        return cast(Any, kind).forward(stand_in, x_1NE), middle + (3.0 * middle).square()

    return gives_the_same(tried)


def _forward(
    layer: Any, wanted_W: Tensor, hidden_states: Tensor, *arguments: Any, **options: Any
) -> Tensor:
    normed = layer.input_layernorm(hidden_states)
    attended = layer.self_attn(normed, *arguments, **options)[0]
    places_W = wanted_W.to(hidden_states.device)
    hidden_1WE = hidden_states.index_select(1, places_W) + attended.index_select(1, places_W)
    with _keys_of(layer.mlp, wanted_W):
        output: Tensor = hidden_1WE + layer.mlp(layer.post_attention_layernorm(hidden_1WE))
    return output


@contextmanager
def _keys_of(module: nn.Module, wanted_W: Tensor) -> Iterator[None]:
    """Let dropout draw for the wanted tokens what it would draw for them among all."""
    keyed = [dropout for dropout in token_dropouts(module) if dropout.keys is not None]
    all_keys = [dropout.keys for dropout in keyed]
    selected: dict[int, TokenKeys] = {}
    with unset_fake_temporarily():
        wanted = wanted_W.cpu().numpy() if keyed else None
    for dropout in keyed:
        keys = dropout.keys
        assert keys is not None
        if id(keys) not in selected:
            selected[id(keys)] = TokenKeys(keys.keys_N[wanted])
        dropout.keys = selected[id(keys)]
    try:
        yield
    finally:
        for dropout, keys in zip(keyed, all_keys, strict=True):
            dropout.keys = keys
