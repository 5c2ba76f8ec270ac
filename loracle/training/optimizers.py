"""The optimizers: AdamW with its moments in float32, or in 8 bits by bitsandbytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from loracle.errors import MissingExtraError

OptimizerName = Literal["adamw", "adamw_8bit"]

_FLOAT32_BYTES = 4
_FEWEST_8_BIT, _BLOCK = 4096, 256
"""bitsandbytes keeps smaller tensors in float32, and a float32 scale for each block of the others
(its optim/optimizer.py)."""
_TABLE_BYTES = 2 * 256 * _FLOAT32_BYTES
"""What the 8 bits of the two moments stand for, once for all tensors."""


class AdamSettings(NamedTuple):
    """AdamW's numbers; weight_decay is the decoupled one."""

    learning_rate: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float


def make_optimizer(
    name: OptimizerName, parameters: Iterable[Tensor], settings: AdamSettings
) -> torch.optim.Optimizer:
    """The optimizer of a training.

    Raises:
        MissingExtraError: adamw_8bit without bitsandbytes.
    """
    learned = list(parameters)
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    if name == "adamw_8bit":
        eight_bit: torch.optim.Optimizer = _eight_bit_adamw()(learned, **options)
        return eight_bit
    # One kernel for all weights, which counts its steps on the device.
    on_gpu = all(parameter.device.type == "cuda" for parameter in learned)
    return torch.optim.AdamW(learned, fused=True if on_gpu else None, **options)


def moment_bytes(name: OptimizerName, num_elements: Iterable[int]) -> int:
    """The memory of both moments. num_elements: of every trained tensor."""
    sizes = list(num_elements)
    if name == "adamw":
        return 2 * _FLOAT32_BYTES * sum(sizes)
    plain = sum(size for size in sizes if size < _FEWEST_8_BIT)
    packed = [size for size in sizes if size >= _FEWEST_8_BIT]
    blocks = sum(-(-size // _BLOCK) for size in packed)
    tables = _TABLE_BYTES if packed else 0
    return 2 * (_FLOAT32_BYTES * (plain + blocks) + sum(packed)) + tables


def require_optimizer(name: OptimizerName) -> None:
    """Raise MissingExtraError if what the optimizer needs is not installed."""
    if name == "adamw_8bit":
        _eight_bit_adamw()


def _eight_bit_adamw() -> Any:
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise MissingExtraError(
            "training.optimizer: adamw_8bit: bitsandbytes is not installed; run: "
            "pip install 'loracle[quant]', or set training.optimizer to adamw"
        ) from error
    found: Any = optim
    return found.AdamW8bit
