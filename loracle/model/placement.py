"""Where a model's parts are: on one device, on several, or offloaded to the CPU or disk.

accelerate moves the inputs of every layer to that layer's device, and brings offloaded weights
there for the time of its product. Loracle adds only the tensors of the forest, which follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from loracle.errors import MissingExtraError, ModelError

AUTO = "auto"


def preferred_device() -> torch.device:
    """CUDA if there is a GPU for it, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def chosen_device(device: str) -> torch.device:
    """The device for a plan's `model.device`.

    Raises:
        ModelError: this machine, or this torch, has no such device.
    """
    if device == AUTO:
        return preferred_device()
    if device == "cuda" and not torch.cuda.is_available():
        reason = (
            "this torch is built without CUDA"
            if torch.version.cuda is None and torch.version.hip is None
            else "torch finds no GPU that it can use"
        )
        raise ModelError(f"model.device: cuda, but {reason}; use auto or cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ModelError("model.device: mps, but torch finds no Apple GPU; use auto or cpu")
    return torch.device(device)


def require_accelerate() -> None:
    """Raises MissingExtraError if accelerate, which spreads a model, is not installed."""
    import importlib.util

    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError(
            "model.device_map: auto needs accelerate; run: pip install 'loracle[quant]'"
        )


def input_device(model: nn.Module) -> torch.device:
    """The device of the embeddings, where token ids go in; also while these are offloaded."""
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    return _executing_device(embeddings) or embeddings.weight.device


def num_offloaded(model: nn.Module) -> int:
    """How many parameters stay on the CPU or on disk until their layer needs them."""
    return sum(parameter.is_meta for parameter in model.parameters())


def require_trainable(model: nn.Module) -> None:
    """Raises ModelError if layers are offloaded: their weights would stay until the backward."""
    offloaded = num_offloaded(model)
    if offloaded:
        raise ModelError(
            f"model.device_map: {offloaded} weights do not fit on the devices and are offloaded; "
            "the model can then answer but not train; set model.quantization to nf4, or "
            "use a smaller model or more memory"
        )


def state_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the model's state, sorted; offloaded ones are read one at a time."""
    offloaded = _offloaded_weights(model)
    for name, tensor in sorted(model.state_dict().items()):
        yield name, offloaded[name] if tensor.is_meta else tensor


def _offloaded_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """The weights of offloaded layers by name, wherever accelerate keeps them."""
    for module in model.modules():
        for hook in _hooks(module):
            weights = getattr(hook, "weights_map", None)
            if weights is not None:
                whole: Mapping[str, Tensor] = getattr(weights, "dataset", weights)
                return whole
    return {}


def _executing_device(module: nn.Module) -> torch.device | None:
    for hook in _hooks(module):
        device = getattr(hook, "execution_device", None)
        if device is not None:
            return torch.device(device)
    return None


def _hooks(module: nn.Module) -> list[Any]:
    """accelerate's hooks of a module, one after the other."""
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is None:
        return []
    return list(getattr(hook, "hooks", [hook]))
