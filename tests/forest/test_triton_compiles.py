"""The Triton kernels compile for real cards and fit into them; nothing is run."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="needs triton: pip install 'loracle[cuda]'")
pytestmark = pytest.mark.skipif(
    not (Path(triton.__file__).parent / "backends/nvidia/bin/ptxas").exists(),
    reason="this build of triton has no compiler for NVIDIA's cards",
)

KERNELS = ("forward_kernel", "query_gradient_kernel", "key_gradient_kernel")
SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""What a program may have by compute capability: A100; RTX 4090 and L4; H100; B200 (CUDA C++
Programming Guide, table of technical specifications)."""
ACCEPTED_SPILL_BYTES = 640
"""Of a thread, beyond its registers. It costs time and not correctness."""


def compile_all(cases: list[dict[str, Any]], tmp_path) -> dict[str, Any]:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.forest.compiling_kernels", json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def cases(dtypes: list[str], head_sizes: list[int], architectures: list[int]):
    names = ("name", "dtype", "head_size", "architecture")
    every = itertools.product(KERNELS, dtypes, head_sizes, architectures)
    return [dict(zip(names, case, strict=True)) for case in every]


def assert_fits(found: dict[str, Any]) -> None:
    for one in found["compiled"]:
        assert one["shared_bytes"] <= SHARED_BYTES[one["architecture"]], one
        assert one["spilled_bytes"] <= ACCEPTED_SPILL_BYTES, one


def test_kernels_fit_a_4090_and_no_length_of_a_forest_compiles_again(tmp_path):
    found = compile_all(cases(["bf16"], [128], [89]), tmp_path)
    assert_fits(found)
    assert found["variants"] == dict.fromkeys(KERNELS, 1)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [*SHARED_BYTES])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_kernels_fit_every_card_with_every_head_size(dtype, architecture, tmp_path):
    assert_fits(compile_all(cases([dtype], [64, 128, 256], [architecture]), tmp_path))
