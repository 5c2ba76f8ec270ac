"""LLaMA-Factory's training YAML:

    model_name_or_path: Qwen/Qwen2.5-7B-Instruct
    dataset: identity,alpaca_en_demo        # entries of dataset_dir/dataset_info.json
    template: qwen
    finetuning_type: lora

Source: LLaMA-Factory's hparams (data_args.py, finetuning_args.py, model_args.py) and transformers'
TrainingArguments, whose defaults apply.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracle.migration import rules
from loracle.migration.draft import Draft
from loracle.migration.not_needed import NOT_NEEDED
from loracle.migration.places import Places
from loracle.migration.shared_rules import SHARED_RULES
from loracle.migration.source import TheirFile
from loracle.plan import nearest
from loracle.plan.foreign import Tool

_TOOL = Tool.LLAMA_FACTORY
_REGISTRY = "dataset_info.json"


def _thinking(draft: Draft, key: str, value: Any) -> None:
    draft.keep(key, "model.chat_template_kwargs", {"enable_thinking": bool(rules.as_bool(value))})


def _cutoff(draft: Draft, key: str, value: Any) -> None:
    rules.whole("training.max_length")(draft, key, value)
    reason = "the middle of the longest passage is cut, not the end of the row"
    draft.change(f"rows above {key}", "training.overlong", "shorten", reason)


def _history(draft: Draft, key: str, value: Any) -> None:
    draft.keep(key, "training.train_on", "last" if rules.as_bool(value) else "assistant")


def _checkpointing(draft: Draft, key: str, value: Any) -> None:
    rules.switch("training.gradient_checkpointing")(draft, key, value)


def _target(draft: Draft, key: str, value: Any) -> None:
    names = rules.as_list(value)
    everything = names in (["all"], ["all-linear"])
    draft.keep(key, "lora.target_modules", "all-linear" if everything else names)


_RULES: Mapping[str, rules.Rule] = {
    **SHARED_RULES,
    "trust_remote_code": rules.switch("model.trust_remote_code"),
    "enable_thinking": _thinking,
    "template": rules.own_template,
    "stage": rules.refused_unless(["sft"], "a plan trains by supervised fine-tuning (sft)"),
    "finetuning_type": rules.refused_unless(["lora"], f"{rules.ONLY_LORA}; the plan uses LoRA"),
    "quantization_bit": rules.quantization_bits,
    "quantization_method": rules.refused_unless(
        ["bnb", "bitsandbytes"], "only bitsandbytes is supported"
    ),
    "pure_bf16": rules.precision,
    "lora_rank": rules.whole("lora.r"),
    "lora_target": _target,
    "use_rslora": rules.passed_to_peft("use_rslora"),
    "use_dora": rules.passed_to_peft("use_dora"),
    "additional_target": rules.refused_if_on(rules.ONLY_LORA),
    "loraplus_lr_ratio": rules.refused_if_on("one learning rate for the whole adapter"),
    "pissa_init": rules.refused_if_on("adapters always start at zero"),
    "adapter_name_or_path": rules.refused_if_on(
        "training starts from a new adapter; merge this adapter into the base first"
    ),
    "create_new_adapter": rules.refused_if_on("training always starts from a new adapter"),
    "use_galore": rules.refused_if_on(rules.ONLY_LORA),
    "use_badam": rules.refused_if_on(rules.ONLY_LORA),
    "rope_scaling": rules.refused_if_on("set it in the model's config.json"),
    "cutoff_len": _cutoff,
    "mask_history": _history,
    "train_on_prompt": rules.refused_if_on("only answers are used for training"),
    "streaming": rules.refused_if_on("datasets are read as a whole; use max_samples"),
    "mix_strategy": rules.refused_unless(["concat"], "each dataset is a separate candidate"),
    "interleave_probs": rules.refused_if_on("each dataset is a separate candidate"),
    "disable_shuffling": rules.refused_if_on("rows are shuffled by the seed"),
    "early_stopping_steps": rules.refused_if_on("every candidate is trained to the end"),
    "lr_scheduler_type": rules.schedule,
    "lr_scheduler_kwargs": rules.refused_if_on("schedules have no settings besides the warm-up"),
    "optim": rules.optimizer,
    "gradient_checkpointing": _checkpointing,
    "report_to": rules.trackers,
    "max_new_tokens": rules.whole("generation.max_new_tokens"),
}


def migrate(theirs: TheirFile, places: Places) -> Draft:
    """The plan for a LLaMA-Factory file, and the account of the migration."""
    draft = Draft(theirs.settings)
    hub = "ms" if rules.as_bool(theirs.environment.get("USE_MODELSCOPE_HUB", "0")) else "hf"
    rules.carry_model(draft, places, "model_name_or_path", on_modelscope=hub == "ms")
    _datasets(draft, places, "dataset", "candidates", hub)
    _datasets(draft, places, "eval_dataset", "evaluation", hub)
    rules.each_a_candidate(draft, "dataset", _TOOL)
    if (folder := draft.take("dataset_dir")) is not None:
        draft.keep_as("dataset_dir", "the folder of every dataset", folder)
    if (limit := draft.take("max_samples")) is not None:
        draft.keep_as("max_samples", "limit of every dataset", limit)
    rules.apply_rules(draft, _RULES)
    rules.training_length(draft, "num_train_epochs", 3.0, _TOOL)
    processes = rules.as_number(theirs.environment.get("NPROC_PER_NODE", "1")) or 1
    rules.batch_size(
        draft,
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        (8, 1),
        int(processes),
    )
    _defaults(draft)
    rules.hold_rows_out(draft, "val_size", _TOOL)
    draft.skip(NOT_NEEDED[_TOOL])
    rules.list_unknown(draft, _TOOL)
    return draft


def _datasets(draft: Draft, places: Places, key: str, section: str, hub: str) -> None:
    """The entries of a list of datasets."""
    value = draft.take(key)
    if value in (None, ""):
        return
    names = rules.as_list(value)
    limit = rules.as_number(draft.settings.get("max_samples"))
    for name in names:
        entry = _entry(draft, places, key, name, hub)
        if limit and limit > 0:
            entry["limit"] = int(limit)
        draft.keep_entry(f"{key} {name}", section, entry)


def _entry(draft: Draft, places: Places, key: str, name: str, hub: str) -> dict[str, Any]:
    folder = str(draft.settings.get("dataset_dir") or "data")
    if folder == "ONLINE":
        return {"path": f"{hub}://{name}"}
    registry = places.find(f"{folder}/{_REGISTRY}")
    if registry is None:
        draft.refuse(
            f"{key}: {name}",
            f"found no {folder}/{_REGISTRY} relative to this folder or to the file's folder; "
            f"correct the path in the plan, PATH/{_REGISTRY}#{name}",
        )
        return {"path": f"{places.in_plan(Path(folder) / _REGISTRY)}#{name}"}
    if problem := _registry_problem(registry, name):
        draft.refuse(f"{key}: {name}", problem)
    return {"path": f"{places.in_plan(registry)}#{name}"}


def _registry_problem(registry: Path, name: str) -> str | None:
    """Why the registry has no such entry, or None."""
    try:
        entries = json.loads(registry.read_bytes())
    except (OSError, ValueError) as error:
        return f"{registry} cannot be read as JSON: {error}"
    if isinstance(entries, dict) and name in entries:
        return None
    near = nearest(name, entries) if isinstance(entries, dict) else None
    hint = f"did you mean {near}?" if near else "add it there, or name a file in the plan"
    return f"{registry} has no such entry; {hint}"


def _defaults(draft: Draft) -> None:
    """LLaMA-Factory's defaults."""
    rank = draft.tree.get("lora", {}).get("r", 8)
    for key, ours, value in (
        ("lora_rank", "lora.r", 8),
        ("lora_alpha", "lora.alpha", rank * 2),
        ("lora_dropout", "lora.dropout", 0.0),
        ("learning_rate", "training.learning_rate", 5e-5),
        ("lr_scheduler_type", "training.schedule", "linear"),
        ("warmup_ratio", "training.warmup_ratio", 0.0),
        ("max_grad_norm", "training.max_grad_norm", 1.0),
        ("cutoff_len", "training.max_length", 2048),
    ):
        rules.default(draft, key, ours, value, _TOOL)
