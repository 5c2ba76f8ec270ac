"""Compile the Triton kernels for GPUs that are not here, and print what they need, as JSON.

Started by test_triton_compiles.py in a process of its own, in which kernels are not interpreted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from loracle.forest.attention import triton_kernels
from loracle.forest.attention.triton_rows import (
    block_tokens_for,
    launch_options,
    padded_head_size,
)

KERNELS = ("forward_kernel", "query_gradient_kernel", "key_gradient_kernel")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_FLOAT_TENSORS = ("level_ptr", "delta_ptr")
_FOREST_TENSORS = ("ends_ptr", "depths_ptr", "starts_ptr", "first_partial_ptr", "partners_ptr")


def types(kernel: Any, dtype: str) -> dict[str, str]:
    """The kernel's arguments as Triton names their types."""

    def type_of(name: str) -> str:
        if name in _FLOAT_TENSORS:
            return "*fp32"
        if name in _FOREST_TENSORS:
            return "*i32"
        if name.endswith("_ptr"):
            return f"*{dtype}"
        return "fp32" if name in ("scale", "d_scale") else "i32"

    return {
        parameter.name: "constexpr" if parameter.is_constexpr else type_of(parameter.name)
        for parameter in kernel.params
    }


def constants(head_size: int, dtype: str) -> dict[str, Any]:
    return {
        "GROUPS": 7,
        "WINDOWED": True,
        "BLOCK": block_tokens_for(head_size, DTYPES[dtype]),
        "HEAD": head_size,
        "D": padded_head_size(head_size),
    }


def compiled(name: str, dtype: str, head_size: int, architecture: int) -> dict[str, int]:
    """Bytes of shared memory of a program, and bytes of a thread that registers do not hold."""
    kernel = getattr(triton_kernels, name)
    fixed = constants(head_size, dtype)
    aligned = [
        i for i, p in enumerate(kernel.params) if p.name.endswith(("_ptr", "_head", "_node"))
    ]
    source = ASTSource(
        kernel,
        types(kernel, dtype),
        constexprs=fixed,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = launch_options(head_size, DTYPES[dtype], fixed["BLOCK"])
    result = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    return {
        "shared_bytes": result.metadata.shared,
        "spilled_bytes": spilled_bytes(result.asm["cubin"]),
    }


def spilled_bytes(cubin: bytes) -> int:
    reader = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [reader, "--dump-resource-usage", file.name]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (found,) = re.findall(r"STACK:(\d+)", shown)
    return int(found)


def num_variants(name: str) -> int:
    """How many kernels Triton would make of forests of all these lengths, windows and scales."""
    kernel = getattr(triton_kernels, name)
    backend = make_backend(GPUTarget("cuda", 90, 32))
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    variants = set()
    for num_nodes in (1, 2, 16, 17, 1024, 1025, 16384):
        for window in (1, 16, 4095):
            arguments: dict[str, Any] = constants(128, "bf16")
            for argument, kind in types(kernel, "bf16").items():
                if kind.startswith("*"):
                    arguments[argument] = torch.empty(num_nodes * 16, dtype=torch.int32)
                elif kind == "fp32":
                    arguments[argument] = 1.0 / num_nodes
                elif argument.endswith(("_head", "_node")):
                    arguments[argument] = 128 * (28 if argument.endswith("_node") else 1)
            arguments |= {"num_nodes": num_nodes, "window": window}
            variants.add(str(bind(**arguments)[1]))
    return len(variants)


if __name__ == "__main__":
    cases = json.loads(sys.argv[1])
    found = [{**case, **compiled(**case)} for case in cases]
    variants = {name: num_variants(name) for name in KERNELS}
    sys.stdout.write(json.dumps({"compiled": found, "variants": variants}))
