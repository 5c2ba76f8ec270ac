"""Move numpy arrays to a device without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from loracle.forest.blocks import BlockArray

# Kernels are compiled for addresses that are multiples of 16 bytes, four numbers here.
_ALIGNED_NUMBERS = 4


def on_device(
    array: npt.NDArray[Any], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """The array as a tensor there. From pinned memory, a GPU fetches it when its turn comes."""
    tensor = torch.from_numpy(array)
    if dtype is not None:
        tensor = tensor.to(dtype)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def upload(arrays: Sequence[BlockArray], device: torch.device) -> list[Tensor]:
    """Copy int32 arrays to the device, all in one transfer from pinned memory."""
    lengths = [len(array) for array in arrays]
    places = [-(-length // _ALIGNED_NUMBERS) * _ALIGNED_NUMBERS for length in lengths]
    packed = torch.zeros(sum(places), dtype=torch.int32, pin_memory=device.type == "cuda")
    starts = np.concatenate(([0], np.cumsum(places)))[:-1].tolist()
    for array, start in zip(arrays, starts, strict=True):
        packed[start : start + len(array)] = torch.from_numpy(array)
    on_device = packed.to(device, non_blocking=True)
    return [on_device[start : start + n] for start, n in zip(starts, lengths, strict=True)]
