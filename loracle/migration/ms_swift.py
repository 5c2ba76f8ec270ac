r"""ms-swift's command, in a shell script or as the YAML of --config:

    CUDA_VISIBLE_DEVICES=0 swift sft \
        --model Qwen/Qwen2.5-7B-Instruct --train_type lora \
        --dataset AI-ModelScope/alpaca-gpt4-data-zh#500 data/own.jsonl

Source: ms-swift's Command-line-parameters, versions 2 to 4; ids are ModelScope's unless use_hf.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loracle.migration import rules
from loracle.migration.draft import Draft, written
from loracle.migration.not_needed import NOT_NEEDED
from loracle.migration.places import Places, first_row, is_hub_id
from loracle.migration.shared_rules import SHARED_RULES
from loracle.migration.source import TheirFile
from loracle.plan.foreign import Tool

_TOOL = Tool.MS_SWIFT
_LEAST_BATCH = 16

# Names of versions 2 and 4 -> those of version 3.
_OTHER_NAMES = {
    "model_id_or_path": "model",
    "sft_type": "train_type",
    "tuner_type": "train_type",
    "lora_target_modules": "target_modules",
    "batch_size": "per_device_train_batch_size",
    "lora_dropout_p": "lora_dropout",
    "dtype": "torch_dtype",
    "quantization_bit": "quant_bits",
    "dataset_test_ratio": "split_dataset_ratio",
    "custom_train_dataset_path": "dataset",
    "custom_val_dataset_path": "val_dataset",
}


def _target(draft: Draft, key: str, value: Any) -> None:
    if draft.settings.get("target_regex"):
        draft.not_needed.append(key)
        return
    names = rules.as_list(value)
    everything = [name.lower() for name in names] in (["all-linear"], ["all"], ["auto"])
    draft.keep(key, "lora.target_modules", "all-linear" if everything else names)


def _initial_weights(draft: Draft, key: str, value: Any) -> None:
    if rules.as_bool(value):
        draft.not_needed.append(key)
    else:
        draft.refuse(written(key, value), "adapters always start at zero")


def _overlong(draft: Draft, key: str, value: Any) -> None:
    if value == "delete":
        draft.keep(key, "training.overlong", "drop")
    else:
        reason = (
            "a longer row loses the middle of its longest passage, never the question or the answer"
        )
        draft.change(written(key, value), "training.overlong", "shorten", reason)


def _loss(draft: Draft, key: str, value: Any) -> None:
    turns = {"default": "assistant", "last_round": "last"}
    if value in turns:
        draft.keep(key, "training.train_on", turns[value])
    else:
        draft.refuse(written(key, value), "all tokens of an answer have the same weight")


_RULES: Mapping[str, rules.Rule] = {
    **SHARED_RULES,
    "template": rules.own_template,
    "system": rules.refused_unless([], "write it into the rows, as their system message"),
    "train_type": rules.refused_unless(["lora"], f"{rules.ONLY_LORA}; the plan uses LoRA"),
    "torch_dtype": rules.weights_precision,
    "quant_bits": rules.quantization_bits,
    "lora_rank": rules.whole("lora.r"),
    "lora_bias": rules.refused_unless(["none"], "biases are not trained"),
    "target_modules": _target,
    "target_regex": rules.text("lora.target_modules"),
    "modules_to_save": rules.refused_if_on(rules.ONLY_LORA),
    "init_weights": _initial_weights,
    "use_rslora": rules.passed_to_peft("use_rslora"),
    "use_dora": rules.passed_to_peft("use_dora"),
    "lorap_lr_ratio": rules.refused_if_on("one learning rate for the whole adapter"),
    "adapters": rules.refused_unless(
        [], "training starts from a new adapter; merge this adapter into the base first"
    ),
    "max_length": rules.whole("training.max_length"),
    "truncation_strategy": _overlong,
    "loss_scale": _loss,
    "streaming": rules.refused_if_on("datasets are read as a whole; use limit in the plan"),
    "interleave_prob": rules.refused_unless([], "each dataset is a separate candidate"),
    "model_author": rules.refused_unless(
        [], "fill in {{AUTHOR}} of the self-cognition rows yourself"
    ),
    "model_name": rules.refused_unless([], "fill in {{NAME}} of the self-cognition rows yourself"),
    "lr_scheduler_type": rules.schedule,
    "lr_scheduler_kwargs": rules.refused_unless(
        [], "schedules have no settings besides the warm-up"
    ),
    "optim": rules.optimizer,
    "gradient_checkpointing": rules.switch("training.gradient_checkpointing"),
    "report_to": rules.trackers,
    "max_new_tokens": rules.whole("generation.max_new_tokens"),
    "num_beams": rules.whole("generation.num_beams"),
    "repetition_penalty": rules.number("generation.repetition_penalty"),
}


@dataclass(frozen=True)
class _Reading:
    """The settings that reading one of their datasets depends on. hub: "hf" or "ms"."""

    places: Places
    hub: str
    columns: Mapping[str, str]


def migrate(theirs: TheirFile, places: Places) -> Draft:
    """The plan for an ms-swift command, and the account of the migration."""
    draft = Draft({_OTHER_NAMES.get(key, key): value for key, value in theirs.settings.items()})
    for key in theirs.settings.keys() & _OTHER_NAMES.keys():
        draft.keep_as(key, "its name in ms-swift 3", _OTHER_NAMES[key])
    if " rlhf" in theirs.command or " pt" in theirs.command:
        draft.refuse(theirs.command, "a plan trains by supervised fine-tuning (swift sft)")
    use_hf = draft.take("use_hf")
    if use_hf is None:
        use_hf = theirs.environment.get("USE_HF", "false")
    else:
        draft.keep_as("use_hf", "the hub of every id", use_hf)
    reading = _Reading(places, "hf" if rules.as_bool(use_hf) else "ms", _columns(draft))
    rules.carry_model(
        draft,
        places,
        "model",
        on_modelscope=reading.hub == "ms",
        note="use_hf is not set: a model on ModelScope",
    )
    _datasets(draft, reading, "dataset", "candidates")
    _datasets(draft, reading, "val_dataset", "evaluation")
    rules.each_a_candidate(draft, "dataset", _TOOL)
    rules.apply_rules(draft, _RULES)
    rules.training_length(draft, "num_train_epochs", 3.0, _TOOL)
    _batch(draft, theirs.environment)
    _defaults(draft)
    rules.hold_rows_out(draft, "split_dataset_ratio", _TOOL)
    draft.skip(NOT_NEEDED[_TOOL])
    rules.list_unknown(draft, _TOOL)
    return draft


def _columns(draft: Draft) -> Mapping[str, str]:
    """--columns '{"text1": "query", "text2": "response"}': theirs -> what ms-swift calls it."""
    value = draft.take("columns")
    if value is None:
        return {}
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        draft.refuse(written("columns", value), "expected a JSON object; name columns in the plan")
        return {}
    return {str(column): str(name) for column, name in found.items()}


def _datasets(draft: Draft, reading: _Reading, key: str, section: str) -> None:
    value = draft.take(key)
    if value in (None, "", []):
        return
    names = value if isinstance(value, list) else [value]
    for name in map(str, names):
        for entry in _entries(draft, reading, key, name, section):
            draft.keep_entry(f"{key} {name}", section, entry)


_DATASET = re.compile(
    r"(?:(?P<hub>HF|MS)::)?(?P<path>[^:#]+)(?::(?P<subsets>[^#]*))?(?:#(?P<count>\d+))?"
)


def _entries(
    draft: Draft, reading: _Reading, key: str, name: str, section: str
) -> list[dict[str, Any]]:
    """`path:subset#count`, an entry for each subset."""
    whole_path = reading.places.find(name)
    match = None if whole_path else _DATASET.fullmatch(name)
    path = match["path"] if match else name
    limit: dict[str, Any] = {}
    if match and match["count"]:
        limit = {"limit": int(match["count"])}
        reason = "the first rows, not a random sample"
        draft.note_change(f"{key} {name}", f"limit: {match['count']}", reason)
    found = whole_path or reading.places.find(path)
    subsets = (match["subsets"] or "").split("/") if match and match["subsets"] else []
    if found is None and is_hub_id(path):
        scheme = (match["hub"] or reading.hub).lower() if match else reading.hub
        if subsets == ["all"]:
            draft.refuse(f"{key} {name}", "name the subsets one by one, PATH:SUBSET in the plan")
            subsets = []
        addresses = [f"{scheme}://{path}:{subset}" for subset in subsets]
        split = {"split": "train"} if section == "evaluation" else {}
        return [{"path": at, **limit, **split} for at in addresses or [f"{scheme}://{path}"]]
    if found is None:
        draft.refuse(f"{key} {name}", f"{path} was not found here; correct the path in the plan")
    if subsets:
        draft.refuse(f"{key} {name}", "a file or folder has no subsets; name the file you mean")
    form = _form(reading, found) if found is not None else {}
    return [{"path": reading.places.in_plan(found or path), **limit, **form}]


# What ms-swift calls a column -> the field of an alpaca row.
_FIELDS = {"query": "instruction", "response": "output", "system": "system", "history": "history"}


def _form(reading: _Reading, path: Path) -> dict[str, Any]:
    """The format and columns of rows with query and response, by --columns or by the first row."""
    row = first_row(path)
    called = {column: reading.columns.get(column, column) for column in (*row, *reading.columns)}
    if not {"query", "response"} <= set(called.values()):
        return {}
    columns = {_FIELDS[name]: column for column, name in called.items() if name in _FIELDS}
    renamed = {field: column for field, column in columns.items() if field != column}
    return {"format": "alpaca", "columns": renamed}


def _batch(draft: Draft, environment: Mapping[str, str]) -> None:
    processes = int(rules.as_number(environment.get("NPROC_PER_NODE", "1")) or 1)
    per_device = rules.as_number(draft.settings.get("per_device_train_batch_size")) or 1
    # Without accumulation steps, ms-swift fills the batch up to 16.
    filling = max(1, -(-_LEAST_BATCH // (int(per_device) * processes)))
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps")
    rules.batch_size(draft, *keys, (1, filling), processes)


def _defaults(draft: Draft) -> None:
    """ms-swift's defaults."""
    for key, ours, value in (
        ("lora_rank", "lora.r", 8),
        ("lora_alpha", "lora.alpha", 32),
        ("lora_dropout", "lora.dropout", 0.05),
        ("learning_rate", "training.learning_rate", 1e-4),
        ("lr_scheduler_type", "training.schedule", "cosine"),
        ("warmup_ratio", "training.warmup_ratio", 0.0),
        ("weight_decay", "training.weight_decay", 0.1),
        ("adam_beta2", "training.adam_beta2", 0.95),
        ("max_grad_norm", "training.max_grad_norm", 1.0),
        ("truncation_strategy", "training.overlong", "drop"),
    ):
        rules.default(draft, key, ours, value, _TOOL)
