"""The YAML of a plan, with a comment for each key: the text that documents it in the sections."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from loracle.plan import (
    DecisionPlan,
    GenerationPlan,
    LoraPlan,
    ModelPlan,
    Plan,
    Section,
    TrainingPlan,
)

_WIDTH = 100

# The keys that most users look at; others are written if they are set, and named else.
_SHOWN: Mapping[str, tuple[type[Section], tuple[str, ...]]] = {
    "model": (ModelPlan, ("name", "quantization", "dtype")),
    "lora": (LoraPlan, ("r", "alpha", "dropout", "target_modules")),
    "training": (
        TrainingPlan,
        (
            "epochs",
            "batch_size",
            "learning_rate",
            "schedule",
            "warmup_ratio",
            "max_length",
            "overlong",
            "train_on",
        ),
    ),
    "generation": (GenerationPlan, ("max_new_tokens", "answer_nll")),
    "decision": (DecisionPlan, ("metric", "confidence", "min_gain")),
}
_ENTRY_KEYS = (
    "# An entry may have more than its path:",
    "#   - {path: a.jsonl, name: short, limit: 1000, split: train, columns: {question: query}}",
)


def plan_text(tree: Mapping[str, Any], head: Sequence[str]) -> str:
    """The plan as YAML.

    head: sentences above it, a comment each. Without candidates their place is a comment.
    """
    lines = [line for sentence in head for line in _comment(sentence, 0)]
    lines += ["", *_section("model", tree)]
    lines += ["", *_datasets("candidates", tree, ("first.jsonl", "second.jsonl"))]
    lines += ["", *_measured_on(tree)]
    for name in ("lora", "training", "generation"):
        lines += ["", *_section(name, tree)]
    lines += ["", *_described("seeds"), f"seeds: {_value(tree.get('seeds', [0]))}"]
    lines += ["", *_section("decision", tree)]
    lines += ["", *_described("trackers"), f"trackers: {_value(tree.get('trackers', []))}"]
    return "\n".join([*lines, *_others(tree)]) + "\n"


def _section(name: str, tree: Mapping[str, Any]) -> list[str]:
    model, shown = _SHOWN[name]
    values: Mapping[str, Any] = tree.get(name, {})
    defaults = model()
    known = [key for key in shown if key in model.model_fields]
    keys = [*known, *(key for key in values if key not in known)]
    lines = [*_described(name), f"{name}:"]
    for key in keys:
        field = model.model_fields.get(key)
        lines += _comment(field.description or "", 2) if field else []
        lines.append(f"  {key}: {_value(values.get(key, getattr(defaults, key, None)))}")
    if more := [key for key in model.model_fields if key not in keys]:
        lines += _comment(f"Also: {', '.join(more)}.", 2)
    return lines


def _datasets(name: str, tree: Mapping[str, Any], examples: Sequence[str]) -> list[str]:
    entries = tree.get(name) or []
    lines = [*_described(name), *_ENTRY_KEYS, f"{name}:"]
    if not entries:
        return [*lines, *(f"  # - {example}" for example in examples)]
    return [*lines, *(f"  - {_value(_short(entry))}" for entry in entries)]


def _measured_on(tree: Mapping[str, Any]) -> list[str]:
    if tree.get("evaluation"):
        return _datasets("evaluation", tree, ())
    lines = [*_described("evaluation"), "# evaluation:", "#   - test.jsonl", ""]
    holdout = tree.get("holdout") or 0.1
    return [*lines, *_described("holdout"), f"holdout: {_value(holdout)}"]


def _short(entry: Any) -> Any:
    return entry["path"] if isinstance(entry, Mapping) and set(entry) == {"path"} else entry


def _others(tree: Mapping[str, Any]) -> list[str]:
    """Sections that are set but not listed above, and the names of the rest."""
    placed = {*_SHOWN, "candidates", "evaluation", "holdout", "seeds", "trackers"}
    lines = []
    for name in (name for name in tree if name not in placed):
        lines += ["", *_described(name), f"{name}: {_value(tree[name])}"]
    if rest := [name for name in Plan.model_fields if name not in placed and name not in tree]:
        lines += ["", *_comment(f"Further sections: {', '.join(rest)}.", 0)]
    return lines


def _described(section: str) -> list[str]:
    return _comment(Plan.model_fields[section].description or "", 0)


def _comment(text: str, indent: int) -> list[str]:
    start = " " * indent + "# "
    # The sections' text uses Python's None; a plan has null.
    text = re.sub(r"\bNone\b", "null", text)
    return textwrap.wrap(
        " ".join(text.split()),
        _WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _value(value: Any) -> str:
    """A value on one line of YAML."""
    line: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False
    )
    return line.removesuffix("...\n").strip()
