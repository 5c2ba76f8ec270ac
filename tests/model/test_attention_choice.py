"""Which attention a model gets: the first that passes the self-test, and a word on the others."""

from __future__ import annotations

import dataclasses
import subprocess
from importlib.util import find_spec

import pytest
import torch

from loracle.forest.attention import triton_rows
from loracle.forest.attention.backends import backends_to_try
from loracle.model.attention_choice import choose_attention, choose_for_answering
from loracle.model.base import wrap_base
from loracle.report.table import summary_lines
from tests import tiny
from tests.model import zoo
from tests.small_run import make_world

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))
interpreted = pytest.mark.skipif(
    find_spec("triton") is None or torch.cuda.is_available(),
    reason="needs triton (pip install 'loracle[cuda]') and no GPU",
)


def order(asked, device, head_size=128, dtype=torch.bfloat16):
    return [
        p.backend for p in backends_to_try(asked, device, head_size, dtype) if p.problem is None
    ]


@pytest.fixture
def with_triton(monkeypatch):
    monkeypatch.setattr("loracle.forest.attention.backends.find_spec", lambda name: name)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_every_device_has_its_order(with_triton):
    assert order("auto", CPU) == ["spans"]
    assert order("auto", MPS) == ["dense"]
    assert order("auto", CUDA) == ["triton", "flex", "dense"]
    assert order("flex", CUDA) == ["flex", "dense"]
    assert order("dense", CUDA) == ["dense"]
    assert order("dense", CPU) == ["dense", "spans"]


def test_what_cannot_be_is_named_with_its_reason(with_triton, monkeypatch):
    def problem(*arguments):
        first, *_ = backends_to_try(*arguments)
        return first.problem

    assert "need a GPU" in problem("triton", CPU, 64, torch.float32)
    assert "heads of 512" in problem("triton", CUDA, 512, torch.float32)
    assert "float64" in problem("triton", CUDA, 64, torch.float64)
    assert "does not run on mps" in problem("flex", MPS, 64, torch.float32)
    monkeypatch.setattr("loracle.forest.attention.backends.find_spec", lambda name: None)
    assert "pip install 'loracle[cuda]'" in problem("triton", CUDA, 64, torch.float32)


def test_a_cpu_takes_spans_without_a_word():
    base, self_test = choose_attention(zoo.base_of("qwen2"))
    assert (base.attention, self_test.passed, self_test.replaced) == ("spans", True, ())


def test_dense_passes_on_a_cpu():
    base, self_test = choose_attention(zoo.base_of("qwen2"), "dense")
    assert (base.attention, self_test.passed, self_test.replaced) == ("dense", True, ())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has the backward")
def test_flex_on_a_cpu_is_replaced_since_it_cannot_train_there():
    base, self_test = choose_attention(zoo.base_of("qwen2"), "flex")
    assert (base.attention, self_test.passed) == ("spans", True)
    (note,) = self_test.replaced
    assert note.startswith("attention by flex: ")
    assert "does not support backward on CPU" in note
    assert note.endswith("; spans takes its place")


@interpreted
@pytest.mark.parametrize("kind", ["qwen2", "sliding"])
def test_the_triton_kernels_pass_the_self_test(kind):
    base, self_test = choose_attention(tiny_base(kind), "triton")
    assert (base.attention, self_test.passed, self_test.replaced) == ("triton", True, ())
    assert self_test.detail.endswith("; attention by triton")


@interpreted
def test_kernels_with_a_wrong_gradient_are_replaced(monkeypatch):
    backward = triton_rows._TreeAttention.backward

    def without_keys(ctx, *gradients):
        d_query, d_key, *others = backward(ctx, *gradients)
        return d_query, torch.zeros_like(d_key), *others

    monkeypatch.setattr(triton_rows._TreeAttention, "backward", staticmethod(without_keys))
    base, self_test = choose_attention(tiny_base("qwen2"), "triton")
    assert (base.attention, self_test.passed) == ("spans", True)
    (note,) = self_test.replaced
    assert note.startswith("attention by triton: forest logits and gradients do NOT equal")


def test_what_a_compiler_lacks_is_no_end_of_the_run(monkeypatch):
    """As where Python's headers are missing: Triton cannot build what starts its kernels."""

    def build(*arguments):
        raise subprocess.CalledProcessError(1, ["gcc", "cuda_utils.c"])

    monkeypatch.setattr("loracle.forest.attention.flex_rows.attend", build)
    base, self_test = choose_attention(zoo.base_of("qwen2"), "flex")
    assert (base.attention, self_test.passed) == ("spans", True)
    (note,) = self_test.replaced
    assert "does not run on this machine (CalledProcessError: Command '['gcc'" in note


@interpreted
def test_answers_in_another_precision_are_tested_in_it(monkeypatch):
    """float32 passes; what computes in bfloat16 is wrong here, and only answers are in bfloat16."""
    base = dataclasses.replace(tiny_base("qwen2"), attention="triton")
    assert choose_for_answering(base, "auto", "triton") is None
    assert choose_for_answering(dataclasses.replace(base, attention="spans"), "bfloat16") is None
    attend = triton_rows.attend

    def wrong_in_half(query, key, value, kernel, scale):
        output = attend(*(t.float() for t in (query, key, value)), kernel, scale)
        return output.to(value.dtype).roll(1, 0) if value.dtype == torch.bfloat16 else output

    monkeypatch.setattr(triton_rows, "attend", wrong_in_half)
    choice = choose_for_answering(base, "bfloat16", "triton")
    assert choice is not None
    assert (choice.base.attention, choice.base.dtype) == ("spans", torch.bfloat16)
    assert choice.self_test.replaced[0].startswith("attention by triton: forest logits")
    assert next(base.model.parameters()).dtype == torch.float32


def test_a_replaced_attention_stands_in_the_log_and_in_the_results(tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    world = make_world(tmp_path)
    results = world.start("model.attention=triton", "model.device=cpu")
    words = (
        "attention by triton: Triton kernels need a GPU (with TRITON_INTERPRET=1 a CPU runs them, "
        "very slowly); spans takes its place"
    )
    assert results["model"]["attention"] == "spans"
    assert list(results["model"]["attention_replaced"]) == [words]
    assert f"warning: {words}" in (world.run / "pipeline.log").read_text()
    assert words in "\n".join(summary_lines(results))


def test_a_model_without_a_forest_is_told_once():
    name = next(name for name, kind in zoo.KINDS.items() if not kind.takes)
    _, self_test = choose_attention(zoo.base_of(name))
    assert not self_test.passed
    assert not self_test.replaced


def tiny_base(kind):
    """A model small enough for interpreted kernels, with a window in one of its layers."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    return wrap_base(kind, tiny.model(kind, num_hidden_layers=2, **sizes), tiny.tokenizer())
