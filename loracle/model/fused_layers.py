"""Norms and gated activations of a decoder on a CPU, each in one pass over the activations.

transformers writes RMSNorm as seven operations and autograd adds a dozen; here each is one kernel
forward and one backward (native/). A module is taken over only if its class's forward, tried with
stand-ins for its parts, gives what the kernel gives: Gemma's norms, which add one to their
weights, keep theirs.

Shape suffixes: N tokens, I features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from loracle.model.fused_rotary import Rotate, rotated_by, rotation_of
from loracle.native import Kernels, kernels, takes

Forward = Callable[[Tensor], Tensor]

_TOLERANCE = 1e-5
_NUM_TRIED = 64

_left_alone: ContextVar[bool] = ContextVar("left_alone", default=False)


class TakenOver(NamedTuple):
    """What computes parts of a decoder in place of its own code. rotate: takes the own function
    first."""

    forwards: list[tuple[nn.Module, Forward]]
    rotate: Rotate


_known: WeakKeyDictionary[nn.Module, TakenOver] = WeakKeyDictionary()
taken_over: WeakKeyDictionary[nn.Module, TakenOver] = WeakKeyDictionary()
"""Decoders that others than the kernels of native/ take over (liger_layers.py)."""


@contextmanager
def fused(decoder: nn.Module) -> Iterator[None]:
    """Let the kernels do what they can of this decoder for a while.

    Not under gradient checkpointing: a layer computed again must be computed in the same way.
    """
    by = None if _left_alone.get() or is_checkpointing(decoder) else _taken_over(decoder)
    if by is None:
        yield
        return
    taken = [(module, f) for module, f in by.forwards if "forward" not in vars(module)]
    for module, forward in taken:
        vars(module)["forward"] = forward
    try:
        with rotated_by(by.rotate, decoder):
            yield
    finally:
        for module, _ in taken:
            del vars(module)["forward"]


@contextmanager
def left_alone() -> Iterator[None]:
    """Every module keeps its own forward, as on a GPU."""
    token = _left_alone.set(True)
    try:
        yield
    finally:
        _left_alone.reset(token)


def is_checkpointing(decoder: Any) -> bool:
    """Whether layers are computed again in the backward."""
    modules = [decoder, *getattr(decoder, "layers", [])]
    return any(getattr(module, "gradient_checkpointing", False) for module in modules)


def _taken_over(decoder: nn.Module) -> TakenOver | None:
    if decoder in taken_over:
        return taken_over[decoder]
    found = kernels()
    if found is None:
        return None
    if decoder not in _known:
        forwards = [
            (module, (_norm_forward if is_norm else _gated_forward)(module, found))
            for module, is_norm in recognised(decoder)
        ]
        _known[decoder] = TakenOver(forwards, rotation_of(found))
    return _known[decoder]


def recognised(decoder: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """The modules that are what a kernel computes, and whether each is a norm or gated."""
    for module in decoder.modules():
        is_norm = _is_rms_norm(module)
        if is_norm or _is_gated(module):
            yield module, is_norm


def epsilon(module: Any) -> float | None:
    """What a norm adds to the mean of squares; None if it names no such number."""
    for name in ("variance_epsilon", "eps"):
        if isinstance(value := getattr(module, name, None), float):
            return value
    return None


def _is_rms_norm(module: Any) -> bool:
    weight = vars(module)["_parameters"].get("weight")
    if not type(module).__name__.endswith("RMSNorm") or epsilon(module) is None or weight is None:
        return False
    return weight.dim() == 1 and len(module._parameters) == 1 and _norms(type(module))  # type: ignore[arg-type]


@cache
def _norms(kind: type) -> bool:
    """Whether such a norm is w * x / sqrt(mean(x^2) + eps) over the last dimension."""

    def tried(x: Tensor) -> tuple[Any, Tensor]:
        weight = torch.linspace(0.5, 2.0, x.shape[-1])
        stand_in = SimpleNamespace(weight=weight, variance_epsilon=0.1, eps=0.1)
        return (
            cast(Any, kind).forward(stand_in, x),
            weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.1),
        )

    return gives_the_same(tried)


def _is_gated(module: Any) -> bool:
    projections = all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj"))
    activation = getattr(module, "act_fn", None)
    return projections and callable(activation) and _gates(type(module), activation)  # type: ignore[arg-type]


@cache
def _gates(kind: type, activation: Callable[[Tensor], Tensor]) -> bool:
    """Whether such a layer is down(silu(gate(x)) * up(x)), whatever its projections are."""

    def tried(x: Tensor) -> tuple[Any, Tensor]:
        stand_in = SimpleNamespace(
            gate_proj=lambda x: x * 2.0,
            up_proj=lambda x: x - 1.0,
            down_proj=lambda x: x + 3.0,
            act_fn=activation,
        )
        expected = nn.functional.silu(x * 2.0) * (x - 1.0) + 3.0
        return cast(Any, kind).forward(stand_in, x), expected

    return gives_the_same(tried)


def gives_the_same(tried: Callable[[Tensor], tuple[Any, Tensor]]) -> bool:
    """Whether a module's own forward, with stand-ins for its parts, is what we take it for.

    tried: from random numbers (1, 3, I) to what the forward gives and what is expected.
    """
    try:
        with unset_fake_temporarily(), torch.no_grad():
            x = torch.randn(1, 3, _NUM_TRIED, generator=torch.Generator().manual_seed(0))
            found, expected = tried(x)
            return isinstance(found, Tensor) and torch.allclose(
                found, expected, rtol=_TOLERANCE, atol=_TOLERANCE
            )
    except (AttributeError, TypeError, RuntimeError, KeyError, ValueError):
        # It is made of other parts: not one of ours.
        return False


def _norm_forward(module: Any, found: Kernels) -> Forward:
    eps = epsilon(module)

    def forward(hidden_states: Tensor) -> Tensor:
        weight = module.weight
        fits = takes(hidden_states, weight) and hidden_states.shape[-1] == len(weight)
        if not fits or weight.requires_grad:
            output: Tensor = type(module).forward(module, hidden_states)
            return output
        normed: Tensor = _RmsNorm.apply(hidden_states, weight, eps, found)  # type: ignore[no-untyped-call]
        return normed

    return forward


def _gated_forward(module: Any, found: Kernels) -> Forward:
    def forward(hidden_states: Tensor) -> Tensor:
        gate, up = module.gate_proj(hidden_states), module.up_proj(hidden_states)
        product: Tensor = (
            _SwiGlu.apply(gate, up, found)  # type: ignore[no-untyped-call]
            if takes(gate, up)
            else module.act_fn(gate) * up
        )
        output: Tensor = module.down_proj(product)
        return output

    return forward


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).contiguous()


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_I: Tensor, eps: float, found: Kernels) -> Tensor:
        x_NI = _rows(x)
        y_NI, inverse_N = found.rms_norm(x_NI, weight_I, eps)
        ctx.save_for_backward(x_NI, weight_I, inverse_N)
        ctx.kernels = found
        return y_NI.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_I, inverse_N = ctx.saved_tensors
        gradient_NI = _rows(gradients[0]).to(x_NI.dtype)
        d_x_NI = ctx.kernels.rms_norm_backward(gradient_NI, x_NI, weight_I, inverse_N)
        return d_x_NI.view(gradients[0].shape), None, None, None


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, found: Kernels) -> Tensor:
        gate_NI, up_NI = _rows(gate), _rows(up)
        ctx.save_for_backward(gate_NI, up_NI)
        ctx.kernels = found
        return found.swiglu(gate_NI, up_NI).view(gate.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gate_NI, up_NI = ctx.saved_tensors
        gradient_NI = _rows(gradients[0]).to(gate_NI.dtype)
        d_gate_NI, d_up_NI = ctx.kernels.swiglu_backward(gradient_NI, gate_NI, up_NI)
        shape = gradients[0].shape
        return d_gate_NI.view(shape), d_up_NI.view(shape), None
