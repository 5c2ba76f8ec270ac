"""Bases in int8 and nf4: they load, stay as they are, and a forest equals separate sequences."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from loracle.errors import MissingExtraError, ModelError
from loracle.model import adapter, quantization
from loracle.model.base import (
    BaseModel,
    base_fingerprint,
    evaluation_precision,
    load_base,
    wrap_base,
)
from loracle.model.loaded_form import LoadedForm
from loracle.model.quantization import quantization_config, require_products
from loracle.model.self_test import run_self_test
from tests import tiny

KINDS = ["int8", "nf4"]
# Layers of 64 inputs fill nf4's blocks; bitsandbytes' processor kernels want 32 outputs.
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model"), **SIZES)


def loaded(folder: Path, kind: str, dtype: str = "float32") -> BaseModel:
    return load_base("tiny", str(folder), tiny.tokenizer(), LoadedForm(dtype, kind))


def lora(base: BaseModel, seed: int = 0) -> Any:
    """An adapter on all linear layers whose update is not zero."""
    settings = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
    adapted = adapter.attach(base.model, adapter.lora_config(settings), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapter.trainable(adapted):
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return adapted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantised_base_passes_the_self_test_within_the_rounding_of_its_precision(
    folder, kind, dtype
):
    result = run_self_test(loaded(folder, kind, dtype))
    assert result.passed, result.detail


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_base_says_what_it_is(folder, kind):
    base, plain = loaded(folder, kind), loaded(folder, "none")
    assert (base.quantization, plain.quantization) == (kind, "none")
    assert base.num_parameters == plain.num_parameters
    assert base.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_the_packed_weights_are_the_same_after_training_and_answering(folder, kind):
    base = loaded(folder, kind)
    before = base_fingerprint(base.model)
    token_ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        answered = base.model(token_ids).logits
    adapted = lora(base)
    adapted.train()
    adapted(token_ids).logits.square().mean().backward()
    adapted.eval()
    adapter.detach(adapted)
    assert base_fingerprint(base.model) == before == base_fingerprint(loaded(folder, kind).model)
    with torch.no_grad():
        assert torch.equal(base.model(token_ids).logits, answered)


def test_one_changed_packed_weight_changes_the_fingerprint(folder):
    for kind in KINDS:
        base = loaded(folder, kind)
        before = base_fingerprint(base.model)
        base.model.model.layers[0].mlp.up_proj.weight.data.view(-1)[3] += 1
        assert base_fingerprint(base.model) != before


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_answering_use_one_and_the_same_product(folder, kind):
    base = loaded(folder, kind)
    token_ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        evaluating = base.model(token_ids).logits
        base.model.train()
        training = base.model(token_ids).logits
    assert torch.equal(evaluating, training)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_after_an_answer_equals_one_before_it(folder, kind):
    base = loaded(folder, kind)
    adapted = lora(base)
    token_ids = torch.tensor([[5, 6, 7, 8, 9]])

    def gradient() -> torch.Tensor:
        adapted.zero_grad()
        adapted(token_ids).logits.square().mean().backward()
        return torch.cat([p.grad.flatten() for _, p in adapter.trainable(adapted)])

    before = gradient()
    with torch.no_grad():
        adapted(token_ids)
    assert torch.equal(gradient(), before)
    adapter.detach(adapted)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_layer_is_that_of_its_unpacked_weights(folder, kind):
    import bitsandbytes.functional as library

    layer = loaded(folder, kind).model.model.layers[0].mlp.up_proj
    x = torch.randn(7, layer.in_features, requires_grad=True)
    output = layer(x)
    if kind == "int8":
        weight = library.int8_vectorwise_dequant(layer.state.CB, layer.state.SCB)
    else:
        weight = library.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    wanted = torch.randn_like(output)
    (found,) = torch.autograd.grad(output, x, wanted)
    torch.testing.assert_close(output, x @ weight.t(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, wanted @ weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_saved_and_loaded_on_a_quantised_base_answers_the_same(folder, kind, tmp_path):
    base = loaded(folder, kind)
    token_ids = torch.tensor([[5, 6, 7, 8, 9]])
    adapted = lora(base)
    with torch.no_grad():
        expected = adapted(token_ids).logits
    adapter.save(adapted, tmp_path / "adapter")
    adapter.detach(adapted)
    again = adapter.load(base.model, tmp_path / "adapter")
    with torch.no_grad():
        assert torch.equal(again(token_ids).logits, expected)
    adapter.detach(again)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_the_caller_quantised_passes_through(folder, kind):
    # Without double quantisation, and with the columns that LLM.int8() keeps whole.
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    asked = {"load_in_8bit": True} if kind == "int8" else {"load_in_4bit": True}
    if kind == "nf4":
        asked["bnb_4bit_quant_type"] = "nf4"
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=BitsAndBytesConfig(**asked),
        device_map="auto",
        dtype=torch.bfloat16,
    )
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7, 8, 9]]))
    base = wrap_base("mine", model, tiny.tokenizer())
    assert (base.quantization, base.dtype) == (kind, torch.bfloat16)
    result = run_self_test(base)
    assert result.passed, result.detail


def test_evaluation_in_float32_computes_every_product_in_float32(folder):
    base = loaded(folder, "nf4", "bfloat16")
    token_ids = torch.tensor([[5, 6, 7, 8, 9]])
    layer = base.model.model.layers[0].mlp.up_proj
    with torch.no_grad():
        before = base.model(token_ids).logits
        with evaluation_precision(base, "float32") as precise:
            assert precise.dtype == torch.float32
            assert layer.compute_dtype == torch.float32
            assert base.model(token_ids).logits.dtype == torch.float32
        assert layer.compute_dtype == torch.bfloat16
        assert torch.equal(base.model(token_ids).logits, before)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'loracle\[quant\]'"):
        quantization_config("nf4", torch.float32)


def test_weights_that_are_already_quantised_are_not_quantised_otherwise(folder, tmp_path):
    loaded(folder, "int8").model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert loaded(tmp_path, "none").quantization == "int8"
    with pytest.raises(ModelError, match="quantised already"):
        loaded(tmp_path, "nf4")


def test_a_missing_kernel_is_said_in_words(folder, monkeypatch):
    base = loaded(folder, "nf4")

    def no_kernel(*arguments: Any) -> None:
        raise NotImplementedError("bitsandbytes::gemm_4bit has no kernel for this device")

    for module in base.model.modules():
        if quantization._is_4bit(module):
            monkeypatch.setattr(module, "forward", no_kernel)
    with pytest.raises(ModelError, match="no working kernel for cpu") as raised:
        require_products(base.model)
    assert "model.quantization to none" in str(raised.value)


def test_a_model_without_quantised_layers_is_left_alone():
    model = nn.Sequential(nn.Linear(4, 4))
    quantization.use_exact_products(model)
    assert "forward" not in vars(model[0])
    assert quantization.quantization_of(model) == "none"
