"""Own kernels for a CPU (kernels.c), built once by the machine's C compiler, kept in the cache.

They are optional: without a compiler, or with LORACLE_NATIVE=off, torch's own operations do the
same in more passes over memory. `why_off` says why they are not used.
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

_SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-fPIC", "-fopenmp"),
)
_BUILD_SECONDS = 60
KERNEL_TYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}
_SWITCH = "LORACLE_NATIVE"


class NativeError(RuntimeError):
    """Why the kernels cannot be used here."""


class Kernels(NamedTuple):
    """The loaded library. Tensors are contiguous, on the CPU, of one type: see `takes`."""

    library: Any

    def rms_norm(self, x_NI: Tensor, weight_I: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """The normed rows, and 1 / root mean square, by row: (N, I), (N,)."""
        y_NI = torch.empty_like(x_NI)
        inverse_N = x_NI.new_empty(len(x_NI), dtype=torch.float32)
        if _has_values(x_NI):
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
        if _has_values(gate_NI):
            self._call("swiglu", gate_NI, (gate_NI, up_NI, y_NI))
        return y_NI

    def swiglu_backward(
        self, gradient_NI: Tensor, gate_NI: Tensor, up_NI: Tensor
    ) -> tuple[Tensor, Tensor]:
        d_gate_NI, d_up_NI = torch.empty_like(gate_NI), torch.empty_like(up_NI)
        self._call("swiglu_backward", gate_NI, (gradient_NI, gate_NI, up_NI, d_gate_NI, d_up_NI))
        return d_gate_NI, d_up_NI

    def drop(
        self,
        x_NI: Tensor,
        keys_N: np.ndarray,
        layer_word: int,
        distribution: np.ndarray,
        *,
        in_place: bool,
    ) -> Tensor:
        """x with the features zeroed that every token's key draws (token_dropout.py)."""
        y_NI = x_NI if in_place else torch.empty_like(x_NI)
        if _has_values(x_NI):
            self.library.drop(
                _pointer(x_NI),
                _pointer(y_NI),
                ctypes.c_void_p(keys_N.ctypes.data),
                ctypes.c_uint64(layer_word),
                ctypes.c_void_p(distribution.ctypes.data),
                *map(ctypes.c_int64, (len(distribution), *x_NI.shape, x_NI.element_size())),
            )
        return y_NI

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
    found = _loaded(os.environ.get(_SWITCH, ""))
    return found if isinstance(found, Kernels) else None


def why_off() -> str | None:
    """Why there are no kernels; None if there are."""
    found = _loaded(os.environ.get(_SWITCH, ""))
    return found if isinstance(found, str) else None


@cache
def _loaded(switch: str) -> Kernels | str:
    if switch.lower() in ("off", "0", "no", "false"):
        return f"switched off by {_SWITCH}={switch}"
    try:
        return Kernels(ctypes.CDLL(str(_built())))
    except (NativeError, OSError) as error:
        return str(error)


def _built() -> Path:
    """The library, from the cache or built now. Raises NativeError, OSError."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise NativeError("there is no C compiler; install gcc (apt-get install gcc)")
    library = cache_folder() / "native" / f"kernels-{_key(compiler)}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    unfinished = library.with_name(f".{library.name}.{secrets.token_hex(4)}")
    try:
        _run(compiler, *_FLAGS, "-shared", str(_SOURCE), "-o", str(unfinished), *_thread_library())
        unfinished.rename(library)
    finally:
        unfinished.unlink(missing_ok=True)
    return library


def _key(compiler: str) -> str:
    """Of the source, the compiler and the processor: a folder may be shared by machines."""
    processor = Path("/proc/cpuinfo")
    text = processor.read_text() if processor.is_file() else platform.processor()
    traits = re.findall(r"^(?:model name|flags|features)\s*:.*$", text, re.MULTILINE | re.I)
    parts = [_SOURCE.read_text(), *_FLAGS, _run(compiler, "--version"), *_thread_library()]
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
        raise NativeError(f"{command[0]} cannot build {_SOURCE.name}: {said or done.returncode}")
    return done.stdout


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _has_values(tensor: Tensor) -> bool:
    """A tensor of a forecast has a shape alone."""
    return type(tensor) in (Tensor, torch.nn.Parameter)
