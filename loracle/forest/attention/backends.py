"""What can compute attention inside packed rows, and what fits a device and a model.

    spans    CPU: matrix products span by span (span_products.py)
    dense    any device: a mask of every row (dense.py); the reference
    triton   GPU: Loracle's own kernels (triton_rows.py); on a CPU with TRITON_INTERPRET=1
    flex     GPU: torch's FlexAttention (flex_rows.py)

A model loads with the first that passes the self-test (model/attention_choice.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch

from loracle.forest.attention import flex_rows, triton_rows

AttentionBackend = Literal["spans", "dense", "triton", "flex"]
AskedBackend = Literal["auto", "dense", "triton", "flex"]

BLOCKWISE: frozenset[AttentionBackend] = frozenset({"triton", "flex"})
"""They are compiled, and skip blocks of nodes."""

_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Possible(NamedTuple):
    """A backend to try, or the reason why it cannot be."""

    backend: AttentionBackend
    problem: str | None


def default_backend(device: torch.device) -> AttentionBackend:
    """What needs nothing beyond torch."""
    return "spans" if device.type == "cpu" else "dense"


def block_tokens_of(backend: AttentionBackend | None, head_size: int, dtype: torch.dtype) -> int:
    """The nodes of a block that it may skip; 1 if it skips none."""
    if backend == "triton":
        return triton_rows.block_tokens_for(head_size, dtype)
    return flex_rows.BLOCK_TOKENS if backend == "flex" else 1


def backends_to_try(
    asked: AskedBackend, device: torch.device, head_size: int, dtype: torch.dtype
) -> Iterator[Possible]:
    """Backends in the order to try them; the last needs nothing beyond torch.

    asked: auto, or the one to try first.
    """
    first: tuple[AttentionBackend, ...] = (asked,) if asked != "auto" else ()
    if asked == "auto" and device.type == "cuda":
        first = ("triton", "flex")
    for backend in dict.fromkeys((*first, default_backend(device))):
        problem = None
        if backend in BLOCKWISE:
            problem = _missing(backend, device) or _unfit(backend, head_size, dtype)
        yield Possible(backend, problem)


def _missing(backend: AttentionBackend, device: torch.device) -> str | None:
    """What this machine lacks for it."""
    if device.type not in ("cuda", "cpu"):
        return f"it does not run on {device.type}"
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if backend == "triton" and device.type == "cpu" and not is_interpreted:
        return "Triton kernels need a GPU (with TRITON_INTERPRET=1 a CPU runs them, very slowly)"
    if (backend == "triton" or device.type == "cuda") and find_spec("triton") is None:
        return "the package triton is not installed (pip install 'loracle[cuda]')"
    return None


def _unfit(backend: AttentionBackend, head_size: int, dtype: torch.dtype) -> str | None:
    """What of the model it cannot do."""
    if backend == "triton" and head_size > triton_rows.MAX_HEAD_SIZE:
        return f"heads of {head_size} are larger than {triton_rows.MAX_HEAD_SIZE}"
    if backend == "triton" and dtype not in _TRITON_DTYPES:
        return f"its kernels do not compute in {str(dtype).removeprefix('torch.')}"
    return None
