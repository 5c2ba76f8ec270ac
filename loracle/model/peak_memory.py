"""The peak memory of this process, on the GPU or on the machine.

The system counts one peak for the whole process. Linux and torch can start the count again, so
that every trial has its own; what the process held before is remembered here.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"

_highest_before: dict[str, int] = {}


def start_peak(device_type: str) -> bool:
    """Count the peak of a new piece of work; whether the system can do that."""
    _highest_before[device_type] = overall_peak_bytes(device_type)
    if device_type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    # Not Linux, or a container that does not allow it.
    except OSError:
        return False
    return True


def peak_bytes(device_type: str) -> int:
    """The peak since the count was started."""
    if device_type == "cuda":
        import torch

        return int(torch.cuda.max_memory_reserved())
    # macOS counts in bytes, Linux in units of 1024.
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def overall_peak_bytes(device_type: str) -> int:
    """The peak since the process began."""
    return max(_highest_before.get(device_type, 0), peak_bytes(device_type))
