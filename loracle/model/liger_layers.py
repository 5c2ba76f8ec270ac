"""Norms, gated activations and rotary embeddings of a decoder on a GPU, by liger-kernel's kernels.

    if (problem := problem_with(device)) is None:
        use(decoder)      until leave(decoder)

The modules are those that fused_layers.py recognises, and each is computed by the model's own code
where a kernel does not fit. Used only after the self-test (layer_choice.py).
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from loracle.model import fused_layers
from loracle.model.fused_layers import Forward, TakenOver

PACKAGE = "liger_kernel"


def problem_with(device: torch.device) -> str | None:
    """Why liger-kernel cannot be used there, in words; None if it can."""
    interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        return f"liger-kernel's kernels are for GPUs, and the model is on {device.type}"
    for module, package in ((PACKAGE, "liger-kernel"), ("triton", "triton")):
        if find_spec(module) is None:
            return f"the package {package} is not installed (pip install 'loracle[cuda]')"
    return None


def use(decoder: nn.Module) -> int:
    """Let liger-kernel compute what it can of this decoder. Returns the number of modules."""
    forwards = [
        (module, _norm_forward(module) if is_norm else _gated_forward(module))
        for module, is_norm in fused_layers.recognised(decoder)
    ]
    fused_layers.taken_over[decoder] = TakenOver(forwards, _rotated)
    return len(forwards)


def leave(decoder: nn.Module) -> None:
    """Let the model's own code compute everything again."""
    fused_layers.taken_over.pop(decoder, None)


def is_used(decoder: nn.Module) -> bool:
    """Whether liger-kernel computes parts of this decoder."""
    return decoder in fused_layers.taken_over


def _fits(*tensors: Tensor) -> bool:
    """Values of one type: a tensor of a forecast has a shape alone."""
    return all(
        type(tensor) in (Tensor, nn.Parameter) and tensor.dtype == tensors[0].dtype
        for tensor in tensors
    )


def _norm_forward(module: Any) -> Forward:
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction

    eps = fused_layers.epsilon(module)

    def forward(hidden_states: Tensor) -> Tensor:
        weight = module.weight
        if not _fits(hidden_states, weight) or hidden_states.shape[-1] != len(weight):
            own: Tensor = type(module).forward(module, hidden_states)
            return own
        # Not in place: the gradient that arrives is also that of the residual stream.
        normed: Tensor = LigerRMSNormFunction.apply(hidden_states, weight, eps, 0.0, "llama", False)
        return normed

    return forward


def _gated_forward(module: Any) -> Forward:
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    def forward(hidden_states: Tensor) -> Tensor:
        gate, up = module.gate_proj(hidden_states), module.up_proj(hidden_states)
        product: Tensor = (
            LigerSiLUMulFunction.apply(gate, up, 1.0, 1.0)
            if _fits(gate, up)
            else module.act_fn(gate) * up
        )
        output: Tensor = module.down_proj(product)
        return output

    return forward


def _rotated(
    own: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    from liger_kernel.ops.rope import LigerRopeFunction

    if options or cos.dim() != 3 or not _fits(q, k, cos, sin) or cos.shape[-1] != q.shape[-1]:
        found: tuple[Tensor, Tensor] = own(q, k, cos, sin, **options)
        return found
    rotated: tuple[Tensor, Tensor] = LigerRopeFunction.apply(q, k, cos, sin)
    return rotated
