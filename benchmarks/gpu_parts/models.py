"""Models with random weights made on the device, in the shapes of known ones, and rows for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from gpu_parts.measuring import Bench
from loracle.forest.ordering import prefix_groups
from loracle.forest.trie import IntArray, Sequences
from loracle.model.base import BaseModel, wrap_base

ROWS = Path(__file__).resolve().parent.parent / "gpu_rows.json"
LORA = {
    "r": 8,
    "alpha": 16,
    "dropout": 0.0,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
}
_END = 1

_COMMON = {"num_hidden_layers": 28, "num_key_value_heads": 4, "tie_word_embeddings": False}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-7b": {
        **_COMMON,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "vocab_size": 152064,
    },
    "qwen2.5-0.5b": {
        **_COMMON,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
}
_TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}


def shape_of(bench: Bench, name: str, **changes: Any) -> dict[str, Any]:
    """The settings of a model's config; small ones for a trial on a CPU."""
    return {**SHAPES[name], **(_TINY if bench.is_tiny else {}), **changes}


def make_model(bench: Bench, shape: dict[str, Any], dtype: torch.dtype) -> Any:
    """A Qwen2 model with random weights, made where it stays."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        **shape,
        max_position_embeddings=32768,
        rope_theta=1e6,
        bos_token_id=None,
        eos_token_id=_END,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with bench.device:
            return Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def make_base(bench: Bench, name: str, *, quantization: str = "none", **changes: Any) -> BaseModel:
    """As Loracle would load it."""
    model = make_model(bench, shape_of(bench, name, **changes), bench.half)
    if quantization != "none":
        quantise(model, quantization, bench)
    return wrap_base(name, model, SimpleNamespace(eos_token_id=_END, pad_token_id=0))


def quantise(model: Any, quantization: str, bench: Bench) -> None:
    """Pack the layers' products as bitsandbytes does when a model is loaded quantised."""
    import bitsandbytes as bnb

    for parent in list(model.model.layers.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                options: dict[str, Any] = {"bias": layer.bias is not None}
                if quantization == "int8":
                    packed = bnb.nn.Linear8bitLt(
                        layer.in_features, layer.out_features, has_fp16_weights=False, **options
                    )
                    packed.weight = bnb.nn.Int8Params(
                        layer.weight.data.half().cpu(), requires_grad=False, has_fp16_weights=False
                    )
                else:
                    packed = bnb.nn.Linear4bit(
                        layer.in_features,
                        layer.out_features,
                        compute_dtype=bench.half,
                        quant_type="nf4",
                        **options,
                    )
                    packed.weight = bnb.nn.Params4bit(
                        layer.weight.data.cpu(), requires_grad=False, quant_type="nf4"
                    )
                packed.bias = layer.bias
                setattr(parent, name, packed.to(bench.device))


@dataclass(frozen=True)
class Rows:
    """Rows as token ids, and how many tokens belong to every row's prompt."""

    token_ids: list[list[int]]
    num_prompt_tokens: list[int]

    def sequences(self, start: int, stop: int) -> Sequences:
        """For Loracle: only answers are learned."""
        chosen = range(start, stop)
        weights = [
            [
                float(place >= self.num_prompt_tokens[row])
                for place in range(len(self.token_ids[row]))
            ]
            for row in chosen
        ]
        return Sequences.of([self.token_ids[row] for row in chosen], weights)

    @property
    def groups(self) -> IntArray:
        """Which rows share a prefix, for the order of batches."""
        return prefix_groups(Sequences.of(self.prompts(len(self.token_ids))))

    def prompts(self, num_rows: int) -> list[list[int]]:
        pairs = zip(self.token_ids[:num_rows], self.num_prompt_tokens, strict=False)
        return [ids[:length] for ids, length in pairs]


def make_rows(bench: Bench, vocabulary: int, num_rows: int, *, sharing: bool) -> Rows:
    """Rows of the lengths of gpu_rows.json, group after group; random token ids.

    sharing: the rows of a group have its passage in common; otherwise only the template.
    """
    lengths = json.loads(ROWS.read_text())
    shrink = 16 if bench.is_tiny else 1
    draw = np.random.default_rng(0)

    def tokens(number: int) -> list[int]:
        return draw.integers(2, vocabulary, max(1, number // shrink)).tolist()

    template = tokens(lengths["template"])
    rows, prompts = [], []
    while len(rows) < num_rows:
        for group in lengths["groups"]:
            passage = tokens(group["passage"])
            for question, answer in group["rows"]:
                context = passage if sharing else tokens(group["passage"])
                prompt = [*template, *context, *tokens(question)]
                prompts.append(len(prompt))
                rows.append([*prompt, *tokens(answer * shrink)])
    return Rows(rows[:num_rows], prompts[:num_rows])
