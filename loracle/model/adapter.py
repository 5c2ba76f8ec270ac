"""Attach a fresh LoRA adapter to the frozen base, remove it, save, load, fingerprint."""

from __future__ import annotations

import copy
import dataclasses
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loracle.errors import ModelError, PlanError
from loracle.files import UNFINISHED_PREFIX, read_json, sync_file, sync_folder, write_json
from loracle.model.base import fingerprint
from loracle.model.lora_linear import use_fused_layers
from loracle.model.token_dropout import use_token_dropout
from loracle.plan import nearest
from loracle.safety.storage_errors import writing

_FACTS_FILE = "loracle.json"
SHORT_NAMES = {"alpha": "lora_alpha", "dropout": "lora_dropout"}
"""The plan's names, and peft's."""

# Other tools' names for peft's fields.
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
        PlanError: a key that peft.LoraConfig does not have, or a value that it rejects.
    """
    from peft import LoraConfig

    known = {field.name for field in dataclasses.fields(LoraConfig)}
    values = {SHORT_NAMES.get(name, name): value for name, value in settings.items()}
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


def fitted(model: nn.Module, config: Any) -> tuple[Any, tuple[str, ...]]:
    """The configuration that adapters of this model have, and what it differs in from `config`.

    The experts of a mixture are packed into one parameter for all of them, and peft adapts that as
    it is, without dropout.
    """
    if not config.lora_dropout or not _adapts_parameters(model, config):
        return config, ()
    note = (
        f"lora.dropout: {config.lora_dropout} becomes 0: this model's experts are packed, and peft "
        "adapts them without dropout; to keep dropout, name layers beside the experts, as "
        "lora.target_modules: [q_proj, k_proj, v_proj, o_proj]"
    )
    return dataclasses.replace(config, lora_dropout=0.0), (note,)


def _adapts_parameters(model: nn.Module, config: Any) -> bool:
    """Whether peft will adapt parameters that are no layer's weight, such as packed experts."""
    if config.target_parameters:
        return True
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:
        return False
    resolved = copy.deepcopy(config)
    try:
        convert_peft_config_for_transformers(resolved, model=model, conversions=None)
    except ValueError:
        # It will say so itself when the adapter is attached.
        return False
    return bool(resolved.target_parameters)


def attach(model: nn.Module, config: Any, seed: int) -> Any:
    """Attach a fresh adapter. The same seed gives the same initial weights, whatever ran before.

    Raises:
        ModelError: the configuration does not fit the model (for example no such module).
    """
    from peft import get_peft_model

    config, _ = fitted(model, config)
    devices = [next(model.parameters()).device] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]):
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"lora: the adapter does not fit this model: {error}") from error
    use_token_dropout(adapted)
    use_fused_layers(adapted)
    return adapted


def detach(adapted: Any) -> Any:
    """Remove the adapter; returns the base with exactly the weights it had before."""
    base = adapted.unload()
    # peft leaves its settings on the model, and warns of a second adapter if they stay.
    if hasattr(base, "peft_config"):
        del base.peft_config
    return base


@contextmanager
def attached(model: nn.Module, config: Any, seed: int) -> Iterator[Any]:
    """A temporary fresh adapter; afterwards the base has exactly the weights it had before."""
    with _biases_put_back(model):
        adapted = attach(model, config, seed)
        try:
            yield adapted
        finally:
            detach(adapted)


@contextmanager
def loaded(model: nn.Module, folder: Path) -> Iterator[Any]:
    """A temporary adapter saved by `save`; afterwards the base is unchanged.

    Raises:
        ModelError: the folder contains no adapter, or one for another model.
    """
    with _biases_put_back(model):
        adapted = load(model, folder)
        try:
            yield adapted
        finally:
            detach(adapted)


@contextmanager
def _biases_put_back(model: nn.Module) -> Iterator[None]:
    """`bias: all` and `bias: lora_only` train the base's own biases in place."""
    biases = [
        (parameter, parameter.detach().clone())
        for name, parameter in model.named_parameters()
        if name.endswith("bias")
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in biases:
                parameter.copy_(before)
                parameter.requires_grad_(False)


def save(adapted: Any, folder: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write adapter_model.safetensors and adapter_config.json, in PEFT's format.

    The same adapter gives the same bytes, and the folder is written completely or not at all.
    facts: what the adapter belongs to, kept next to it in loracle.json.
    """
    unfinished = folder.with_name(f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}")
    num_bytes = sum(parameter.nbytes for _, parameter in trainable(adapted))
    with writing(folder, needed_bytes=num_bytes), _learning_afterwards(adapted):
        try:
            adapted.save_pretrained(str(unfinished), safe_serialization=True)
            _sort_sets(unfinished / "adapter_config.json", adapted)
            if facts is not None:
                write_json(unfinished / _FACTS_FILE, dict(facts))
            for path in unfinished.iterdir():
                sync_file(path)
            if folder.exists():
                shutil.rmtree(folder)
            unfinished.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _learning_afterwards(adapted: Any) -> Iterator[None]:
    """peft marks the adapter as inference-only while saving it, and leaves it so if saving fails:
    the next adapter with the same configuration would learn nothing."""
    configs = list(adapted.peft_config.values())
    modes = [config.inference_mode for config in configs]
    try:
        yield
    finally:
        for config, mode in zip(configs, modes, strict=True):
            config.inference_mode = mode


def saved_facts(folder: Path) -> dict[str, Any]:
    """The facts that `save` stored with the adapter; empty if none."""
    path = folder / _FACTS_FILE
    return dict(read_json(path)) if path.exists() else {}


def _sort_sets(path: Path, adapted: Any) -> None:
    """peft writes its sets of names in arbitrary order."""
    config = adapted.peft_config[adapted.active_adapter]
    values = json.loads(path.read_text(encoding="utf-8"))
    for name in values:
        if isinstance(getattr(config, name, None), set):
            values[name] = sorted(values[name])
    write_json(path, values)


def load(model: nn.Module, folder: Path, *, trainable: bool = False) -> Any:
    """Attach an adapter saved by `save`, for evaluation or further training.

    Raises:
        ModelError: the folder contains no adapter, or one for another model.
    """
    from peft import PeftModel

    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder}: no adapter_config.json; name a folder in PEFT's format")
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"{folder}: the adapter does not fit this model: {error}") from error
    use_token_dropout(adapted)
    use_fused_layers(adapted)
    return adapted


def trainable(adapted: Any) -> list[tuple[str, nn.Parameter]]:
    """The adapter's parameters by name."""
    return [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]


def adapter_fingerprint(adapted: Any) -> str:
    """The fingerprint of the adapter's weights: of everything that `save` writes."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return fingerprint(sorted(state.items()))
