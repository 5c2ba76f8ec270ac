"""Rules of the settings that transformers' TrainingArguments and peft's LoraConfig define, which
every tool passes on under the same name."""

from __future__ import annotations

from collections.abc import Mapping

from loracle.migration import rules

SHARED_RULES: Mapping[str, rules.Rule] = {
    "model_revision": rules.text("model.revision"),
    "bf16": rules.precision,
    "fp16": rules.precision,
    "lora_alpha": rules.whole("lora.alpha"),
    "lora_dropout": rules.number("lora.dropout"),
    "neftune_noise_alpha": rules.refused_if_on("noise on the embeddings is not available"),
    "learning_rate": rules.number("training.learning_rate"),
    "weight_decay": rules.number("training.weight_decay"),
    "adam_beta1": rules.number("training.adam_beta1"),
    "adam_beta2": rules.number("training.adam_beta2"),
    "adam_epsilon": rules.number("training.adam_epsilon"),
    "max_grad_norm": rules.gradient_norm,
    "seed": rules.seed,
}
