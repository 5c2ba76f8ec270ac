"""How one setting of another tool becomes a key of the plan: rules that several tools share.

A tool's module has a table, key -> rule. A rule takes the draft, the key and its value, and
records in the draft what happened to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from loracle.migration.draft import Draft, written
from loracle.migration.places import Places, is_hub_id
from loracle.plan import ModelPlan
from loracle.plan.sections import TrackerName

Rule = Callable[[Draft, str, Any], None]

SHARE_HELD_OUT = 0.1
"""The share of rows to measure on if nothing else is named."""
WARMUP_RATIO = 0.03
"""The warm-up if theirs is in steps and the number of steps is not known yet."""
ONLY_LORA = "only LoRA adapters are trained"
"""Why what changes other weights is refused."""
_YES, _NO = ("true", "yes", "1", "on"), ("false", "no", "0", "off", "none")


def own_template(draft: Draft, key: str, value: Any) -> None:
    """A named chat template: ours is always the model's."""
    reason = "rows are rendered by the model's own chat template; see `loracle inspect`"
    draft.note_change(written(key, value), "the model's template", reason)


def carry_model(
    draft: Draft, places: Places, key: str, *, on_modelscope: bool = False, note: str = ""
) -> None:
    """Their base model: a folder, or an id of a hub. note: said of an id of ModelScope."""
    name = draft.take(key)
    if name is None:
        draft.refuse(f"{key}: not set", "name the model in the plan, model.name")
        return
    on_hub = is_hub_id(str(name)) and not Path(str(name)).exists()
    local = None if on_hub else places.find(str(name))
    scheme = "ms://" if on_hub and on_modelscope else ""
    value = str(local) if local is not None else f"{scheme}{name}"
    draft.keep(key, "model.name", value, note if scheme else "")


def apply_rules(draft: Draft, rules: Mapping[str, Rule]) -> None:
    """Carry over every setting that has a rule, in the order of their file."""
    draft.skip(key for key, value in draft.settings.items() if value in (None, ""))
    for key, value in draft.remaining().items():
        if key in rules:
            draft.take(key)
            rules[key](draft, key, value)


def list_unknown(draft: Draft, tool: str) -> None:
    """List settings without a rule, so that nothing is dropped silently."""
    for key, value in draft.remaining().items():
        draft.refuse(
            written(key, value),
            f"unknown here; if this key of {tool} changes the result, look for its equivalent in "
            "docs/plan.md",
        )


def as_number(value: object) -> int | float | None:
    """The value as a number, also if written as text; None if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, int | float):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return None


def as_bool(value: object) -> bool | None:
    """The value as a boolean, also if written as text; None if it is not a boolean."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    return True if text in _YES else False if text in _NO else None


def as_list(value: object) -> list[str]:
    """The items of a list, or of a text with commas."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return [str(item) for item in value] if isinstance(value, Iterable) else [str(value)]


def number(ours: str) -> Rule:
    """A number with a fraction."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        found = as_number(value)
        if found is None:
            draft.refuse(written(key, value), f"expected a number; set {ours} in the plan")
        else:
            draft.keep(key, ours, float(found))

    return rule


def whole(ours: str) -> Rule:
    """A whole number."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        found = as_number(value)
        if found is None or found != int(found):
            draft.refuse(written(key, value), f"expected a whole number; set {ours} in the plan")
        else:
            draft.keep(key, ours, int(found))

    return rule


def text(ours: str) -> Rule:
    """A text, unchanged."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        draft.keep(key, ours, str(value))

    return rule


def switch(ours: str) -> Rule:
    """True or false."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        found = as_bool(value)
        if found is None:
            draft.refuse(written(key, value), f"expected true or false; set {ours} in the plan")
        else:
            draft.keep(key, ours, found)

    return rule


def passed_to_peft(name: str) -> Rule:
    """A switch that a plan passes on to peft.LoraConfig; off is peft's default."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        if as_bool(value):
            draft.keep(key, f"lora.{name}", True)
        else:
            draft.not_needed.append(key)

    return rule


def refused_if_on(advice: str) -> Rule:
    """Something that a plan cannot express, not reported if it is off."""

    def rule(draft: Draft, key: str, value: Any) -> None:
        if as_bool(value) is False or as_number(value) == 0:
            draft.not_needed.append(key)
        else:
            draft.refuse(written(key, value), advice)

    return rule


def refused_unless(fine: Iterable[str], advice: str) -> Rule:
    """A choice of which only some values match what Loracle does."""
    known = {value.lower() for value in fine}

    def rule(draft: Draft, key: str, value: Any) -> None:
        if str(value).lower() in known:
            draft.not_needed.append(key)
        else:
            draft.refuse(written(key, value), advice)

    return rule


def gradient_norm(draft: Draft, key: str, value: Any) -> None:
    """The largest norm of a gradient; theirs: 0 is no clipping."""
    if as_number(value) == 0:
        draft.keep(key, "training.max_grad_norm", None, "0 is no clipping, written null here")
    else:
        number("training.max_grad_norm")(draft, key, value)


def schedule(draft: Draft, key: str, value: Any) -> None:
    """The learning rate schedule, by transformers' names."""
    name = str(value).lower()
    ours = "training.schedule"
    if name in ("linear", "cosine"):
        draft.keep(key, ours, name)
    elif name == "constant_with_warmup":
        draft.keep(key, ours, "constant")
    elif name == "constant":
        draft.keep(key, ours, "constant")
        if as_number(draft.settings.get("warmup_ratio")) or draft.settings.get("warmup_steps"):
            reason = "their `constant` has no warm-up, whatever its setting"
            draft.note_change("warmup of lr constant", "training.warmup_ratio = 0", reason)
        draft.skip(["warmup_ratio", "warmup_steps"])
        draft.put("training.warmup_ratio", 0.0)
    else:
        nearest = "cosine" if "cosine" in name else "linear"
        reason = "available are linear, cosine and constant; this is the nearest"
        draft.change(written(key, value), ours, nearest, reason)


def optimizer(draft: Draft, key: str, value: Any) -> None:
    """The optimizer, by transformers' names."""
    name = str(value).lower()
    if name in ("adamw", "adamw_hf", "adamw_torch", "adamw_torch_fused", "adamw_apex_fused"):
        draft.not_needed.append(key)
    elif "adamw" in name:
        draft.note_change(
            written(key, value),
            "AdamW",
            "the same rule with its state in float32, which is small for an adapter; "
            "training.optimizer: adamw_8bit keeps it in 8 bits",
        )
    else:
        draft.refuse(written(key, value), "every candidate is trained with AdamW")


_BFLOAT_NOTE = "bfloat16 if the processor supports it, else float32"


def precision(draft: Draft, key: str, value: Any) -> None:
    """bf16, fp16 and the like: the precision is chosen for the processor."""
    if as_bool(value) is False:
        draft.not_needed.append(key)
    elif "bf" in key.lower():
        draft.keep(key, "model.dtype", "auto", _BFLOAT_NOTE)
    else:
        _no_half(draft, written(key, value))


def weights_precision(draft: Draft, key: str, value: Any) -> None:
    """torch_dtype and its like."""
    name = str(value).removeprefix("torch.")
    if name == "float32":
        draft.keep(key, "model.dtype", "float32")
    elif name in ("bfloat16", "auto"):
        draft.keep(key, "model.dtype", "auto", _BFLOAT_NOTE)
    else:
        _no_half(draft, written(key, value))


def _no_half(draft: Draft, theirs: str) -> None:
    reason = f"{_BFLOAT_NOTE}: the loss needs no scaling"
    draft.change(theirs, "model.dtype", "auto", reason)


def quantized(draft: Draft, theirs: str, bits: object) -> None:
    """The base in 4 or 8 bits."""
    kinds = {8: "int8", 4: "nf4"}
    kind = kinds.get(int(as_number(bits) or 0))
    if "quantization" in ModelPlan.model_fields and kind is not None:
        draft.keep(theirs, "model.quantization", kind)
    else:
        draft.refuse(
            theirs,
            "the base is loaded without quantization and needs more memory; on a small card, "
            "compare with a smaller model",
        )


def quantization_bits(draft: Draft, key: str, value: Any) -> None:
    """A number of bits."""
    quantized(draft, written(key, value), value)


def seed(draft: Draft, key: str, value: Any) -> None:
    """Their seed, as the only one."""
    found = as_number(value)
    if isinstance(found, int):
        note = "add more seeds to measure how much a seed matters"
        draft.keep(key, "seeds", [found], note)
    else:
        draft.refuse(written(key, value), "expected a whole number; set seeds in the plan")


def trackers(draft: Draft, key: str, value: Any) -> None:
    """Trackers."""
    names = [name for name in as_list(value) if name in get_args(TrackerName)]
    if not names:
        draft.not_needed.append(key)
    for name in names:
        draft.note_change(
            written(key, value),
            "trackers = []",
            f"follow a run with --set trackers={name}; it needs loracle[{name}]",
        )


def training_length(draft: Draft, epochs_key: str, default_epochs: float, tool: str) -> None:
    """Steps or epochs, and the warm-up, which depends on them."""
    steps = as_number(draft.take("max_steps"))
    if steps is not None and steps > 0:
        draft.keep("max_steps", "training.max_steps", int(steps))
        if draft.take(epochs_key) is not None:
            reason = "max_steps decides the length"
            draft.note_change(epochs_key, "training.epochs", reason)
    else:
        if steps is not None:
            draft.not_needed.append("max_steps")
        if draft.take(epochs_key) is None:
            default(draft, epochs_key, "training.epochs", default_epochs, tool)
        else:
            number("training.epochs")(draft, epochs_key, draft.settings[epochs_key])
    _warmup(draft, steps if steps and steps > 0 else None)


def _warmup(draft: Draft, max_steps: float | None) -> None:
    steps = as_number(draft.take("warmup_steps"))
    ratio = as_number(draft.take("warmup_ratio"))
    ours = "training.warmup_ratio"
    if "warmup_ratio" in draft.tree.get("training", {}):
        return
    if steps and steps < 1:
        # transformers 5 takes a share of the steps under this name.
        draft.keep("warmup_steps", ours, float(steps), "below 1 it is a share")
    elif steps and max_steps:
        draft.keep("warmup_steps", ours, round(min(steps / max_steps, 1.0), 4), "of max_steps")
    elif steps:
        reason = (
            "here it is a share of the steps, since candidates differ in size; "
            f"theirs was {steps} steps"
        )
        draft.change(f"warmup_steps: {steps}", ours, float(ratio or WARMUP_RATIO), reason)
    elif ratio is not None:
        draft.keep("warmup_ratio", ours, float(ratio))


def batch_size(
    draft: Draft,
    per_device_key: str,
    accumulation_key: str,
    fallbacks: tuple[int, int],
    devices: int,
) -> None:
    """Examples in one optimizer step: theirs is a product."""
    values = []
    for key, fallback in zip((per_device_key, accumulation_key), fallbacks, strict=True):
        value = draft.take(key)
        found = as_number(value)
        if value is not None and (found is None or found != int(found)):
            draft.refuse(written(key, value), "expected a whole number; set training.batch_size")
        values.append(int(found) if found is not None else fallback)
    product = values[0] * values[1] * devices
    theirs = f"{per_device_key} {values[0]} × {accumulation_key} {values[1]}"
    note = "for one GPU; with more GPUs, multiply it by their number"
    if devices > 1:
        theirs, note = f"{theirs} × {devices} processes", ""
    draft.keep(theirs, "training.batch_size", product, note)


def default(draft: Draft, key: str, ours: str, value: Any, tool: str) -> None:
    """The tool's default, if the plan does not set the key yet."""
    section, _, name = ours.partition(".")
    if name not in draft.tree.get(section, {}):
        draft.keep(f"{key} (not set: {tool}'s default)", ours, value)


def each_a_candidate(draft: Draft, theirs: str, tool: str) -> None:
    """Report that datasets which were trained on together are compared, if there is more than
    one."""
    if len(draft.tree.get("candidates", [])) > 1:
        reason = f"{tool} trains on all of them together; here each is a separate candidate"
        draft.note_change(theirs, "candidates", reason)


def hold_rows_out(draft: Draft, key: str, tool: str) -> None:
    """Their validation split, and something to measure on in any case."""
    value = draft.take(key)
    size = as_number(value)
    if value is not None and not size:
        draft.not_needed.append(key)
    if draft.tree.get("evaluation"):
        if size:
            reason = "the evaluation set decides; no rows are held out"
            draft.note_change(written(key, value), "evaluation", reason)
        return
    if size is not None and 0 < size < 1:
        note = "of every candidate, by shared passage; used as questions, not only for a loss"
        draft.keep(key, "holdout", float(size), note)
        return
    theirs = written(key, value) if size else f"no evaluation set in {tool}'s file"
    reason = "a decision needs rows that no candidate is trained on; better: --eval YOUR_FILE"
    if size:
        reason = f"a share of every candidate, not a number of rows; {reason}"
    draft.change(theirs, "holdout", SHARE_HELD_OUT, reason)
