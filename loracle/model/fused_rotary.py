"""Rotary position embeddings of a decoder on a CPU, in one pass over queries and keys.

transformers' models call a function `apply_rotary_pos_emb` of their own module: half a dozen
operations forward, a dozen backward, and attention copies the transposed result once more. For a
while it is replaced by one kernel (native/) that writes what attention reads. A module's function
is taken over only if it gives what the kernel gives.

Shape suffixes: H heads, N tokens, D head size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from loracle.native import Kernels, has_values, takes

_NAME = "apply_rotary_pos_emb"
_TOLERANCE = 1e-5
_MOST_FEATURES = 1024
"""attention.c rotates heads of at most this size."""

Rotation = Callable[..., tuple[Tensor, Tensor]]
Rotate = Callable[..., tuple[Tensor, Tensor]]
"""A rotation that takes a module's own one first, for what it does not do itself."""


def rotation_of(found: Kernels) -> Rotate:
    """The kernel's."""
    return partial(_rotated, found)


@contextmanager
def rotated_by(rotate: Rotate, decoder: nn.Module) -> Iterator[None]:
    """Let `rotate` rotate the queries and keys of this decoder for a while."""
    names = {type(module).__module__ for module in decoder.modules()}
    taken: list[tuple[Any, Rotation]] = []
    try:
        for place in (sys.modules[name] for name in sorted(names) if name in sys.modules):
            own = vars(place).get(_NAME)
            # Another thread may have replaced it already.
            if own is not None and not isinstance(own, partial) and _rotates(own):
                taken.append((place, own))
                setattr(place, _NAME, partial(rotate, own))
        yield
    finally:
        for place, own in taken:
            setattr(place, _NAME, own)


@cache
def _rotates(own: Rotation) -> bool:
    """Whether it is x cos + rotate_half(x) sin, of queries and keys."""
    with unset_fake_temporarily(), torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        shapes = ((1, 2, 3, 8), (1, 1, 3, 8), (1, 3, 8), (1, 3, 8))
        query, key, cos, sin = (torch.randn(shape, generator=generator) for shape in shapes)
        try:
            rotated = own(query, key, cos, sin)
        except (TypeError, RuntimeError, ValueError, AttributeError):
            # It takes other arguments: not one of ours.
            return False
        return all(
            torch.allclose(found, _reference(x, cos, sin), rtol=_TOLERANCE, atol=_TOLERANCE)
            for found, x in zip(rotated, (query, key), strict=True)
        )


def _reference(x_1HND: Tensor, cos_1ND: Tensor, sin_1ND: Tensor) -> Tensor:
    low, high = x_1HND.chunk(2, dim=-1)
    return x_1HND * cos_1ND[:, None] + torch.cat([-high, low], dim=-1) * sin_1ND[:, None]


def _rotated(
    found: Kernels, own: Rotation, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    shape = cos.shape
    fits = not options and takes(q, k, cos, sin) and sin.shape == shape and not cos.requires_grad
    if not fits or shape[-1] > _MOST_FEATURES or not all(_fits(x, shape) for x in (q, k)):
        return own(q, k, cos, sin, **options)
    angles = cos[0].contiguous(), sin[0].contiguous()
    rotated: tuple[Tensor, Tensor] = (
        _Rotary.apply(q, *angles, found),  # type: ignore[no-untyped-call]
        _Rotary.apply(k, *angles, found),  # type: ignore[no-untyped-call]
    )
    return rotated


def _fits(x: Tensor, shape: torch.Size) -> bool:
    return x.dim() == 4 and (x.shape[0], *x.shape[2:]) == (1, *shape[1:]) and x.stride(-1) == 1


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_1HND: Tensor, cos_ND: Tensor, sin_ND: Tensor, found: Kernels) -> Tensor:
        ctx.save_for_backward(cos_ND, sin_ND)
        ctx.kernels = found
        rotated = x_1HND.new_empty(x_1HND.shape)
        if has_values(x_1HND):
            found.rotary(x_1HND[0], cos_ND, sin_ND, rotated[0], backward=False)
        return rotated

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos_ND, sin_ND = ctx.saved_tensors
        gradient = gradients[0] if gradients[0].stride(-1) == 1 else gradients[0].contiguous()
        _, num_heads, num_tokens, size = gradient.shape
        # As the layer before has its output: token by token.
        d_x = gradient.new_empty(1, num_tokens, num_heads, size).transpose(1, 2)
        ctx.kernels.rotary(gradient[0], cos_ND, sin_ND, d_x[0], backward=True)
        return d_x, None, None, None
