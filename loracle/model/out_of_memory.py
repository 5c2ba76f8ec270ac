"""Distinguishing out-of-memory from other errors, on a GPU and on the CPU."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    message = str(error)
    return "DefaultCPUAllocator" in message or "out of memory" in message


def release_cached_memory() -> None:
    """Release the GPU memory that torch caches."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
