"""Attach a fresh LoRA adapter to the frozen base, take it off again, save, load, fingerprint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loracle.errors import ModelError, PlanError
from loracle.model.base import fingerprint
from loracle.model.lora_linear import use_fused_layers
from loracle.plan import nearest

_SHORT_NAMES = {"alpha": "lora_alpha", "dropout": "lora_dropout"}


# What other tools call peft's fields.
_OTHER_TOOLS_NAMES = {
    "rank": "r",
    "lora_r": "r",
    "lora_rank": "r",
    "lora_dim": "r",
    "lora_target": "target_modules",
    "target": "target_modules",
    "targets": "target_modules",
    "lora_target_modules": "target_modules",
    "modules": "target_modules",
    "rslora": "use_rslora",
    "dora": "use_dora",
}


def lora_config(settings: Mapping[str, Any]) -> Any:
    """A peft.LoraConfig from plan settings; `alpha` and `dropout` are short for peft's names.

    Raises:
        PlanError: a key that peft.LoraConfig does not know, or a value it refuses.
    """
    from peft import LoraConfig

    known = {field.name for field in dataclasses.fields(LoraConfig)}
    values = {_SHORT_NAMES.get(name, name): value for name, value in settings.items()}
    problems = [
        f"lora.{name}: peft.LoraConfig has no such field"
        + (f"; did you mean lora.{near}?" if (near := _nearest_field(name, known)) else "")
        for name in values
        if name not in known
    ]
    if problems:
        raise PlanError(problems)
    try:
        return LoraConfig(**{"task_type": "CAUSAL_LM", **values})
    except (TypeError, ValueError) as error:
        raise PlanError(f"lora: {error}") from error


def _nearest_field(name: str, known: set[str]) -> str | None:
    return _OTHER_TOOLS_NAMES.get(name.lower()) or nearest(name, sorted(known))


def attach(model: nn.Module, config: Any, seed: int) -> Any:
    """Attach a fresh adapter. The same seed gives the same first weights, whatever ran before.

    Raises:
        ModelError: the configuration does not fit the model (for example no such module).
    """
    from peft import get_peft_model

    devices = [next(model.parameters()).device] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]):
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"lora: the adapter does not fit this model: {error}") from error
    use_fused_layers(adapted)
    return adapted


def detach(adapted: Any) -> Any:
    """Take the adapter off; returns the base, with the very weights it had before."""
    base = adapted.unload()
    # peft leaves its own settings on the model, and warns of a second adapter where they stay.
    if hasattr(base, "peft_config"):
        del base.peft_config
    return base


def save(adapted: Any, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, in PEFT's format."""
    adapted.save_pretrained(str(folder), safe_serialization=True)


def load(model: nn.Module, folder: Path) -> Any:
    """Attach an adapter saved by `save`, for evaluation.

    Raises:
        ModelError: the folder holds no adapter, or one of another model.
    """
    from peft import PeftModel

    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder}: no adapter_config.json; name a folder in PEFT's format")
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"{folder}: the adapter does not fit this model: {error}") from error
    use_fused_layers(adapted)
    return adapted


def trainable(adapted: Any) -> list[tuple[str, nn.Parameter]]:
    """The adapter's parameters by name."""
    return [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]


def adapter_fingerprint(adapted: Any) -> str:
    """The fingerprint of the adapter's weights."""
    return fingerprint(trainable(adapted))
