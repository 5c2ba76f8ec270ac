"""Own kernels for a CPU (the C files here), built once by its C compiler, kept in the cache.

They are optional: without a compiler, or with LORACLE_NATIVE=off, torch's own operations do the
same in more passes over memory. `why_off` says why they are not used. They are built for this
processor, unless LORACLE_NATIVE_ARCH names another (what the compiler's -march takes): with
x86-64-v3 they use what a processor with AVX2 and without AVX-512 has.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import secrets
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from loracle.files import cache_folder

_FOLDER = Path(__file__).parent
_SOURCES = [_FOLDER / name for name in ("kernels.c", "lora.c", "attention.c", "loss.c")]
_HEADER = _FOLDER / "values.h"
_RANKS = 8
"""lora.c fills ranks up to a multiple of this."""
_FLAGS = (
    *("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-fPIC", "-fopenmp"),
)
_BUILD_SECONDS = 60
KERNEL_TYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}
_SWITCH, _ARCHITECTURE = "LORACLE_NATIVE", "LORACLE_NATIVE_ARCH"


class NativeError(RuntimeError):
    """Why the kernels cannot be used here."""


class Draws(NamedTuple):
    """What the dropout of one layer draws from: see token_dropout.py.

    keys_N: one a token, unsigned words of 64 bits. distribution: P(hits <= k), ascending.
    """

    keys_N: np.ndarray
    layer_word: int
    distribution: np.ndarray


class LoraWeights(NamedTuple):
    """An adapter's two matrices, both float32 or both bfloat16, and the update's scale."""

    a_RI: Tensor
    b_OR: Tensor
    scale: float


class Kernels(NamedTuple):
    """The loaded library. Tensors are contiguous, on the CPU, of one type: see `takes`."""

    library: Any

    def rms_norm(self, x_NI: Tensor, weight_I: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """The normed rows, and 1 / root mean square, by row: (N, I), (N,)."""
        y_NI = torch.empty_like(x_NI)
        inverse_N = x_NI.new_empty(len(x_NI), dtype=torch.float32)
        if has_values(x_NI):
            self._call("rms_norm", x_NI, (x_NI, weight_I, y_NI, inverse_N), ctypes.c_float(eps))
        return y_NI, inverse_N

    def rms_norm_backward(
        self, gradient_NI: Tensor, x_NI: Tensor, weight_I: Tensor, inverse_N: Tensor
    ) -> Tensor:
        d_x_NI = torch.empty_like(x_NI)
        self._call("rms_norm_backward", x_NI, (gradient_NI, x_NI, weight_I, inverse_N, d_x_NI))
        return d_x_NI

    def swiglu(self, gate_NI: Tensor, up_NI: Tensor) -> Tensor:
        """silu(gate) * up."""
        y_NI = torch.empty_like(gate_NI)
        if has_values(gate_NI):
            self._call("swiglu", gate_NI, (gate_NI, up_NI, y_NI))
        return y_NI

    def swiglu_backward(
        self, gradient_NI: Tensor, gate_NI: Tensor, up_NI: Tensor
    ) -> tuple[Tensor, Tensor]:
        d_gate_NI, d_up_NI = torch.empty_like(gate_NI), torch.empty_like(up_NI)
        self._call("swiglu_backward", gate_NI, (gradient_NI, gate_NI, up_NI, d_gate_NI, d_up_NI))
        return d_gate_NI, d_up_NI

    def drop(self, x_NI: Tensor, draws: Draws, *, in_place: bool) -> Tensor:
        """x with the features zeroed that every token's key draws (token_dropout.py)."""
        y_NI = x_NI if in_place else torch.empty_like(x_NI)
        if has_values(x_NI):
            sizes = map(ctypes.c_int64, (*x_NI.shape, x_NI.element_size()))
            self.library.drop(_pointer(x_NI), _pointer(y_NI), _dropout(draws), *sizes)
        return y_NI

    def lora_forward(
        self, x_NI: Tensor, y_NO: Tensor, lora: LoraWeights, draws: Draws | None
    ) -> Tensor:
        """Add scale * B A dropped(x) to y; returns A dropped(x), with ranks filled up: (N, R')."""
        rank = len(lora.a_RI)
        update_NR = x_NI.new_empty(len(x_NI), -(-rank // _RANKS) * _RANKS)
        if has_values(x_NI):
            function = getattr(self.library, f"lora_forward_{KERNEL_TYPES[x_NI.dtype]}")
            tensors = (x_NI, lora.a_RI, lora.b_OR, y_NO, update_NR)
            function(*map(_pointer, tensors), *_lora_sizes(x_NI, lora, draws))
        return update_NR

    def lora_backward(
        self,
        gradient_NO: Tensor,
        x_NI: Tensor,
        update_NR: Tensor,
        lora: LoraWeights,
        d_x_NI: Tensor | None,
        draws: Draws | None,
    ) -> tuple[Tensor, Tensor]:
        """The gradients of A and B, float32; the update's part of x's is added to d_x."""
        d_a_RI = torch.empty(lora.a_RI.shape, dtype=torch.float32)
        d_b_OR = torch.empty(lora.b_OR.shape, dtype=torch.float32)
        function = getattr(self.library, f"lora_backward_{KERNEL_TYPES[x_NI.dtype]}")
        given = (gradient_NO, x_NI, update_NR, lora.a_RI, lora.b_OR)
        d_x = None if d_x_NI is None else _pointer(d_x_NI)
        gradients = (d_x, _pointer(d_a_RI), _pointer(d_b_OR))
        function(*map(_pointer, given), *gradients, *_lora_sizes(x_NI, lora, draws))
        return d_a_RI, d_b_OR

    def masked_softmax(self, scores_HQJ: Tensor, bias_QJ: Tensor, scale: float) -> None:
        """Write softmax(scores * scale + bias) over the scores."""
        name = f"masked_softmax_{KERNEL_TYPES[scores_HQJ.dtype]}"
        sizes = map(ctypes.c_int64, scores_HQJ.shape)
        pointers = map(_pointer, (scores_HQJ, bias_QJ))
        getattr(self.library, name)(*pointers, *sizes, ctypes.c_float(scale))

    def softmax_backward(self, probability_NJ: Tensor, gradient_NJ: Tensor, scale: float) -> None:
        """Write the scores' gradient over that of the probabilities."""
        tensors = (probability_NJ, gradient_NJ)
        self._call("softmax_backward", probability_NJ, tensors, ctypes.c_float(scale))

    def rotary(
        self, x_HND: Tensor, cos_ND: Tensor, sin_ND: Tensor, y_HND: Tensor, *, backward: bool
    ) -> None:
        """Rotate pairs of features by their token's angles: y = x cos + rotate_half(x) sin.

        x and y may be transposed, with features side by side. backward: the same for a gradient.
        """
        function = getattr(self.library, f"rotary_{KERNEL_TYPES[x_HND.dtype]}")
        sizes = (*x_HND.shape, *x_HND.stride()[:2], *y_HND.stride()[:2])
        tensors = map(_pointer, (x_HND, cos_ND, sin_ND, y_HND))
        function(*tensors, *map(ctypes.c_int64, sizes), ctypes.c_int(backward))

    def cross_entropy(self, logits_TV: Tensor, token_ids_T: Tensor, weights_T: Tensor) -> Tensor:
        """The weighted losses (T,), float32; their gradient is written over the logits."""
        losses_T = torch.zeros(len(logits_TV), dtype=torch.float32)
        if has_values(logits_TV):
            tensors = (logits_TV, token_ids_T.contiguous(), weights_T.float().contiguous())
            self._call("cross_entropy", logits_TV, (*tensors, losses_T))
        return losses_T

    def _call(self, name: str, like_NI: Tensor, tensors: tuple[Tensor, ...], *more: Any) -> None:
        function = getattr(self.library, f"{name}_{KERNEL_TYPES[like_NI.dtype]}")
        sizes = map(ctypes.c_int64, like_NI.shape)
        function(*map(_pointer, tensors), *sizes, *more)


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels do these: on the CPU, of one type that they know."""
    dtype = tensors[0].dtype
    return dtype in KERNEL_TYPES and all(
        t.device.type == "cpu" and t.dtype == dtype for t in tensors
    )


def kernels() -> Kernels | None:
    """The kernels; None if they are switched off or cannot be built."""
    found = _found()
    return found if isinstance(found, Kernels) else None


def why_off() -> str | None:
    """Why there are no kernels; None if there are."""
    found = _found()
    return found if isinstance(found, str) else None


def cost_of_none() -> str | None:
    """A sentence on what it costs that there are no kernels; None if there are."""
    reason = why_off()
    if reason is None:
        return None
    return (
        f"this processor's own kernels are not used: {reason}; torch's operations do the same, and "
        "training takes about a fifth longer"
    )


def _found() -> Kernels | str:
    return _loaded(os.environ.get(_SWITCH, ""), os.environ.get(_ARCHITECTURE, "") or "native")


@cache
def _loaded(switch: str, architecture: str) -> Kernels | str:
    if switch.lower() in ("off", "0", "no", "false"):
        return f"switched off by {_SWITCH}={switch}"
    try:
        return Kernels(ctypes.CDLL(str(_built(architecture))))
    except (NativeError, OSError) as error:
        asked = "" if architecture == "native" else f" ({_ARCHITECTURE}={architecture})"
        return f"{error}{asked}"


def _built(architecture: str) -> Path:
    """The library, from the cache or built now. Raises NativeError, OSError."""
    flags = (*_FLAGS, f"-march={architecture}")
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise NativeError("there is no C compiler; install gcc (apt-get install gcc)")
    library = cache_folder() / "native" / f"kernels-{_key(compiler, flags)}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    unfinished = library.with_name(f".{library.name}.{secrets.token_hex(4)}")
    try:
        sources = map(str, _SOURCES)
        _run(compiler, *flags, "-shared", *sources, "-o", str(unfinished), *_thread_library())
        unfinished.rename(library)
    finally:
        unfinished.unlink(missing_ok=True)
    return library


def _key(compiler: str, flags: tuple[str, ...]) -> str:
    """Of the source, the compiler, its flags and the processor: machines may share a folder."""
    processor = Path("/proc/cpuinfo")
    text = processor.read_text() if processor.is_file() else platform.processor()
    traits = re.findall(r"^(?:model name|flags|features)\s*:.*$", text, re.MULTILINE | re.I)
    parts = [
        *(path.read_text() for path in (*_SOURCES, _HEADER)),
        *flags,
        _run(compiler, "--version"),
        *_thread_library(),
    ]
    return hashlib.sha256("\n".join([*parts, *sorted(set(traits))]).encode()).hexdigest()[:16]


def _thread_library() -> list[str]:
    """torch's own OpenMP library, as it is loaded: a second one would fight for the cores."""
    maps = Path("/proc/self/maps")
    text = maps.read_text() if maps.is_file() else ""
    found = re.search(r"(/\S*lib(?:gomp|iomp5|omp)[-.\w]*\.so[.\d]*)$", text, re.MULTILINE)
    return [found[1]] if found else []


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NativeError(f"{command[0]} took over {_BUILD_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        said = next((line for line in lines if "error" in line), lines[0] if lines else "")
        raise NativeError(f"{command[0]} cannot build the kernels: {said or done.returncode}")
    return done.stdout


class _Dropout(ctypes.Structure):
    """Dropout in values.h."""

    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("layer_word", ctypes.c_uint64),
        ("distribution", ctypes.c_void_p),
        ("distribution_size", ctypes.c_int64),
    )


def _dropout(draws: Draws | None) -> _Dropout:
    if draws is None:
        return _Dropout(None, 0, None, 0)
    keys, distribution = draws.keys_N.ctypes.data, draws.distribution.ctypes.data
    return _Dropout(keys, draws.layer_word, distribution, len(draws.distribution))


def _lora_sizes(x_NI: Tensor, lora: LoraWeights, draws: Draws | None) -> tuple[Any, ...]:
    rank, out_size = len(lora.a_RI), len(lora.b_OR)
    sizes = (*x_NI.shape, out_size, rank, lora.a_RI.element_size())
    return (*map(ctypes.c_int64, sizes), ctypes.c_float(lora.scale), _dropout(draws))


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def has_values(tensor: Tensor) -> bool:
    """A tensor of a forecast has a shape alone."""
    return type(tensor) in (Tensor, torch.nn.Parameter)
