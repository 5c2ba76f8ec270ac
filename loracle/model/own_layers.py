"""The adapters of a caller's model: each result owns its layers, which are swapped as needed.

    base: q_proj ──> Linear              no adapter
                └──> LoraLayer(Linear)   the layers of one result, in place of the Linear

peft puts an adapter into the model it is given. Here the layers of every training are kept by its
own PeftModel, which puts them back before it answers, is saved or is merged. The state of a model
is read from its layers, never from a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from loracle.errors import ModelError
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, wrap_base

_OWN_LAYERS, _LAYERS_ON = "_loracle_own_layers", "_loracle_layers_on"
_GUARDED = (
    *("forward", "generate", "save_pretrained", "push_to_hub", "state_dict", "named_parameters"),
    *("merge_adapter", "merge_and_unload", "unload"),
)
"""How a PeftModel handles the layers on its base."""


class _Place(NamedTuple):
    """One place in the base, with the module it has without the adapter and with it."""

    parent: nn.Module
    name: str
    bare: nn.Module
    adapted: nn.Module

    @property
    def is_adapted(self) -> bool:
        return getattr(self.parent, self.name) is self.adapted


@dataclass
class _Layers:
    """The layers of one adapter. biases: those of the base that it trained, (bare, adapted)."""

    base: nn.Module
    places: list[_Place]
    peft_config: Any
    base_fingerprint: str
    biases: list[tuple[nn.Parameter, Tensor, Tensor]] = field(default_factory=list)
    gradients: list[tuple[nn.Parameter, bool]] = field(default_factory=list)

    @property
    def are_on(self) -> bool:
        return bool(self.places) and all(place.is_adapted for place in self.places)

    def take_off(self, *, keep_biases: bool = False) -> None:
        for place in self.places:
            setattr(place.parent, place.name, place.bare)
        for parameter, requires_grad in self.gradients:
            parameter.requires_grad_(requires_grad)
        if not keep_biases:
            self._set_biases(lambda bare, adapted: bare)
        vars(self.base).pop("peft_config", None)
        vars(self.base).pop(_LAYERS_ON, None)

    def put_on(self) -> None:
        """Raises ModelError if the base is not the one the adapter was trained on."""
        if self.are_on:
            return
        bare(self.base)
        if base_fingerprint(self.base) != self.base_fingerprint:
            raise ModelError(
                "the base's weights are no longer those that this adapter was trained on (an "
                "adapter was merged into them, or they were changed): load the base again, and "
                "then the saved adapter"
            )
        for place in self.places:
            setattr(place.parent, place.name, place.adapted)
        for parameter, _ in self.gradients:
            parameter.requires_grad_(False)
        self._set_biases(lambda bare, adapted: adapted)
        self.note()

    def note(self) -> None:
        """Record on the base what is attached to it; not as a submodule."""
        vars(self.base)["peft_config"] = self.peft_config
        vars(self.base)[_LAYERS_ON] = self

    def _set_biases(self, chosen: Callable[[Tensor, Tensor], Tensor]) -> None:
        with torch.no_grad():
            for parameter, bare_values, adapted_values in self.biases:
                parameter.copy_(chosen(bare_values, adapted_values))


def put_on(model: Any, folder: Path) -> Any:
    """The adapter saved in `folder` on a bare model: a PeftModel that owns its layers."""
    before = dict(model.named_modules())
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    own = [(n, p, p.detach().clone()) for n, p in model.named_parameters() if n.endswith("bias")]
    found = base_fingerprint(model)
    adapted = adapter.load(model, folder, trainable=True).eval()
    if adapted.peft_config[adapted.active_adapter].bias == "none":
        own = []
    layers = _Layers(
        base=model,
        places=list(_places(model, before)),
        peft_config=adapted.peft_config,
        base_fingerprint=found,
        biases=[(p, value, p.detach().clone()) for _, p, value in own],
        gradients=gradients,
    )
    return _owning(adapted, layers)


def bare(model: Any) -> Any:
    """The base of a model, with no adapter on it; each adapter stays with its own PeftModel.

    Raises ModelError if the model carries an adapter of which its PeftModel is not known, or if
    its weights are not those that it had before the adapter.
    """
    base = base_of(model)
    layers: _Layers | None = vars(base).get(_LAYERS_ON)
    if layers is not None and layers.are_on:
        layers.take_off()
        if base_fingerprint(base) != layers.base_fingerprint:
            raise ModelError(
                "the base's weights changed while an adapter was on it (merge_adapter does that); "
                "load the model again"
            )
    elif _is_peft(model) and has_adapter(base) and _OWN_LAYERS not in vars(model):
        layers = _Layers(base, list(_places(base, None)), model.peft_config, "")
        layers.gradients = [(p, p.requires_grad) for p in base.parameters()]
        layers.take_off()
        layers.base_fingerprint = base_fingerprint(base)
        _owning(model, layers)
    if _tuner_layers(base):
        raise ModelError(
            "the model carries an adapter that was attached elsewhere; pass the PeftModel "
            "itself, or what its unload() returns"
        )
    vars(base).pop("peft_config", None)
    return base


@contextmanager
def bared(model: Any) -> Iterator[Any]:
    """The base of a model without an adapter. If the work on it fails, its previous adapter is put
    back.

    Raises ModelError as `bare` does.
    """
    layers: _Layers | None = vars(base_of(model)).get(_LAYERS_ON)
    was_on = layers is not None and layers.are_on
    base = bare(model)
    try:
        yield base
    except BaseException:
        if layers is not None and was_on:
            # If the work changed the base, the current error reports it.
            with suppress(ModelError):
                layers.put_on()
        raise


def base_of(model: Any) -> Any:
    """The transformers model within a PeftModel, or the model itself.

    Raises ModelError if it is no loaded model.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model: found {type(model).__name__}; expected a model in memory, as "
            "AutoModelForCausalLM.from_pretrained(...) gives one"
        )
    loaded: Any = model
    return loaded.get_base_model() if _is_peft(model) else loaded


def has_adapter(base: nn.Module) -> bool:
    """Whether an adapter is active: its layers are on the model and not disabled."""
    return any(
        layer.active_adapters and not layer.disable_adapters for layer in _tuner_layers(base)
    )


def ready(model: Any) -> Any:
    """The model with its own layers attached: an earlier result answers with its own weights."""
    if (layers := vars(model).get(_OWN_LAYERS)) is not None:
        layers.put_on()
    return model


@contextmanager
def as_it_was(base: nn.Module) -> Iterator[None]:
    """Restore the caller's model's gradients and modes, however the work ends."""
    gradients = [(parameter, parameter.requires_grad) for parameter in base.parameters()]
    modes = [(module, module.training) for module in base.modules()]
    try:
        yield
    finally:
        for parameter, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)
        for module, is_training in modes:
            module.training = is_training


def frozen(model: Any, tokenizer: Any) -> BaseModel:
    """The caller's model as Loracle needs it.

    Raises:
        ModelError: its tokenizer has no chat template, no end token is declared, or weights are
            offloaded.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "the tokenizer has no chat template; load that of an instruction-tuned model, or set "
            "tokenizer.chat_template"
        )
    offloaded = [name for name, p in model.named_parameters() if p.device.type == "meta"]
    if offloaded:
        raise ModelError(
            f"{len(offloaded)} weights are offloaded to the CPU or the disk ({offloaded[0]}, ...); "
            "load the model so that it fits: in 8 or 4 bit, or a smaller one"
        )
    return wrap_base(name_of(model), model, tokenizer)


def name_of(model: Any) -> str:
    """Where a model was loaded from, or its kind."""
    base = base_of(model)
    return getattr(base.config, "name_or_path", "") or type(base).__name__


def _owning(adapted: Any, layers: _Layers) -> Any:
    """The PeftModel, of a class that puts its own layers on before it does anything with them."""
    vars(adapted)[_OWN_LAYERS] = layers
    if layers.are_on:
        layers.note()
    kind = type(adapted)
    guarded = {name: _guarded(name, kind) for name in _GUARDED}
    adapted.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, **guarded})
    return adapted


def _guarded(name: str, kind: type) -> Callable[..., Any]:
    def guarded(self: Any, *arguments: Any, **settings: Any) -> Any:
        layers: _Layers = vars(self)[_OWN_LAYERS]
        layers.put_on()
        own = getattr(kind, name, None)
        method = own.__get__(self) if own else getattr(self.base_model, name)
        found = method(*arguments, **settings)
        if not layers.are_on:
            # Unloaded: the base is the caller's again, as it was before the training.
            layers.take_off(keep_biases=name == "merge_and_unload")
        return found

    guarded.__name__ = name
    guarded.__doc__ = getattr(getattr(kind, name, None), "__doc__", None)
    return guarded


def _places(base: nn.Module, before: dict[str, nn.Module] | None) -> Iterator[_Place]:
    """Where an adapter's layers are. before: the modules without it; None asks the layers."""
    for path, module in list(base.named_modules()):
        known = (before or {}).get(path, module)
        original = _without_adapter(module) if before is None else known
        if original is not module:
            parent, _, name = path.rpartition(".")
            yield _Place(base.get_submodule(parent), name, original, module)


def _without_adapter(module: Any) -> nn.Module:
    wrapped = module.get_base_layer() if _is_layer(module) else module
    original: nn.Module = vars(wrapped).get("_modules", {}).get("original_module", wrapped)
    return original


def _tuner_layers(base: nn.Module) -> list[Any]:
    return [module for module in base.modules() if _is_layer(module)]


def _is_layer(module: nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(module, BaseTunerLayer)


def _is_peft(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)
