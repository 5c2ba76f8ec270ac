"""liger-kernel's layers, interpreted on a CPU: the same as the model's own, or put back."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from loracle.model import fused_layers, layer_choice, liger_layers
from loracle.model.self_test import SelfTest, run_self_test
from tests.generation.test_generate import tiny_base

CPU = torch.device("cpu")

needs_liger = pytest.mark.skipif(
    find_spec(liger_layers.PACKAGE) is None, reason="needs the package liger-kernel"
)


@pytest.fixture
def interpreted(monkeypatch):
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    converted = interpreter._implicit_cvt

    def with_floats(argument):
        """Compiled kernels get numbers with a type; the interpreter leaves a float as it is."""
        if not isinstance(argument, float):
            return converted(argument)
        handle = interpreter.TensorHandle(np.array([argument], np.float32), tl.float32)
        return tl.tensor(handle, tl.float32)

    tl = pytest.importorskip("triton.language")
    monkeypatch.setattr(interpreter, "_implicit_cvt", with_floats)
    # The interpreter has no functions of CUDA's library.
    norms = pytest.importorskip("liger_kernel.ops.rms_norm")
    monkeypatch.setattr(norms, "rsqrt", lambda x: tl.math.rsqrt(x))


def counting(monkeypatch, module: str, name: str) -> list[str]:
    """The calls of one of liger-kernel's functions."""
    kind = getattr(pytest.importorskip(f"liger_kernel.ops.{module}"), name)
    calls: list[str] = []
    apply = kind.apply

    def counted(*arguments):
        calls.append(name)
        return apply(*arguments)

    monkeypatch.setattr(kind, "apply", counted)
    return calls


@needs_liger
@pytest.mark.parametrize(
    "kind", ["qwen3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("llama", "qwen2"))]
)
def test_liger_kernels_layers_pass_the_self_test(kind, interpreted, monkeypatch):
    base = tiny_base(kind)
    decoder = base.model.get_decoder()
    counts = [
        counting(monkeypatch, module, name)
        for module, name in (
            ("rms_norm", "LigerRMSNormFunction"),
            ("swiglu", "LigerSiLUMulFunction"),
            ("rope", "LigerRopeFunction"),
        )
    ]
    num_norms = 4 if kind == "qwen3" else 2
    num_layers = base.model.config.num_hidden_layers
    assert liger_layers.use(decoder) == num_layers * (num_norms + 1) + 1
    try:
        assert run_self_test(base).passed
    finally:
        liger_layers.leave(decoder)
    assert all(len(calls) >= num_layers for calls in counts)
    for calls in counts:
        calls.clear()
    assert run_self_test(base).passed
    assert not any(counts)


@needs_liger
@pytest.mark.slow
def test_the_base_gets_the_layers_that_pass(interpreted):
    base = tiny_base("qwen2")
    assert layer_choice.choose_layers(base, asked=True) == ()
    assert base.model.get_decoder() in fused_layers.taken_over
    assert layer_choice.choose_layers(base, asked=False) == ()
    assert base.model.get_decoder() not in fused_layers.taken_over


def test_on_a_processor_the_models_own_layers_are_used_without_a_word(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    base = tiny_base("qwen2")
    assert layer_choice.choose_layers(base, asked=True) == ()
    assert base.model.get_decoder() not in fused_layers.taken_over
    assert "are for GPUs, and the model is on cpu" in str(liger_layers.problem_with(CPU))


def test_a_gpu_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(liger_layers, "find_spec", lambda name: None)
    problem = liger_layers.problem_with(torch.device("cuda"))
    assert problem == "the package liger-kernel is not installed (pip install 'loracle[cuda]')"


@pytest.mark.parametrize("how", ["differ", "crash"])
def test_layers_that_fail_are_put_back_with_a_word(how, monkeypatch):
    base = tiny_base("qwen2")

    def use(decoder):
        fused_layers.taken_over[decoder] = fused_layers.TakenOver([], None)
        return 0

    def tested(base):
        if how == "crash":
            raise OSError("no C compiler")
        return SelfTest(False, "logits do NOT equal those of separate sequences")

    monkeypatch.setattr(liger_layers, "problem_with", lambda device: None)
    monkeypatch.setattr(liger_layers, "use", use)
    monkeypatch.setattr(layer_choice, "run_self_test", tested)
    (word,) = layer_choice.choose_layers(base, asked=True)
    expected = {
        "differ": "logits do NOT equal those of separate sequences",
        "crash": "it does not run on this machine (OSError: no C compiler)",
    }[how]
    assert word == f"layers by liger-kernel: {expected}; the model's own take their place"
    assert base.model.get_decoder() not in fused_layers.taken_over


def test_a_lack_of_memory_is_no_fault_of_the_layers(monkeypatch):
    def tested(base):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(liger_layers, "problem_with", lambda device: None)
    monkeypatch.setattr(liger_layers, "use", lambda decoder: 0)
    monkeypatch.setattr(layer_choice, "run_self_test", tested)
    with pytest.raises(torch.OutOfMemoryError):
        layer_choice.choose_layers(tiny_base("qwen2"), asked=True)
