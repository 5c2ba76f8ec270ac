"""The parts of a model that its data needs: tokenizer, end tokens, longest row. No weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from loracle.errors import ModelError


@dataclass(frozen=True)
class Tokenizing:
    """end_token_ids: every id that ends an answer. max_length_tokens: the longest sequence the
    model was made for; None where it declares none. config: transformers' config of the model."""

    tokenizer: Any
    config: Any
    end_token_ids: frozenset[int]
    max_length_tokens: int | None


def load_tokenizing(source: str, *, trust_remote_code: bool = False) -> Tokenizing:
    """Load them from a model's folder; the same as those of the loaded model.

    Raises:
        ModelError: not found, without a chat template, or without an end token.
    """
    from transformers import AutoConfig, GenerationConfig

    from loracle.model.base import declared_end_token_ids, load_tokenizer

    tokenizer = load_tokenizer(source, None, trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model {source}: its config cannot be loaded ({error})") from error
    try:
        generation = GenerationConfig.from_pretrained(source)
    except OSError:
        # A model may have none; then its config says how an answer ends.
        generation = GenerationConfig.from_model_config(config)
    text_config = config.get_text_config()
    return Tokenizing(
        tokenizer,
        config,
        declared_end_token_ids(generation, text_config, tokenizer),
        getattr(text_config, "max_position_embeddings", None),
    )


def chat_template_sha256(tokenizer: Any) -> str:
    """The hash (hex) of the template that renders conversations."""
    return hashlib.sha256(json.dumps(tokenizer.chat_template).encode()).hexdigest()
