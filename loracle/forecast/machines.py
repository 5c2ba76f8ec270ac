"""The hardware: this machine, or a named card, with the memory and rates that a forecast needs.

The cards' figures are NVIDIA's own: dense bfloat16 on tensor cores with float32 accumulation, and
the memory's bandwidth, from the data sheets of the products and the appendices of the Ada and
Blackwell architecture papers. The share of the rate that training reaches is `used_share`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from loracle.errors import PlanError
from loracle.forecast.parts import LayerRates
from loracle.plan import nearest

Clock = Callable[[], float]

_USED_SHARES = {("cpu", 2): 0.53, ("cpu", 4): 0.75}
_GPU_USED_SHARE = 0.4
_PROCESS_BYTES, _GPU_PROCESS_BYTES = 525_000_000, 900_000_000


def process_bytes(device_type: str) -> int:
    """Python with its libraries: 500 to 550 MB, by which optional packages torch finds (measured).

    On a GPU, its context and the kernels' workspace (estimated).
    """
    return _PROCESS_BYTES if device_type == "cpu" else _GPU_PROCESS_BYTES


def used_share(device_type: str, value_bytes: int) -> float:
    """The share of the products' rate that a training step reaches.

    Measured by processor time on one CPU with AVX512-BF16, with the kernels of native/: 0.49 to
    0.59 in bfloat16 for models as wide as 384 and 576 (0.19 for one as wide as 128, whose
    elementwise work outweighs its products), about 0.74 in float32. Not yet
    measured on a GPU: LoRA trainings report 0.35 to 0.5. A probe replaces all of them.
    """
    if device_type != "cpu":
        return _GPU_USED_SHARE
    return _USED_SHARES["cpu", 2 if value_bytes <= 2 else 4]


class Card(NamedTuple):
    """gigabytes: of memory. teraflops: dense bfloat16. gigabytes_per_second: of its memory."""

    name: str
    gigabytes: float
    teraflops: float
    gigabytes_per_second: float


CARDS = {
    "t4": Card("NVIDIA T4 (float16)", 15.8, 65, 320),
    "rtx3090": Card("NVIDIA RTX 3090", 25.4, 71, 936),
    "rtx4060ti": Card("NVIDIA RTX 4060 Ti 16 GB", 17.0, 44, 288),
    "rtx4080": Card("NVIDIA RTX 4080", 17.0, 97, 717),
    "rtx4090": Card("NVIDIA RTX 4090", 25.3, 165, 1008),
    "rtx5090": Card("NVIDIA RTX 5090", 34.1, 210, 1792),
    "a10": Card("NVIDIA A10", 24.0, 125, 600),
    "a100-40gb": Card("NVIDIA A100 40 GB", 42.3, 312, 1555),
    "a100-80gb": Card("NVIDIA A100 80 GB", 85.0, 312, 2039),
    "a6000": Card("NVIDIA RTX A6000", 51.0, 155, 768),
    "l4": Card("NVIDIA L4", 24.0, 121, 300),
    "l40s": Card("NVIDIA L40S", 48.0, 362, 864),
    "h100": Card("NVIDIA H100 SXM", 85.0, 989, 3350),
    "h20": Card("NVIDIA H20", 102.0, 148, 4000),
    "h200": Card("NVIDIA H200", 150.0, 989, 4800),
}
_OTHER_NAMES = {"4090": "rtx4090", "3090": "rtx3090", "5090": "rtx5090", "a100": "a100-80gb"}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB|G|MB)?\s*", re.IGNORECASE)
_UNITS = {"gb": 1e9, "g": 1e9, "gib": 2.0**30, "mb": 1e6}


@dataclass(frozen=True)
class Machine:
    """What a forecast is for.

    flops: of matrix products in the model's precision, a second; 0: not known.
    bytes_per_second: at which weights are read while decoding.
    """

    name: str
    device_type: str
    num_devices: int
    memory_bytes: int
    flops: float
    bytes_per_second: float
    is_here: bool
    layer_rates: LayerRates | None = None
    """Measured on this machine's processor; None: used_share stands for it."""


@dataclass(frozen=True)
class MachineChoice:
    """Which machine to plan for: a card by name, a card by its memory ("24GB"), and how many of
    them; this machine if neither is given."""

    device: str | None = None
    memory: str | None = None
    count: int = 1

    @property
    def is_named(self) -> bool:
        return self.device is not None or self.memory is not None


def named_machine(device: str | None, memory: str | None, count: int) -> Machine:
    """A card of the table, another memory, or both.

    Raises:
        PlanError: no such card, or no size.
    """
    card = CARDS["rtx4090"]
    name = f"a card with {memory}, as fast as an RTX 4090"
    if device is not None:
        key = re.sub(r"[\s_]", "", device.lower())
        key = _OTHER_NAMES.get(key, key)
        if key not in CARDS:
            near = nearest(key, list(CARDS))
            hint = f"did you mean {near}?" if near else f"known: {', '.join(CARDS)}"
            raise PlanError(f"--device {device}: no card with that name is known; {hint}")
        card = CARDS[key]
        name = f"{card.name} with {memory}" if memory else card.name
    num_bytes = _bytes_of(memory) if memory else int(card.gigabytes * 1e9)
    return Machine(
        name, "cuda", count, num_bytes, card.teraflops * 1e12, card.gigabytes_per_second * 1e9,
        is_here=False,
    )  # fmt: skip


def this_machine(dtype_name: str, device_type: str) -> Machine:
    """Where this process runs, with the rates of products and of memory measured briefly."""
    import torch

    from loracle.model.memory import free_memory
    from loracle.model.placement import preferred_device

    device = preferred_device()
    free = free_memory(device.type)
    rates = measured_rates(device.type, dtype_name)
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else "this machine's processor"
    num_devices = torch.cuda.device_count() if on_gpu else 1
    return Machine(
        name, device_type, num_devices, free.num_bytes if free else 0, *rates, is_here=True
    )  # fmt: skip


class Rates(NamedTuple):
    """Floating-point operations a second of large products; bytes read a second."""

    flops: float
    bytes_per_second: float


@cache
def measured_rates(device_type: str, dtype_name: str, clock: Clock = time.perf_counter) -> Rates:
    """Measured in about a tenth of a second; the machine's other work slows it as it will ours."""
    import torch

    dtype, device = getattr(torch, dtype_name), torch.device(device_type)
    size = 4096 if device_type == "cuda" else 768
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    large = torch.zeros(1 << 24, dtype=torch.float32, device=device)
    product_seconds = _best_seconds(lambda: a @ b, device_type, clock)
    read_seconds = _best_seconds(lambda: large.sum(), device_type, clock)
    return Rates(2.0 * size**3 / product_seconds, 4.0 * large.numel() / read_seconds)


def _best_seconds(
    work: Callable[[], object], device_type: str, clock: Clock, num_times: int = 4
) -> float:
    import torch

    seconds = []
    for _ in range(num_times):
        started = clock()
        work()
        if device_type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    return max(min(seconds[1:]), 1e-9)


def _bytes_of(text: str) -> int:
    found = _SIZE.fullmatch(text)
    num_bytes = float(found[1]) * _UNITS[(found[2] or "GB").lower()] if found else 0.0
    if not num_bytes:
        raise PlanError(f"--memory {text}: found no size; expected one such as 24GB or 23.5GiB")
    return int(num_bytes)
