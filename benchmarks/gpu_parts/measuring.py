"""Times, memory and rates of one device; without a GPU, of the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


class Case(NamedTuple):
    """One line of the result: what it is called, and what measures it."""

    name: str
    measure: Callable[[], Any]


@dataclass(frozen=True)
class Bench:
    """What a part is given. is_tiny: sizes for a CPU, to see that the program works."""

    device: torch.device
    is_tiny: bool

    @property
    def half(self) -> torch.dtype:
        """The precision of models as they are used."""
        return torch.float32 if self.is_tiny else torch.bfloat16


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(bench: Bench, run: Callable[[], Any], turns: int = 3) -> float:
    """The median of several turns, after one that warms up."""
    run()
    times = []
    for _ in range(1 if bench.is_tiny else turns):
        wait(bench.device)
        started = time.perf_counter()
        run()
        wait(bench.device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


@contextmanager
def peak_memory(bench: Bench) -> Iterator[dict[str, float | None]]:
    """Filled at the end with the most memory that tensors took, in GB; None on a CPU."""
    found: dict[str, float | None] = {"peak_gb": None}
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
    yield found
    if bench.device.type == "cuda":
        found["peak_gb"] = round(torch.cuda.max_memory_allocated(bench.device) / 1e9, 2)


@contextmanager
def memory_cap(bench: Bench, gigabytes: float) -> Iterator[None]:
    """The memory of a smaller card. On a CPU there is none."""
    if bench.device.type != "cuda":
        yield
        return
    total = torch.cuda.get_device_properties(bench.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total), bench.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)


def matmul_tflops(bench: Bench, dtype: torch.dtype) -> float:
    """What a large product of matrices reaches: the rate that MFU is measured against."""
    size = 256 if bench.is_tiny else 8192
    left, right = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))

    def products() -> None:
        for _ in range(10):
            torch.mm(left, right)

    return 10 * 2 * size**3 / seconds_of(bench, products) / 1e12
