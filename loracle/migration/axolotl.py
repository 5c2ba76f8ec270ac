"""axolotl's YAML:

    base_model: NousResearch/Llama-3.2-1B
    datasets:
      - path: data/chats.jsonl
        type: chat_template
    adapter: lora

Source: axolotl's config reference; its rows' forms are in axolotl_data.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loracle.migration import rules
from loracle.migration.axolotl_data import add_datasets
from loracle.migration.draft import Draft, written
from loracle.migration.not_needed import NOT_NEEDED
from loracle.migration.places import Places
from loracle.migration.shared_rules import SHARED_RULES
from loracle.migration.source import TheirFile
from loracle.plan.foreign import Tool

_TOOL = Tool.AXOLOTL
_OWN_TRACKERS = {"wandb_project": "wandb", "mlflow_tracking_uri": "mlflow"}


def _template(draft: Draft, key: str, value: Any) -> None:
    if value == "tokenizer_default":
        draft.not_needed.append(key)
    else:
        rules.own_template(draft, key, value)


def _special_tokens(draft: Draft, key: str, value: Any) -> None:
    if isinstance(value, Mapping) and set(value) <= {"pad_token"}:
        draft.not_needed.append(key)
    else:
        draft.refuse(written(key, value), "the tokenizer stays as it is; change it in its folder")


def _sequence_length(draft: Draft, key: str, value: Any) -> None:
    rules.whole("training.max_length")(draft, key, value)
    strategy = str(draft.take("excess_length_strategy") or "drop")
    if strategy == "drop":
        draft.keep(f"rows above {key} are dropped", "training.overlong", "drop")
    else:
        reason = "the middle of the longest passage is cut, not the end of the row"
        theirs = written("excess_length_strategy", strategy)
        draft.change(theirs, "training.overlong", "shorten", reason)


def _adapter(draft: Draft, key: str, value: Any) -> None:
    if value not in ("lora", "qlora"):
        draft.refuse(written(key, value), f"{rules.ONLY_LORA}; the plan uses LoRA")
    elif value == "lora" or rules.as_bool(draft.settings.get("load_in_4bit")):
        draft.not_needed.append(key)
    else:
        rules.quantized(draft, "adapter: qlora", 4)


def _quantized(bits: int) -> rules.Rule:
    def rule(draft: Draft, key: str, value: Any) -> None:
        if rules.as_bool(value):
            rules.quantized(draft, written(key, value), bits)
        else:
            draft.not_needed.append(key)

    return rule


def _target_modules(draft: Draft, key: str, value: Any) -> None:
    if rules.as_bool(draft.settings.get("lora_target_linear")):
        draft.note_change(
            key, "lora.target_modules = all-linear", "lora_target_linear has them too"
        )
    elif isinstance(value, str):
        draft.keep(key, "lora.target_modules", value)
    else:
        draft.keep(key, "lora.target_modules", rules.as_list(value))


def _target_linear(draft: Draft, key: str, value: Any) -> None:
    if rules.as_bool(value):
        draft.keep(key, "lora.target_modules", "all-linear")
    else:
        draft.not_needed.append(key)


def _initial_weights(draft: Draft, key: str, value: Any) -> None:
    if value in (True, "true"):
        draft.not_needed.append(key)
    else:
        draft.refuse(written(key, value), "adapters always start at zero")


def _checkpointing(draft: Draft, key: str, value: Any) -> None:
    on = rules.as_bool(value)
    if on is not None:
        draft.keep(key, "training.gradient_checkpointing", on)
    else:
        reason = "activations are recomputed, not moved to other memory"
        draft.change(written(key, value), "training.gradient_checkpointing", True, reason)


def _plugins(draft: Draft, key: str, value: Any) -> None:
    """Plugins that only speed up training do not matter."""
    faster = ("liger", "cut_cross_entropy")
    others = [name for name in rules.as_list(value) if not any(part in name for part in faster)]
    if others:
        draft.refuse(f"{key}: {', '.join(others)}", "axolotl's plugins do not run here")
    else:
        draft.not_needed.append(key)


def _tracker(draft: Draft, key: str, value: Any) -> None:
    name = _OWN_TRACKERS[key]
    reason = f"follow a run with --set trackers={name}; it needs loracle[{name}]"
    draft.note_change(written(key, value), "trackers = []", reason)


_RULES: Mapping[str, rules.Rule] = {
    **SHARED_RULES,
    "trust_remote_code": rules.switch("model.trust_remote_code"),
    "chat_template": _template,
    "chat_template_jinja": _template,
    "default_system_message": rules.refused_if_on(
        "write it into the rows, as their system message"
    ),
    "special_tokens": _special_tokens,
    "tokens": rules.refused_if_on("the tokenizer stays as it is; change it in its folder"),
    "adapter": _adapter,
    "load_in_4bit": _quantized(4),
    "load_in_8bit": _quantized(8),
    "gptq": rules.refused_if_on("name the model without quantization"),
    "bfloat16": rules.precision,
    "float16": rules.precision,
    "lora_r": rules.whole("lora.r"),
    "lora_target_modules": _target_modules,
    "lora_target_linear": _target_linear,
    "lora_modules_to_save": rules.refused_if_on(rules.ONLY_LORA),
    "lora_model_dir": rules.refused_if_on(
        "training starts from a new adapter; merge this adapter into the base first"
    ),
    "peft_use_rslora": rules.passed_to_peft("use_rslora"),
    "peft_use_dora": rules.passed_to_peft("use_dora"),
    "peft_init_lora_weights": _initial_weights,
    "loraplus_lr_ratio": rules.refused_if_on("one learning rate for the whole adapter"),
    "sequence_len": _sequence_length,
    "train_on_inputs": rules.refused_if_on("only answers are used for training"),
    "noisy_embedding_alpha": rules.refused_if_on("noise on the embeddings is not available"),
    "rl": rules.refused_unless([], "a plan trains by supervised fine-tuning only"),
    "pretraining_dataset": rules.refused_unless(
        [], "only questions and answers are used for training"
    ),
    "unfrozen_parameters": rules.refused_unless([], rules.ONLY_LORA),
    "rope_scaling": rules.refused_unless([], "set it in the model's config.json"),
    "early_stopping_patience": rules.refused_if_on("every candidate is trained to the end"),
    "dataset_exact_deduplication": rules.refused_if_on(
        "`loracle check` lists repeated rows; they are kept"
    ),
    "curriculum_sampling": rules.refused_if_on("rows are shuffled by the seed"),
    "cosine_min_lr_ratio": rules.refused_if_on("the cosine ends at 0"),
    "cosine_constant_lr_ratio": rules.refused_if_on("the cosine ends at 0"),
    "lr_scheduler_kwargs": rules.refused_unless(
        [], "schedules have no settings besides the warm-up"
    ),
    "lr_groups": rules.refused_unless([], "one learning rate for the whole adapter"),
    "lr_scheduler": rules.schedule,
    "optimizer": rules.optimizer,
    "gradient_checkpointing": _checkpointing,
    "plugins": _plugins,
    "wandb_project": _tracker,
    "mlflow_tracking_uri": _tracker,
}


def migrate(theirs: TheirFile, places: Places) -> Draft:
    """The plan for an axolotl file, and the account of the migration."""
    draft = Draft(theirs.settings)
    rules.carry_model(draft, places, "base_model")
    for key, section in (("datasets", "candidates"), ("test_datasets", "evaluation")):
        add_datasets(draft, places, key, section)
    rules.each_a_candidate(draft, "datasets", _TOOL)
    if draft.settings.get("adapter") in (None, ""):
        draft.refuse(
            "adapter: not set", "axolotl would train all weights; the plan trains a LoRA adapter"
        )
    rules.apply_rules(draft, _RULES)
    rules.training_length(draft, "num_epochs", 1.0, _TOOL)
    _batch(draft)
    _defaults(draft)
    rules.hold_rows_out(draft, "val_set_size", _TOOL)
    draft.skip(NOT_NEEDED[_TOOL])
    rules.list_unknown(draft, _TOOL)
    return draft


def _batch(draft: Draft) -> None:
    total = rules.as_number(draft.take("batch_size"))
    if total is None:
        keys = ("micro_batch_size", "gradient_accumulation_steps")
        rules.batch_size(draft, *keys, (1, 1), 1)
    else:
        draft.keep("batch_size", "training.batch_size", int(total))
        draft.skip(["micro_batch_size", "gradient_accumulation_steps"])


def _defaults(draft: Draft) -> None:
    """axolotl's defaults."""
    for key, ours, value in (
        ("lora_dropout", "lora.dropout", 0.0),
        ("lr_scheduler", "training.schedule", "cosine"),
        ("warmup_ratio", "training.warmup_ratio", rules.WARMUP_RATIO),
        ("max_grad_norm", "training.max_grad_norm", 1.0),
        ("sequence_len", "training.max_length", 512),
    ):
        rules.default(draft, key, ours, value, _TOOL)
