"""The model types that Loracle is tried on, as tiny random models; docs/models.md is made of them.

To write the page again: python -m tests.model.zoo
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from loracle.model.base import BaseModel, wrap_base
from loracle.model.self_test import SelfTest, run_self_test
from tests import tiny

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"

_COMMON: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,
    "attention_dropout": 0.0,
}
_LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "short_factor": [1.0 + 0.1 * i for i in range(6)],
    "long_factor": [2.0 + 0.3 * i for i in range(6)],
    "original_max_position_embeddings": 4096,
}
_LATENT = {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}
_ALTERNATING = ["sliding_attention", "full_attention"] * 2
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


@dataclass(frozen=True)
class Kind:
    """A model type under the names that users know.

    takes: whether the forest is expected to pass the self-test.
    targets: the linear layers that adapters are tried on.
    in_float64: gradients are compared in float64, because the model's own in float32 differ from
        those by 1e-4.
    """

    models: str
    model_type: str
    feature: str
    takes: bool
    settings: dict[str, Any] = field(default_factory=dict)
    targets: str | tuple[str, ...] = "all-linear"
    in_float64: bool = False


KINDS = {
    "qwen2": Kind("Qwen2, Qwen2.5", "qwen2", "grouped heads, biases on q, k and v", True),
    "qwen2.5-1m": Kind(
        "Qwen2.5-1M",
        "qwen2",
        "dual chunk attention requested",
        True,
        {"dual_chunk_attention_config": {"chunk_size": 262144, "local_size": 8192}},
    ),
    "qwen3": Kind("Qwen3", "qwen3", "norms of queries and keys", True, {"head_dim": 16}),
    "qwen3-moe": Kind(
        "Qwen3-MoE", "qwen3_moe", "mixture of experts", True, {"head_dim": 16, **_EXPERTS}
    ),
    "llama3": Kind(
        "Llama 3", "llama", "scaled rotary positions", True, {"rope_parameters": _LLAMA_3_ROPE}
    ),
    "mistral": Kind("Mistral", "mistral", "sliding window", True, {"sliding_window": 16}),
    "gemma2": Kind(
        "Gemma 2",
        "gemma2",
        "capped logits, alternating sliding windows",
        False,
        {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16},
    ),
    "gemma3": Kind(
        "Gemma 3",
        "gemma3_text",
        "alternating sliding windows, two rotary bases",
        True,
        {
            "head_dim": 16,
            "sliding_window": 16,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "phi3": Kind("Phi-3, Phi-4", "phi3", "joined projections", True),
    "smollm2": Kind("SmolLM2", "llama", "the embedded model", True, {"tie_word_embeddings": True}),
    "smollm3": Kind(
        "SmolLM3", "smollm3", "layers without positions", True, {"no_rope_layers": [1, 0, 1, 0]}
    ),
    "gpt-neox": Kind(
        "GPT-NeoX, Pythia",
        "gpt_neox",
        "attention parallel to the feed-forward layer",
        True,
        {"hidden_dropout": 0.0, "rope_pct": 0.5},
    ),
    "gpt-oss": Kind(
        "GPT-OSS",
        "gpt_oss",
        "attention sinks, mixture of experts",
        False,
        {"head_dim": 16, "sliding_window": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "lfm2": Kind(
        "LFM2",
        "lfm2",
        "hybrid: short convolutions",
        False,
        {"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False},
    ),
    "qwen3-next": Kind(
        "Qwen3-Next",
        "qwen3_next",
        "hybrid: recurrent layers (gated delta rule)",
        False,
        {
            "head_dim": 16,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "shared_expert_intermediate_size": 32,
            **_EXPERTS,
        },
    ),
    "phi3-longrope": Kind(
        "Phi-3-128k, Phi-4-mini",
        "phi3",
        "rotary positions by the longest row (longrope), sliding window",
        True,
        {
            "rope_parameters": _LONG_ROPE,
            "original_max_position_embeddings": 4096,
            "sliding_window": 16,
        },
    ),
    "ministral": Kind(
        "Ministral", "ministral", "sliding window", True, {"head_dim": 16, "sliding_window": 16}
    ),
    "mixtral": Kind(
        "Mixtral",
        "mixtral",
        "mixture of experts",
        True,
        {"num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "olmo2": Kind("OLMo 2", "olmo2", "norms behind the layers", True),
    "olmo3": Kind(
        "OLMo 3",
        "olmo3",
        "three of four layers with a sliding window",
        True,
        {"sliding_window": 16},
    ),
    "granite": Kind(
        "Granite 3",
        "granite",
        "logits, embeddings and residuals scaled",
        True,
        {
            "logits_scaling": 8.0,
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.1,
        },
    ),
    "cohere2": Kind(
        "Command R7B, Aya",
        "cohere2",
        "logits scaled, parallel layers, alternating sliding windows",
        True,
        {"sliding_window": 16, "layer_types": _ALTERNATING},
    ),
    "glm4": Kind("GLM-4", "glm4", "four norms a layer, half-rotary heads", True, {"head_dim": 16}),
    "starcoder2": Kind(
        "StarCoder2",
        "starcoder2",
        "sliding window, biases everywhere",
        True,
        {"sliding_window": 16, "residual_dropout": 0.0, "embedding_dropout": 0.0},
    ),
    "gemma3n": Kind(
        "Gemma 3n",
        "gemma3n_text",
        "capped logits, layers that share keys and values, inputs per layer",
        True,
        {
            "head_dim": 16,
            "sliding_window": 16,
            "vocab_size_per_layer_input": 300,
            "num_kv_shared_layers": 2,
            "layer_types": _ALTERNATING,
            "laurel_rank": 8,
            "hidden_size_per_layer_input": 16,
            "activation_sparsity_pattern": [0.0] * 4,
            "final_logit_softcapping": 3.0,
        },
        # Layers that share keys and values do not use their own.
        targets=("q_proj", "o_proj", "up_proj", "down_proj"),
    ),
    "gemma4": Kind(
        "Gemma 4",
        "gemma4_text",
        "capped logits, larger heads in some layers, inputs per layer",
        True,
        {
            "head_dim": 16,
            "sliding_window": 16,
            "layer_types": _ALTERNATING,
            "vocab_size_per_layer_input": 300,
            "hidden_size_per_layer_input": 16,
            "final_logit_softcapping": 3.0,
        },
        in_float64=True,
    ),
    "deepseek-v3": Kind(
        "DeepSeek-V2, -V3, Kimi K2",
        "deepseek_v3",
        "keys and values from a latent vector (MLA), mixture of experts",
        False,
        {
            **_LATENT,
            "num_key_value_heads": 4,
            "v_head_dim": 12,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "llama4": Kind(
        "Llama 4",
        "llama4_text",
        "attention in chunks, mixture of experts",
        False,
        {
            "head_dim": 16,
            "attention_chunk_size": 16,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 64,
            "interleave_moe_layer_step": 1,
            "no_rope_layers": [1, 1, 1, 0],
        },
        # peft cannot adapt its router, which gives two results.
        targets=("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
    "falcon": Kind(
        "Falcon",
        "falcon",
        "attention of its own",
        False,
        {"new_decoder_architecture": True, "num_kv_heads": 2, "hidden_dropout": 0.0},
    ),
    "falcon-h1": Kind(
        "Falcon-H1",
        "falcon_h1",
        "hybrid: Mamba beside attention in every layer",
        False,
        {"mamba_d_ssm": 96, "mamba_n_heads": 4, "mamba_d_head": 24, "mamba_d_state": 16},
        # peft refuses those of Mamba.
        targets=("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
}


def base_of(name: str, **changes: Any) -> BaseModel:
    """A random model of a kind over the readable tokenizer's vocabulary, in float32."""
    kind, tokenizer = KINDS[name], tiny.tokenizer()
    end = tokenizer.eos_token_id
    ends = {"bos_token_id": None, "eos_token_id": end, "pad_token_id": end}
    settings = {**_COMMON, **ends, "vocab_size": len(tokenizer), **kind.settings, **changes}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind.model_type, **settings))
    return wrap_base(name, model.float().eval(), tokenizer)


def row(name: str, result: SelfTest) -> str:
    """A line of the page's table."""
    kind = KINDS[name]
    how = "forest" if result.passed else "padded"
    why = "; ".join(result.notes) if result.passed else _reason(result.detail)
    return f"| {kind.models} | `{kind.model_type}` | {kind.feature} | {how} | {why} |"


def _reason(detail: str) -> str:
    """The self-test's own words, without figures that differ between machines."""
    detail = detail.removeprefix("the model cannot run a prefix forest: ")
    return re.sub(r" \(relative .*\)", "", detail)


def table() -> str:
    """The page's table, from a self-test of every kind."""
    head = (
        "| Models | Type | Tried with | Batches | Why, or what to know |\n|---|---|---|---|---|\n"
    )
    return head + "".join(row(name, run_self_test(base_of(name))) + "\n" for name in KINDS)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- table -->\n")
    _, _, after = rest.partition("<!-- end of table -->\n")
    PAGE.write_text(
        f"{before}<!-- table -->\n{table()}<!-- end of table -->\n{after}", encoding="utf-8"
    )
