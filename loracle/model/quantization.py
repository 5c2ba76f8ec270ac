"""Bases whose linear layers are quantised by bitsandbytes: loading them, and their products.

    nf4    4 bits per weight in blocks of 64, the blocks' scales quantised again (double
    quantisation) int8   8 bits per weight, one scale per row

Only weights are quantised. Every product runs in the model's own precision on weights that are
unpacked for it, so that a token's values do not depend on the tokens computed beside it: a forest
equals separate sequences, and any cut of a step gives the same gradient. bitsandbytes itself does
otherwise in two places, which `use_exact_products` replaces:

- its 8-bit layers also quantise activations, and pick the columns that stay whole by whichever
  token of the batch is large there;
- on a CPU with AVX512-BF16 its 4-bit layers repack their weights at the first answer, rounding
  the scales; after that they pass no gradient to the layers before them.

Shape suffixes: N tokens, I input size, O output size.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from loracle.errors import MissingExtraError, ModelError

NONE = "none"

PACKED_SHARE = {NONE: 1.0, "int8": 0.5, "nf4": 0.25}
"""The approximate size of the weights under each quantisation, relative to half precision."""


def quantization_config(quantization: str, dtype: torch.dtype) -> Any | None:
    """transformers' configuration for loading a quantised model; None for `none`.

    Args:
        quantization: none, int8 or nf4, as in a plan.
        dtype: the precision of the products.

    Raises:
        MissingExtraError: bitsandbytes or accelerate is not installed.
    """
    if quantization == NONE:
        return None
    missing = [name for name in ("bitsandbytes", "accelerate") if not _is_installed(name)]
    if missing:
        raise MissingExtraError(
            f"model.quantization: {quantization} needs {' and '.join(missing)}; "
            "run: pip install 'loracle[quant]'"
        )
    # On import it warns about a missing kernel for repacked weights, which `use_exact_products`
    # prevents.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def quantization_of(model: nn.Module) -> str:
    """none, int8, nf4 or fp4; a model quantised by another library: the library's method."""
    module: Any
    for module in model.modules():
        if _is_8bit(module):
            return "int8"
        if _is_4bit(module):
            return str(module.weight.quant_type)
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    if config is None:
        return NONE
    method = config.get("quant_method") if isinstance(config, dict) else config.quant_method
    return str(getattr(method, "value", method))


def num_parameters(model: nn.Module) -> int:
    """How many weights the model has, however they are packed."""
    return sum(_num_weights(parameter) for parameter in model.parameters())


def use_exact_products(model: nn.Module) -> None:
    """Make the quantised layers compute each token separately, in the precision of its input."""
    packed = False
    module: Any
    for module in model.modules():
        if _is_8bit(module) and not module.state.has_fp16_weights:
            module.forward = MethodType(_int8_forward, module)
        elif _is_4bit(module):
            module.support_avx512bf16_for_cpu = False
            state = getattr(module.weight, "quant_state", None)
            packed |= bool(getattr(state, "packing_format_for_cpu", False))
    if packed:
        # Its caller has answered with the model: reading the state puts the weights back.
        model.state_dict()


def require_products(model: nn.Module) -> None:
    """Run one token through a quantised layer, forward and backward.

    Raises:
        ModelError: bitsandbytes has no kernel for this layer on its device.
    """
    layer: Any = next((m for m in model.modules() if _is_8bit(m) or _is_4bit(m)), None)
    if layer is None:
        return
    device = layer.weight.device
    x = torch.zeros(1, layer.in_features, device=device, requires_grad=True)
    try:
        layer(x).sum().backward()
    except (RuntimeError, NotImplementedError, AttributeError, OSError) as error:
        import bitsandbytes

        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"model.quantization: {quantization_of(model)}: bitsandbytes "
            f"{bitsandbytes.__version__} has no working kernel for {device.type} here "
            f"({first_line}); set model.quantization to none, or model.device to a device that "
            "it supports, or run: pip install --upgrade bitsandbytes"
        ) from error


@contextmanager
def products_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """4-bit layers temporarily compute in this precision; 8-bit layers follow their input."""
    modules: list[Any] = [module for module in model.modules() if _is_4bit(module)]
    before = [module.compute_dtype for module in modules]
    for module in modules:
        module.compute_dtype = dtype
    try:
        yield
    finally:
        for module, compute_dtype in zip(modules, before, strict=True):
            module.compute_dtype = compute_dtype


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


# By name, so that bitsandbytes is not imported if no layer is quantised.
def _is_8bit(module: nn.Module) -> bool:
    return any(kind.__name__ == "Linear8bitLt" and _of_library(kind) for kind in type(module).mro())


def _is_4bit(module: nn.Module) -> bool:
    return any(kind.__name__ == "Linear4bit" and _of_library(kind) for kind in type(module).mro())


def _of_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "bitsandbytes"


def _num_weights(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def _int8_forward(layer: Any, x: Tensor) -> Tensor:
    if layer.weight.CB is not None:
        layer.init_8bit_state()
    state = layer.state
    output: Tensor = _Int8Linear.apply(x, state.CB, state.SCB, layer.bias)  # type: ignore[no-untyped-call]
    return output


def _unpacked(packed_OI: Tensor, scales_O: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights, rounded once: a row's largest value is its scale, and packed as 127."""
    weight_OI = torch.empty(packed_OI.shape, dtype=dtype, device=packed_OI.device)
    return torch.mul(packed_OI, (scales_O / 127.0).unsqueeze(1), out=weight_OI)


class _Int8Linear(torch.autograd.Function):
    """y = W x + b on unpacked weights, which the backward unpacks again instead of keeping."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, packed_OI: Tensor, scales_O: Tensor, bias_O: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(packed_OI, scales_O)
        bias = None if bias_O is None else bias_O.to(x.dtype)
        return nn.functional.linear(x, _unpacked(packed_OI, scales_O, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        packed_OI, scales_O = ctx.saved_tensors
        (gradient,) = gradients
        d_x = gradient @ _unpacked(packed_OI, scales_O, gradient.dtype)
        d_bias_O = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[3] else None
        return d_x, None, None, d_bias_O
