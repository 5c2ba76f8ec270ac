"""Which adapter a caller's model carries, and taking it off, so that every training starts anew.

peft puts an adapter into the model that it is given, so after a training the caller's own model
carries it too. The note of it stays on the base model, since callers pass either object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from loracle.errors import ModelError, TrialError
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, wrap_base

_ATTACHMENT = "_loracle_attachment"
_TAKEN_OFF = "_loracle_taken_off"


@dataclass(frozen=True)
class _Attachment:
    """The adapter on a base. `weights`: those of the base that it trains (biases), as before."""

    adapted: Any
    name: str
    weights: list[tuple[nn.Parameter, Tensor]]
    base_fingerprint: str


class Standing(NamedTuple):
    """A model as it stands: its base, and the adapter on it or None."""

    base: BaseModel
    adapted: Any | None


def put_on(model: Any, lora_settings: Mapping[str, Any], seed: int, name: str) -> Any:
    """Attach a fresh adapter, called `name` in messages, to a model without one."""
    before = base_fingerprint(model)
    adapted = adapter.attach(model, adapter.lora_config(lora_settings), seed)
    # With bias "all" or "lora_only" peft trains the base's own biases in place.
    weights = [
        (parameter, parameter.detach().clone())
        for parameter_name, parameter in adapter.trainable(adapted)
        if parameter_name.endswith("bias")
    ]
    # Not setattr, by which the adapter would become a submodule of its own base.
    vars(model)[_ATTACHMENT] = _Attachment(adapted, name, weights, before)
    return adapted


def take_off(model: Any) -> Any:
    """The base of the model, without the adapter of an earlier training and as it was before.

    Raises:
        ModelError: the model carries an adapter of which its PeftModel is not known.
        TrialError: the base's weights are not what they were before the adapter.
    """
    base = _base_of(model)
    attachment: _Attachment | None = vars(base).pop(_ATTACHMENT, None)
    if attachment is None:
        if _is_adapted(model):
            return adapter.detach(model)
        if hasattr(base, "peft_config"):
            raise ModelError(
                "the model carries an adapter that was attached elsewhere; pass the PeftModel "
                "itself, or what its unload() returns"
            )
        return base
    adapter.detach(attachment.adapted)
    vars(attachment.adapted)[_TAKEN_OFF] = attachment.name
    with torch.no_grad():
        for parameter, before in attachment.weights:
            parameter.copy_(before)
            parameter.requires_grad_(False)
    if base_fingerprint(base) != attachment.base_fingerprint:
        raise TrialError(
            f"training on {attachment.name} changed the base's weights, so nothing can be trained "
            "from it any more; load the model again, and look for a LoRA setting that does this "
            "(init_lora_weights)"
        )
    return base


@contextmanager
def as_it_stands(model: Any, tokenizer: Any) -> Iterator[Standing]:
    """The model with whatever adapter is on it, ready to answer; afterwards it is as it was.

    Raises:
        ModelError: the adapter was taken off by a later training.
    """
    if name := vars(model).get(_TAKEN_OFF):
        raise ModelError(
            f"the adapter trained on {name} was taken off when the next training began; evaluate "
            "it before that, or save it with save_pretrained"
        )
    base = _base_of(model)
    attachment: _Attachment | None = vars(base).get(_ATTACHMENT)
    adapted = model if _is_adapted(model) else attachment.adapted if attachment else None
    gradients = [(parameter, parameter.requires_grad) for parameter in base.parameters()]
    modes = [(module, module.training) for module in base.modules()]
    try:
        yield Standing(frozen(base, tokenizer), adapted)
    finally:
        for parameter, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)
        for module, is_training in modes:
            module.training = is_training


def frozen(model: Any, tokenizer: Any) -> BaseModel:
    """The caller's model as loracle takes it.

    Raises:
        ModelError: its tokenizer has no chat template, or no end token is declared.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "the tokenizer has no chat template; load that of an instruction-tuned model, or set "
            "tokenizer.chat_template"
        )
    name = getattr(model.config, "name_or_path", "") or type(model).__name__
    return wrap_base(name, model, tokenizer)


def _base_of(model: Any) -> Any:
    return model.get_base_model() if _is_adapted(model) else model


def _is_adapted(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)
