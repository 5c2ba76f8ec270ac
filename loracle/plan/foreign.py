"""Training files of other tools, distinguished from plans by their content.

    model_name_or_path, finetuning_type, cutoff_len, ...    LLaMA-Factory
    base_model, datasets, micro_batch_size, ...             axolotl
    swift sft --model ... --dataset ...                     ms-swift, in a shell script

`loracle init --from FILE` writes a plan from one (loracle/migration/). Files of torchtune, TRL and
Unsloth are recognised, but not read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path


class Tool(StrEnum):
    """A tool whose training files can become a plan."""

    LLAMA_FACTORY = "LLaMA-Factory"
    AXOLOTL = "axolotl"
    MS_SWIFT = "ms-swift"


# Keys that only this tool uses (no other tool, and no plan), or that its files always have.
_SIGNS: Mapping[Tool, str] = {
    Tool.LLAMA_FACTORY: """
        model_name_or_path stage do_train finetuning_type dataset_dir cutoff_len template dataset
        max_samples lora_rank lora_target quantization_bit num_train_epochs
        per_device_train_batch_size overwrite_cache
    """,
    Tool.AXOLOTL: """
        base_model datasets adapter sequence_len micro_batch_size num_epochs lora_r
        lora_target_modules lora_target_linear val_set_size sample_packing load_in_4bit
        load_in_8bit dataset_prepared_path
    """,
    Tool.MS_SWIFT: """
        model train_type tuner_type sft_type dataset val_dataset split_dataset_ratio torch_dtype
        max_length lora_rank target_modules num_train_epochs per_device_train_batch_size quant_bits
    """,
}
_PLAN_SECTIONS = {"candidates", "evaluation", "holdout", "training", "generation", "decision"}
# A single key may be a mistake in a plan.
_FEWEST_SIGNS = 2

_COMMANDS: Mapping[Tool, re.Pattern[str]] = {
    Tool.MS_SWIFT: re.compile(r"\bswift\s+(?:sft|pt|rlhf)\b|\bswift/cli/\w+\.py\b"),
    Tool.LLAMA_FACTORY: re.compile(
        r"\b(?:llamafactory-cli|lmf)\s+train\b|\bsrc/train(?:_bash)?\.py\b"
    ),
    Tool.AXOLOTL: re.compile(r"\baxolotl\s+train\b|\baxolotl\.cli\.train\b"),
}
# Tools that are recognised, so that their files are not taken for another's.
_UNREAD_COMMANDS = {
    "torchtune": re.compile(r"\btune\s+run\b"),
    "TRL": re.compile(r"\btrl\s+(?:sft|dpo|kto|reward)\b|\btrl/scripts/\w+\.py\b"),
    "Unsloth": re.compile(r"\b(?:from|import)\s+unsloth\b"),
}
_YAML_LINE = re.compile(r"\s*(?:-\s+)?[\w.\"']+:(?:\s|$)")


def tool_of_keys(tree: object) -> Tool | None:
    """The tool whose training file has these keys, or None."""
    if not isinstance(tree, Mapping) or tree.keys() & _PLAN_SECTIONS or unread_tool(tree):
        return None
    found = {tool: len(tree.keys() & set(signs.split())) for tool, signs in _SIGNS.items()}
    tool = max(found, key=lambda name: found[name])
    return tool if found[tool] >= _FEWEST_SIGNS else None


def unread_tool(tree: object, text: str = "") -> str | None:
    """The tool that a training file belongs to if it is recognised but cannot become a plan."""
    if isinstance(tree, Mapping):
        if any(isinstance(value, Mapping) and "_component_" in value for value in tree.values()):
            return "torchtune"
        return "TRL" if {"model_name_or_path", "dataset_name"} <= tree.keys() else None
    found = (name for name, command in _UNREAD_COMMANDS.items() if command.search(text))
    return next(found, None)


def tool_of_command(text: str) -> Tool | None:
    """The tool whose training command a shell script runs, or None; the first one if there are
    several commands."""
    joined = re.sub(r"\\\r?\n", " ", text)
    for line in joined.splitlines():
        if line.lstrip().startswith("#") or _YAML_LINE.match(line):
            continue
        for tool, command in _COMMANDS.items():
            if command.search(line):
                return tool
    return None


def foreign_problem(path: Path, tool: Tool) -> str:
    """The message for a user who passes such a file as a plan."""
    return (
        f"{path} is a training file of {tool}, not a plan; write a plan from it with "
        f"`loracle init --from {shlex.quote(str(path))}`"
    )


def unread_problem(path: Path, tool: str) -> str:
    """The message for a file of a tool that is recognised but not read."""
    return (
        f"{path} is a training file of {tool}, which `loracle init` cannot read (it reads "
        f"{', '.join(Tool)}); write a plan for your data instead: loracle init FIRST.jsonl "
        "SECOND.jsonl --eval TEST.jsonl"
    )
