"""The fused LoRA layer against peft's own."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from loracle.model.lora_linear import use_fused_layers
from loracle.model.token_dropout import use_token_dropout

NUM_TOKENS = 37


class OneLayer(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Linear(24, 40, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.proj(x)
        return output


def layer(*, bias: bool = True, dtype: torch.dtype = torch.float32, **options) -> Linear:
    """One adapted layer whose update is not zero, with peft's forward."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["proj"], **options)
    model = OneLayer(bias).to(dtype)
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    use_token_dropout(adapted)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return adapted


def run(adapted, x: Tensor, seed: int = 3) -> list[Tensor]:
    """Output, and the gradients of x, A and B."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    adapted.zero_grad()
    output = adapted(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    (output * weights).sum().backward()
    gradients = [p.grad for p in adapted.parameters() if p.requires_grad]
    return [output.detach(), x.grad, *gradients]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.parametrize("shape", [(NUM_TOKENS, 24), (1, NUM_TOKENS, 24), (3, 5, 24)])
def test_output_and_gradients_are_those_of_peft(bias, rslora, shape):
    adapted = layer(bias=bias, use_rslora=rslora)
    x = torch.randn(shape)
    expected = run(adapted, x)
    assert use_fused_layers(adapted) == 1
    for found, value in zip(run(adapted, x), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_graph_the_output_is_the_same(dtype):
    adapted = layer(dtype=dtype)
    use_fused_layers(adapted)
    x = torch.randn(3, 5, 24, dtype=dtype)
    with_graph = adapted(x)
    assert with_graph.grad_fn is not None
    with torch.no_grad():
        without = adapted(x)
    assert without.grad_fn is None
    assert torch.equal(without, with_graph)


def test_a_bfloat16_layer_stays_within_rounding_of_float32():
    x = torch.randn(NUM_TOKENS, 24)
    expected = run(layer(), x)
    adapted = layer(dtype=torch.bfloat16)
    assert use_fused_layers(adapted) == 1
    found = run(adapted, x.bfloat16())
    assert found[0].dtype == torch.bfloat16
    assert found[2].dtype == torch.float32
    for value, reference in zip(found, expected, strict=True):
        assert float((value.float() - reference).norm() / reference.norm()) < 2e-2


def test_dropout_drops_the_same_values_in_output_and_gradients():
    adapted = layer(lora_dropout=0.5)
    use_fused_layers(adapted)
    x = torch.randn(NUM_TOKENS, 24)
    output, d_x, d_a, d_b = run(adapted, x)
    torch.manual_seed(3)
    module = adapted.base_model.model.proj
    dropped = module.lora_dropout["default"].dropped_places(NUM_TOKENS, 24)
    kept = torch.ones(x.numel()).index_fill(0, dropped, 0.0).view_as(x) / 0.5
    a = module.lora_A["default"].weight.detach().clone().requires_grad_()
    b = module.lora_B["default"].weight.detach().clone().requires_grad_()
    inputs = x.clone().requires_grad_()
    reference = module.base_layer(inputs) + (inputs * kept) @ a.t() @ b.t() * 3.0
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    (reference * weights).sum().backward()
    for found, value in zip(
        (output, d_x, d_a, d_b), (reference.detach(), inputs.grad, a.grad, b.grad), strict=True
    ):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-4)


def test_dropout_without_keys_is_seeded_by_torch_and_off_in_evaluation():
    adapted = layer(lora_dropout=0.3)
    use_fused_layers(adapted)
    x = torch.randn(NUM_TOKENS, 24)
    first = run(adapted, x, seed=1)[0]
    assert torch.equal(first, run(adapted, x, seed=1)[0])
    assert not torch.equal(first, run(adapted, x, seed=2)[0])
    adapted.eval()
    assert torch.equal(run(adapted, x, seed=1)[0], run(adapted, x, seed=2)[0])


def test_other_kinds_of_layers_keep_the_forward_of_peft():
    assert use_fused_layers(layer(use_dora=True)) == 0
    assert use_fused_layers(layer(lora_bias=True)) == 0


def test_a_switched_off_adapter_is_the_base():
    adapted = layer()
    use_fused_layers(adapted)
    x = torch.randn(NUM_TOKENS, 24)
    with adapted.disable_adapter():
        torch.testing.assert_close(adapted(x), adapted.base_model.model.proj.base_layer(x))


def test_a_merged_adapter_is_not_added_twice():
    adapted = layer()
    use_fused_layers(adapted)
    x = torch.randn(NUM_TOKENS, 24)
    expected = adapted(x).detach()
    adapted.merge_adapter()
    torch.testing.assert_close(adapted(x).detach(), expected, rtol=1e-4, atol=1e-5)
