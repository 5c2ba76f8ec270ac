"""Tiny random models and a readable tokenizer, so that the suite runs offline in minutes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from loracle.data.conversation import Conversation, Example, Message

START, END, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|unknown|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def tokenizer() -> Any:
    """One token a printable ASCII character, plus the ChatML markers: ids read as text."""
    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {text: i for i, text in enumerate([UNKNOWN, START, END, *characters])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    core.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNKNOWN,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[START],
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


CONFIGS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "sliding": (
        Qwen2Config,
        Qwen2ForCausalLM,
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
}


def model(kind: str = "llama", seed: int = 1, **changes: Any) -> Any:
    """A random model over the readable tokenizer's vocabulary, in float32."""
    config_class, model_class, extra = CONFIGS[kind]
    torch.manual_seed(seed)
    config = config_class(
        **{
            "vocab_size": len(tokenizer()),
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "initializer_range": 0.1,
            "bos_token_id": None,
            "pad_token_id": tokenizer().eos_token_id,
            "eos_token_id": tokenizer().eos_token_id,
            **extra,
            **changes,
        }
    )
    return model_class(config).eval()


def save_model(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """A model folder as a user would pass it to --model."""
    model(kind, **changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def example(question: str, answer: str, *, answers: tuple[str, ...] = (), id: str = "q") -> Example:
    messages = (Message("user", question), Message("assistant", answer))
    return Example(id, Conversation(messages), answers, "data.jsonl", 1)


def passage_examples(num_passages: int = 4, num_questions: int = 4) -> list[Example]:
    """Questions about passages: several share a passage, all share the template."""
    examples = []
    for p in range(num_passages):
        passage = f"Box {p} holds {p + 3} red pens, {p} cups. " * 2
        for q in range(num_questions):
            question = f"{passage}\nHow many in {'abcdefgh'[q] * (q + 1)}?"
            examples.append(example(question, f"{p * q} of {q}", id=f"p{p}q{q}"))
    return examples
