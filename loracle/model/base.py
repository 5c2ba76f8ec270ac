"""Load a frozen base, run a forest through it, and check that it is unchanged.

Shape suffixes: N packed tokens, E hidden size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loracle.errors import ModelError
from loracle.forest.attention.backends import AttentionBackend
from loracle.forest.attention.interface import ForestContext
from loracle.forest.attention.uploading import on_device
from loracle.forest.trie import Forest, IntArray
from loracle.model.fused_layers import fused
from loracle.model.head import logit_scale
from loracle.model.last_layer import only_at
from loracle.model.loaded_form import BaseSource, LoadedForm
from loracle.model.native_memory import bound_kernel_cache
from loracle.model.placement import (
    chosen_device,
    input_device,
    require_accelerate,
    state_of,
)
from loracle.model.quantization import (
    NONE,
    num_parameters,
    products_in,
    quantization_config,
    quantization_of,
    require_products,
    use_exact_products,
)

_CHECKSUM_CHUNK = 1 << 22


@dataclass(frozen=True)
class BaseModel:
    """A frozen base with its tokenizer.

    dtype: of the weights; for quantised weights, of the products.
    device: where token ids go in; layers may be on others (see placement.py).
    end_token_ids: every token id that the model declares as ending an answer.
    quantization: none, int8, nf4, or another packing of the weights.
    attention: what computes attention inside packed rows; None is what needs nothing beyond torch
        on that device.
    source: how it was loaded; None for a model that the caller had in memory.
    """

    name: str
    model: Any
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device
    end_token_ids: frozenset[int]
    quantization: str = NONE
    attention: AttentionBackend | None = None
    source: BaseSource | None = None

    @property
    def num_parameters(self) -> int:
        return num_parameters(self.model)

    @property
    def max_length_tokens(self) -> int | None:
        """The longest sequence the model was made for; None if it declares none."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)


def preferred_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if the processor multiplies it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "mps":
        return torch.float32
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32


def chosen_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The precision for a plan's `model.dtype`."""
    chosen: torch.dtype = preferred_dtype(device) if dtype == "auto" else getattr(torch, dtype)
    return chosen


def load_tokenizer(folder_or_id: str, revision: str | None, trust_remote_code: bool) -> Any:
    """Load a tokenizer that has a chat template.

    Raises:
        ModelError: not found, not a tokenizer, or without a chat template.
    """
    from transformers import AutoTokenizer

    require_local_folder(folder_or_id)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder_or_id, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_not_loadable("tokenizer", folder_or_id, error)) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"model {folder_or_id}: its tokenizer has no chat template; "
            "name an instruction-tuned model, or add a chat_template.jinja to its folder"
        )
    return tokenizer


def load_base(
    name: str,
    folder_or_id: str,
    tokenizer: Any,
    form: LoadedForm = LoadedForm(),  # noqa: B008
) -> BaseModel:
    """Load the model `folder_or_id`, frozen and in evaluation mode.

    Raises:
        ModelError: not found, not a causal language model, or not available on this device.
        MissingExtraError: a package for the quantisation or the device map is not installed.
    """
    bound_kernel_cache()
    require_local_folder(folder_or_id)
    _require_safetensors(folder_or_id)
    place = chosen_device(form.device)
    torch_dtype = chosen_dtype(form.dtype, place)
    options: dict[str, Any] = {"trust_remote_code": form.trust_remote_code}
    packing = quantization_config(form.quantization, torch_dtype)
    if packing is not None:
        options["quantization_config"] = packing
    if form.device_map is not None:
        require_accelerate()
        options["device_map"] = form.device_map
    elif packing is not None:
        options["device_map"] = {"": place}
    model = _from_pretrained(folder_or_id, torch_dtype, options)
    if "device_map" not in options and quantization_of(model) == NONE:
        model.to(place)
    base = wrap_base(name, model, tokenizer)
    if base.quantization != form.quantization != NONE:
        raise ModelError(
            f"model.quantization: {form.quantization}, but the weights of {folder_or_id} are "
            f"quantised already ({base.quantization}); set it to none, or name the unquantised "
            "model"
        )
    return dataclasses.replace(base, source=BaseSource(name, folder_or_id, form))


def _from_pretrained(folder_or_id: str, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            folder_or_id, dtype=dtype, use_safetensors=True, low_cpu_mem_usage=True, **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_not_loadable("model", folder_or_id, error)) from error
    except (ImportError, RuntimeError) as error:
        # A quantiser's error about a missing device or package.
        if "quantization_config" not in options:
            raise
        raise ModelError(_not_loadable("model", folder_or_id, error)) from error


def wrap_base(name: str, model: Any, tokenizer: Any) -> BaseModel:
    """Freeze a model that is already in memory, wherever its layers are.

    The layers of a model quantised by bitsandbytes get exact products, permanently.
    """
    model.requires_grad_(False)
    model.eval()
    use_exact_products(model)
    require_products(model)
    return BaseModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        dtype=next(p.dtype for p in model.parameters() if p.is_floating_point()),
        device=input_device(model),
        end_token_ids=end_token_ids(model, tokenizer),
        quantization=quantization_of(model),
    )


def end_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every end token the model, its generation config and its tokenizer declare."""
    return declared_end_token_ids(
        getattr(model, "generation_config", None), model.config.get_text_config(), tokenizer
    )


def declared_end_token_ids(*sources: Any) -> frozenset[int]:
    """The end tokens that any of these objects declares as its `eos_token_id`."""
    declared: set[int] = set()
    for source in sources:
        value = getattr(source, "eos_token_id", None)
        if value is not None:
            declared.update([value] if isinstance(value, int) else value)
    if not declared:
        raise ModelError("the model declares no end token; set eos_token_id in its config")
    return frozenset(declared)


def forest_hidden_states(
    model: Any, forest: Forest, context: ForestContext, wanted: IntArray | None = None
) -> Tensor:
    """Run packed rows through the decoder: the last hidden states, (N, E), of which
    `head.output_head` makes logits.

    wanted: the nodes whose hidden states are asked for, in any order: (W, E) of those; None asks
    for all of them.

    The model's attention must be ATTENTION_NAME (see `attention_implementation`).
    """
    device = input_device(model)
    token_ids_N = on_device(forest.token_ids, device, torch.long)
    depths_N = on_device(forest.depths, device)
    if wanted is None:
        return packed_hidden_states(model, token_ids_N, depths_N, context)
    # One node may be asked for several times, and a pass over no token at all is none.
    nodes, places = np.unique(wanted if len(wanted) else [0], return_inverse=True)
    hidden = packed_hidden_states(model, token_ids_N, depths_N, context, on_device(nodes, device))
    if not len(wanted):
        return hidden[:0]
    return hidden[on_device(places, device)]


def packed_hidden_states(
    model: Any,
    token_ids_N: Tensor,
    positions_N: Tensor,
    context: ForestContext,
    wanted_W: Tensor | None = None,
) -> Tensor:
    """As `forest_hidden_states`, from tensors: token ids and positions of shape (N,).

    wanted_W: sorted, none twice.
    """
    decoder = model.get_decoder()
    pruned = nullcontext(False) if wanted_W is None else only_at(decoder, wanted_W)
    with fused(decoder), pruned as is_pruned:
        output = decoder(
            input_ids=token_ids_N.unsqueeze(0),
            position_ids=positions_N.unsqueeze(0),
            use_cache=False,
            forest=context,
        )
    # The last layer may be on another device than the first.
    hidden: Tensor = output.last_hidden_state[0].to(token_ids_N.device)
    scale = logit_scale(model.config.get_text_config())
    hidden = hidden if scale == 1.0 else hidden * scale
    return hidden if wanted_W is None or is_pruned else hidden[wanted_W]


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A sha256 over names, shapes, types and a checksum of the values, computed on their own
    device.

    The checksum multiplies every word by its own odd number modulo 2**64, so any single changed
    value changes it; it costs one read of the weights.
    """
    digest = hashlib.sha256()
    for name, tensor in tensors:
        line = f"{name} {tuple(tensor.shape)} {tensor.dtype} {_checksum(tensor)}\n"
        digest.update(line.encode())
    return digest.hexdigest()


def base_fingerprint(model: Any) -> str:
    """The fingerprint of all weights and buffers of a base without an adapter."""
    return fingerprint(state_of(model))


def _checksum(tensor: Tensor) -> int:
    words = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    words = torch.nn.functional.pad(words, (0, -len(words) % 4)).view(torch.int32)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for start in range(0, len(words), _CHECKSUM_CHUNK):
        chunk = words[start : start + _CHECKSUM_CHUNK].to(torch.int64)
        odd = torch.arange(start, start + len(chunk), device=words.device).mul_(2).add_(1)
        total += (chunk * odd).sum()
    return int(total)


@contextmanager
def computing(
    base_dtype: torch.dtype, device: torch.device, adapter_model: Any | None
) -> Iterator[None]:
    """The context in which a half-precision base runs with a float32 adapter.

    Adapter weights stay float32 for the optimizer; their products run in the base's precision,
    without casting the activations to float32 and back around every adapted layer.
    """
    if adapter_model is None or base_dtype == torch.float32:
        yield
        return
    with (
        input_casting_off(base_dtype, adapter_model),
        torch.autocast(device.type, dtype=base_dtype),
    ):
        yield


@contextmanager
def answering(base: BaseModel, adapter_model: Any | None) -> Iterator[None]:
    """The context for inference: like `computing`, with LoRA weights rounded once.

    `computing` rounds them for every product, which decoding would do for each token.
    """
    with computing(base.dtype, base.device, adapter_model), ExitStack() as putting_back:
        if adapter_model is not None and base.dtype != torch.float32:
            for name, parameter in adapter_model.named_parameters():
                if "lora_A." in name or "lora_B." in name:
                    putting_back.callback(setattr, parameter, "data", parameter.data)
                    parameter.data = parameter.data.to(base.dtype)
        yield


def input_casting_off(base_dtype: torch.dtype, adapter_model: Any) -> AbstractContextManager[None]:
    """Keep peft from casting activations to the adapter's float32 over a half-precision base."""
    if base_dtype == torch.float32:
        return nullcontext()
    from peft.helpers import disable_input_dtype_casting

    context: AbstractContextManager[None] = disable_input_dtype_casting(adapter_model)
    return context


@contextmanager
def evaluation_precision(base: BaseModel, dtype: str) -> Iterator[BaseModel]:
    """The base temporarily in another precision: `auto` leaves it unchanged.

    The weights are saved and restored, so the base is the same afterwards.
    """
    wanted = base.dtype if dtype == "auto" else getattr(torch, dtype)
    if wanted == base.dtype:
        yield base
        return
    frozen = [p for p in base.model.parameters() if p.dtype == base.dtype and not p.requires_grad]
    before = [parameter.data for parameter in frozen]
    for parameter in frozen:
        parameter.data = parameter.data.to(wanted)
    try:
        with products_in(base.model, wanted):
            yield dataclasses.replace(base, dtype=wanted)
    finally:
        for parameter, data in zip(frozen, before, strict=True):
            parameter.data = data


def require_local_folder(folder_or_id: str) -> None:
    """Raise ModelError if the name is a folder on this machine that is not a model's."""
    path = Path(folder_or_id)
    looks_local = path.is_absolute() or folder_or_id.startswith((".", "~")) or path.exists()
    if looks_local and not (path / "config.json").is_file():
        found = "the folder has no config.json" if path.is_dir() else "there is no such folder"
        raise ModelError(f"model {folder_or_id}: {found}; name a model folder or a hub id")


def _require_safetensors(folder: str) -> None:
    """Refuse a folder whose weights are pickles: loading one may run arbitrary code."""
    path = Path(folder)
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return
    pickles = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickles:
        raise ModelError(
            f"model {folder}: its weights are only in {', '.join(pickles[:3])}, and such a file "
            "may run arbitrary code when it is loaded. If you trust its source, convert it "
            'once:\n  python -c "from transformers import AutoModelForCausalLM as Model; '
            f'Model.from_pretrained({folder!r}).save_pretrained({folder!r})"'
        )


def _not_loadable(what: str, folder_or_id: str, error: Exception) -> str:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"model {folder_or_id}: its {what} cannot be loaded ({first_line}); "
        "check the name, or download it and pass its folder"
    )
