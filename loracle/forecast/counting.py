"""What the backward pass keeps for one token, counted by running the real layers without memory.

The model is built from its config on the meta device, gets a fresh adapter, and takes one forward
pass in which every tensor has a shape and no content; hooks count what autograd saves. Whatever a
model's layers do (norms, gates, experts, fused LoRA) is therefore counted, not guessed.
Attention's probabilities are left out: they depend on the rows' lengths (step_memory.py).
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from loracle.forest.attention.interface import ATTENTION_NAME, attention_implementation
from loracle.model import adapter
from loracle.model.base import computing, packed_hidden_states
from loracle.model.fused_layers import left_alone
from loracle.model.max_length import shape_of_model
from loracle.model.step_memory import ModelShape
from loracle.model.token_dropout import keyed, token_dropouts
from loracle.run_folder import signals
from loracle.training.optimizers import OptimizerName, moment_bytes

_COUNTED_TOKENS = 64


def counted_shape(
    config: Any,
    lora: Any,
    dtype: torch.dtype,
    device_type: str,
    *,
    quantization: str = "none",
    optimizer: OptimizerName = "adamw",
    trust_remote_code: bool = False,
) -> ModelShape | None:
    """The shape of the model that a config describes, with what its layers keep for a token.

    lora: the peft.LoraConfig. device_type: a GPU's layers keep more than a CPU's fused ones.
    None if the config cannot be built so; `kept_token_bytes` is None if its layers cannot run so.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=dtype, trust_remote_code=trust_remote_code
            )
            model.requires_grad_(False)
            shape = shape_of_model(model, dtype.itemsize, device_type)
            adapted = adapter.attach(model, lora, 0)
    except (ValueError, TypeError, AttributeError, ImportError, RuntimeError):
        return None
    trained = [parameter.numel() for _, parameter in adapter.trainable(adapted)]
    shape = dataclasses.replace(
        shape,
        num_adapter_parameters=sum(trained),
        quantization=quantization,
        moment_bytes=moment_bytes(optimizer, trained),
    )
    if device_type != "cpu" or quantization != "none":
        _without_fused_layers(adapted)
    try:
        # Tensors without content are torch's C++ calling Python.
        with (
            signals.unbroken("the count of what the model's layers keep"),
            nullcontext() if device_type == "cpu" else left_alone(),
        ):
            kept = _kept_bytes(model, adapted, dtype)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        return shape
    return dataclasses.replace(
        shape, kept_token_bytes=kept.of_token, kept_target_bytes=kept.of_target
    )


class _Kept(NamedTuple):
    """Bytes that the backward keeps of a token, and besides of a target."""

    of_token: float
    of_target: float


def _kept_bytes(model: Any, adapted: Any, dtype: torch.dtype) -> _Kept:
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    _without_content(model, mode)
    many, one = (_kept_in_pass(model, adapted, dtype, mode, n) for n in (_COUNTED_TOKENS, 1))
    of_target = (many - one) / (_COUNTED_TOKENS - 1)
    return _Kept(many / _COUNTED_TOKENS - of_target, of_target)


def _kept_in_pass(model: Any, adapted: Any, dtype: torch.dtype, mode: Any, num_targets: int) -> int:
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    device, wanted = torch.device("cpu"), torch.arange(num_targets)
    keys = np.arange(_COUNTED_TOKENS, dtype=np.uint64)
    adapted.train()
    with (
        mode,
        attention_implementation(model, ATTENTION_NAME),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        computing(dtype, device, adapted),
        keyed(token_dropouts(adapted), keys),
    ):
        places = torch.zeros(_COUNTED_TOKENS, dtype=torch.long)
        packed_hidden_states(model, places, places, _KeptAttention(), wanted)
    return sum(storage.nbytes() for storage in kept.values())


class _KeptAttention:
    """A ForestContext that keeps what attention keeps, except its probabilities."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int
    ) -> Tensor:
        kept: Tensor = _KeptQueries.apply(query, key, value)  # type: ignore[no-untyped-call]
        return kept


class _KeptQueries(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor) -> Tensor:
        ctx.save_for_backward(query_HND, key_KND.contiguous(), value_KND.contiguous())
        return query_HND.new_empty(query_HND.transpose(0, 1).shape)


def _without_content(model: nn.Module, mode: Any) -> None:
    """Make every weight a tensor that has a shape, and says that it is on the CPU."""
    convert, cpu = mode.fake_tensor_converter.from_meta_and_device, torch.device("cpu")
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                fake = convert(mode, parameter.detach(), cpu)
                module._parameters[name] = nn.Parameter(fake, parameter.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = convert(mode, buffer, cpu)


def _without_fused_layers(adapted: nn.Module) -> None:
    """Leave the LoRA layers to peft, as on a GPU and over a quantised base."""
    for module in adapted.modules():
        vars(module).pop("forward", None)
