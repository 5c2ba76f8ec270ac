"""The optimizers of a training, by name."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from loracle.errors import MissingExtraError
from loracle.training.optimizers import (
    AdamSettings,
    OptimizerName,
    make_optimizer,
    moment_bytes,
    require_optimizer,
)

SETTINGS = AdamSettings(0.01, (0.9, 0.999), 1e-8, 0.1)


def learned(name: str) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    """A weight of 8,192 numbers after three steps, and its optimizer."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(64, 128))
    optimizer = make_optimizer(name, [weight], SETTINGS)
    for _ in range(3):
        weight.grad = torch.randn(64, 128)
        optimizer.step()
    return weight.detach(), optimizer


def test_8_bit_moments_take_a_quarter_of_the_memory_and_learn_nearly_the_same():
    pytest.importorskip("bitsandbytes")
    (exact, adamw), (found, eight_bit) = learned("adamw"), learned("adamw_8bit")

    def moment_bytes(optimizer: torch.optim.Optimizer) -> int:
        [state] = optimizer.state.values()
        tensors = [v for v in state.values() if isinstance(v, torch.Tensor)]
        return sum(v.nbytes for v in tensors if v.numel() >= 64 * 128)

    assert moment_bytes(eight_bit) == moment_bytes(adamw) // 4
    # Three steps move every weight by at most 0.03.
    assert float((found - exact).abs().max()) < 0.01


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_the_memory_of_the_moments_is_known_to_the_byte(name: OptimizerName):
    pytest.importorskip("bitsandbytes")
    # Kept in float32; the smallest that is packed; one whose last block is not full.
    shapes = [(8, 500), (8, 512), (100, 333)]
    weights = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = make_optimizer(name, weights, SETTINGS)
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    kept = {
        tensor.data_ptr(): tensor.nbytes
        for state in optimizer.state.values()
        for tensor in state.values()
        # AdamW counts every weight's steps in a tensor of one number.
        if isinstance(tensor, torch.Tensor) and tensor.numel() > 1
    }
    assert sum(kept.values()) == moment_bytes(name, [weight.numel() for weight in weights])


def test_8_bit_moments_without_their_package_are_refused_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'loracle\[quant\]'"):
        require_optimizer("adamw_8bit")
    require_optimizer("adamw")
