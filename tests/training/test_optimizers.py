"""The optimizers of a training, by name."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from loracle.errors import MissingExtraError
from loracle.training.optimizers import AdamSettings, make_optimizer, require_optimizer

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


def test_8_bit_moments_without_their_package_are_refused_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'loracle\[quant\]'"):
        require_optimizer("adamw_8bit")
    require_optimizer("adamw")
