"""The CPU's own kernels against torch's operations, and what happens without a compiler."""

from __future__ import annotations

import platform
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

from loracle import native
from loracle.experiment.executing import _tell_of_kernels
from loracle.model.fused_layers import fused
from loracle.model.fused_rotary import rotated_by, rotation_of
from loracle.model.last_layer import only_at
from loracle.model.token_dropout import Drop, dropped_places

SIZE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 50,
}  # fmt: skip
DTYPES = [torch.float32, torch.bfloat16]
needs_kernels = pytest.mark.skipif(native.kernels() is None, reason=str(native.why_off()))


@pytest.fixture
def kernels() -> native.Kernels:
    found = native.kernels()
    assert found is not None
    return found


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path) -> pytest.MonkeyPatch:
    """Nothing is loaded, and the cache is empty."""
    monkeypatch.setenv("LORACLE_CACHE", str(tmp_path))
    native._loaded.cache_clear()
    yield monkeypatch
    native._loaded.cache_clear()


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found.float(), expected.float(), rtol=tolerance, atol=tolerance)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_features", [1, 7, 576])
def test_a_norm_and_its_gradient_are_torchs(kernels, dtype, num_features):
    x, g = (random(9, num_features, dtype=dtype, seed=seed) for seed in (1, 2))
    weight = random(num_features, dtype=dtype, seed=3)
    exact = x.double().requires_grad_()
    expected = nn.functional.rms_norm(exact, (num_features,), weight.double(), 1e-5)
    expected.backward(g.double())
    y, inverse = kernels.rms_norm(x, weight, 1e-5)
    close(y, expected.detach(), dtype)
    close(kernels.rms_norm_backward(g, x, weight, inverse), exact.grad, dtype)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gated_activation_and_its_gradient_are_torchs(kernels, dtype):
    gate, up, g = (3 * random(9, 33, dtype=dtype, seed=seed) for seed in (1, 2, 3))
    gate[0] = torch.tensor([-200.0, -80.0, 0.0, 80.0, 200.0] + [1.0] * 28)
    exact = [t.double().requires_grad_() for t in (gate, up)]
    expected = nn.functional.silu(exact[0]) * exact[1]
    expected.backward(g.double())
    close(kernels.swiglu(gate, up), expected.detach(), dtype)
    for found, tensor in zip(kernels.swiglu_backward(g, gate, up), exact, strict=True):
        close(found, tensor.grad, dtype)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_a_number_stays_so(kernels, dtype):
    x = random(2, 8, dtype=dtype)
    x[0, 3] = torch.nan
    assert kernels.rms_norm(x, torch.ones(8, dtype=dtype), 1e-5)[0][0].isnan().all()
    assert kernels.swiglu(x, torch.ones_like(x))[0, 3].isnan()


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_the_kernel_drops_the_places_that_numpy_draws(dtype, p):
    keys = np.random.default_rng(0).integers(0, 1 << 63, 40).astype(np.uint64)
    x = torch.ones(40, 37, dtype=dtype)
    drop = Drop(keys, 5, 37, p, dtype)
    expected = torch.ones(40, 37, dtype=dtype)
    expected.view(-1)[torch.from_numpy(dropped_places(keys, 5, 37, p))] = 0.0
    assert torch.equal(drop.copied(x), expected)
    assert x.all()
    assert torch.equal(drop.in_place(x), expected)


def llama(kind=LlamaForCausalLM, config=LlamaConfig, **options):
    torch.manual_seed(0)
    model = kind(config(**SIZE, **options))
    model.requires_grad_(False)
    return model.get_decoder()


def passed(decoder, embedded: Tensor) -> tuple[Tensor, Tensor]:
    """Last hidden states, and the gradient of a weighted sum of them."""
    embedded = embedded.clone().requires_grad_()
    hidden = decoder(inputs_embeds=embedded).last_hidden_state
    (hidden * torch.linspace(-1, 1, hidden.shape[-1])).sum().backward()
    return hidden.detach(), embedded.grad


@needs_kernels
def test_a_decoder_with_the_kernels_gives_the_same_hidden_states_and_gradients():
    decoder, embedded = llama(), random(1, 11, 32, dtype=torch.float32)
    expected = passed(decoder, embedded)
    with fused(decoder):
        taken = [module for module in decoder.modules() if "forward" in vars(module)]
        found = passed(decoder, embedded)
    assert len(taken) == 2 * 3 + 1
    assert not any("forward" in vars(module) for module in decoder.modules())
    for tensor, value in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor, value, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_a_norm_of_another_kind_keeps_its_own_forward():
    decoder = llama(GemmaForCausalLM, GemmaConfig, head_dim=8)
    with fused(decoder):
        assert not any("forward" in vars(module) for module in decoder.modules())


def test_the_last_layer_gives_the_wanted_tokens_as_if_all_were_computed():
    decoder, embedded = llama(), random(1, 11, 32, dtype=torch.float32)
    wanted = torch.tensor([2, 3, 10])
    whole = embedded.clone().requires_grad_()
    expected = decoder(inputs_embeds=whole).last_hidden_state[:, wanted]
    expected.square().sum().backward()
    pruned = embedded.clone().requires_grad_()
    with only_at(decoder, wanted) as is_pruned:
        found = decoder(inputs_embeds=pruned).last_hidden_state
    assert is_pruned
    assert found.shape == (1, 3, 32)
    found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(pruned.grad, whole.grad)


def test_the_last_layer_is_computed_whole_where_layers_are_computed_again():
    decoder = llama()
    decoder.layers[-1].gradient_checkpointing = True
    with only_at(decoder, torch.tensor([1])) as is_pruned:
        assert not is_pruned


def test_without_a_compiler_the_reason_names_what_to_install(fresh):
    fresh.setattr(native.shutil, "which", lambda name: None)
    assert native.kernels() is None
    assert native.why_off() == "there is no C compiler; install gcc (apt-get install gcc)"


def test_a_compiler_that_fails_is_quoted(fresh, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text(
        "#!/bin/sh\ncase $1 in --version) exit 0;; esac\necho 'x: error: no' >&2\nexit 1\n"
    )
    compiler.chmod(0o755)
    fresh.setattr(native.shutil, "which", lambda name: str(compiler))
    assert native.kernels() is None
    assert native.why_off() == f"{compiler} cannot build the kernels: x: error: no"


def test_the_kernels_can_be_switched_off(fresh):
    fresh.setenv("LORACLE_NATIVE", "off")
    assert native.kernels() is None
    assert native.why_off() == "switched off by LORACLE_NATIVE=off"


@needs_kernels
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of x86-64")
def test_the_kernels_can_be_built_for_a_processor_without_avx512(fresh, tmp_path):
    fresh.setenv("LORACLE_NATIVE_ARCH", "x86-64-v3")
    found = native.kernels()
    assert found is not None
    x = torch.randn(4, 32)
    normed, _ = found.rms_norm(x, torch.ones(32), 1e-6)
    expected = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(normed, expected)
    [library] = (tmp_path / "native").iterdir()
    if shutil.which("objdump"):
        code = subprocess.run(
            ["objdump", "-d", str(library)], capture_output=True, text=True, check=True
        )
        assert "%ymm" in code.stdout
        assert "%zmm" not in code.stdout
    # Another architecture is another library in the same cache.
    fresh.delenv("LORACLE_NATIVE_ARCH")
    assert native.kernels() is not None
    assert len(list((tmp_path / "native").iterdir())) == 2


def test_a_processor_that_the_compiler_does_not_know_is_named(fresh):
    if native.shutil.which("cc") is None:
        pytest.skip("needs a compiler")
    fresh.setenv("LORACLE_NATIVE_ARCH", "abacus")
    assert native.kernels() is None
    reason = native.why_off()
    assert reason is not None
    assert "LORACLE_NATIVE_ARCH=abacus" in reason


@needs_kernels
def test_the_kernels_are_built_once_and_kept_in_the_cache(fresh, tmp_path):
    assert native.kernels() is not None
    [library] = (tmp_path / "native").iterdir()
    before = library.stat().st_mtime_ns
    native._loaded.cache_clear()
    assert native.kernels() is not None
    assert library.stat().st_mtime_ns == before


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_tokens", "sizes", "rank"), [
    (1, (24, 40), 4), (37, (576, 192), 8), (300, (100, 33), 20), (130, (64, 1536), 1),
])  # fmt: skip
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_a_lora_update_and_its_gradients_are_their_definitions(
    kernels, dtype, num_tokens, sizes, rank, p
):
    in_size, out_size = sizes
    x, y, g = (
        random(num_tokens, size, dtype=dtype, seed=seed)
        for seed, size in enumerate((in_size, out_size, out_size))
    )
    a, b = (random(*shape, dtype=torch.float32) for shape in ((rank, in_size), (out_size, rank)))
    lora = native.LoraWeights(a, b, 0.7)
    drop = Drop(np.arange(num_tokens, dtype=np.uint64), 2, in_size, p, dtype) if p else None
    draws = None if drop is None else drop.draws
    dropped = x if drop is None else drop.copied(x)
    mask = (dropped == x).double()
    d_x = random(num_tokens, in_size, dtype=dtype, seed=7)
    expected_y = y.double() + 0.7 * dropped.double() @ a.double().t() @ b.double().t()
    expected_d_x = d_x.double() + mask * (0.7 * g.double() @ b.double() @ a.double())
    update = kernels.lora_forward(x, y, lora, draws)
    d_a, d_b = kernels.lora_backward(g, x, update, lora, d_x, draws)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for found, expected in (
        (y, expected_y),
        (d_x, expected_d_x),
        (d_a, 0.7 * (g.double() @ b.double()).t() @ dropped.double()),
        (d_b, 0.7 * g.double().t() @ dropped.double() @ a.double().t()),
    ):
        assert float((found.double() - expected).norm() / expected.norm()) < tolerance


@needs_kernels
def test_a_lora_gradient_does_not_depend_on_the_number_of_threads(kernels):
    x, g = (random(700, size, dtype=torch.float32) for size in (64, 96))
    lora = native.LoraWeights(torch.randn(8, 64), torch.randn(96, 8), 1.0)
    found = []
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        update = kernels.lora_forward(x, torch.zeros(700, 96), lora, None)
        found.append(kernels.lora_backward(g, x, update, lora, None, None))
    torch.set_num_threads(1)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loss_of_logits_and_its_gradient_are_torchs(kernels, dtype):
    logits = random(7, 1000, dtype=dtype) * 5
    token_ids, weights = torch.arange(7) * 100, torch.linspace(0, 2, 7)
    exact = logits.double().requires_grad_()
    expected = nn.functional.cross_entropy(exact, token_ids, reduction="none") * weights
    expected.sum().backward()
    losses = kernels.cross_entropy(logits, token_ids, weights)
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-6, atol=1e-6)
    close(logits, exact.grad, dtype)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_keys", [1, 7, 513, 1024])
def test_attentions_softmax_and_its_gradient_are_their_definitions(kernels, dtype, num_keys):
    scores, g = (random(3, 5, num_keys, dtype=dtype, seed=seed) for seed in (0, 1))
    is_hidden = random(5, num_keys, dtype=torch.float32, seed=2) < 0
    is_hidden[:, 0] = False
    bias = torch.zeros(5, num_keys, dtype=dtype).masked_fill_(is_hidden, -torch.inf)
    expected = torch.softmax(scores.double() * 0.5 + bias.double(), -1)
    kernels.masked_softmax(scores, bias, 0.5)
    close(scores, expected, dtype)
    assert not scores[:, is_hidden].any()
    p, d_p = scores.double(), g.double()
    expected = 0.5 * p * (d_p - (p * d_p).sum(-1, keepdim=True))
    kernels.softmax_backward(scores.view(-1, num_keys), g.view(-1, num_keys), 0.5)
    close(g, expected, dtype)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary_embeddings_and_their_gradient_are_transformers_own(kernels, dtype):
    from transformers.models.llama import modeling_llama

    own = modeling_llama.apply_rotary_pos_emb
    model = LlamaForCausalLM(LlamaConfig(**SIZE))
    cos, sin = (random(1, 9, 8, dtype=dtype, seed=seed) for seed in (1, 2))
    with rotated_by(rotation_of(kernels), model.model):
        assert modeling_llama.apply_rotary_pos_emb is not own
        found = rotated_with_gradient(modeling_llama.apply_rotary_pos_emb, cos, sin, dtype)
    assert modeling_llama.apply_rotary_pos_emb is own
    expected = rotated_with_gradient(own, cos.double(), sin.double(), dtype)
    for one, other in zip(found, expected, strict=True):
        close(one, other, dtype)


def rotated_with_gradient(rotation, cos: Tensor, sin: Tensor, dtype) -> list[Tensor]:
    """Queries and keys rotated, and the gradient of a weighted sum."""
    given = [
        random(1, 9, heads, 8, dtype=dtype).to(cos.dtype).transpose(1, 2).requires_grad_()
        for heads in (4, 2)
    ]
    rotated = rotation(*given, cos, sin)
    weights = [torch.linspace(-1, 1, x.numel()).to(x.dtype).view(x.shape) for x in rotated]
    torch.autograd.backward(rotated, weights)
    return [*(x.detach() for x in rotated), *(x.grad for x in given if x.grad is not None)]


def test_a_run_without_kernels_says_what_that_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORACLE_NATIVE", "off")
    told: list[str] = []
    reporter: Any = SimpleNamespace(emit=lambda kind, message: told.append(message))
    _tell_of_kernels("cuda", reporter)
    assert not told
    _tell_of_kernels("cpu", reporter)
    [message] = told
    assert "switched off by LORACLE_NATIVE=off" in message
    assert "about a fifth longer" in message
