"""How much memory this process may still take: of the GPU, or of the machine and its containers.

/proc/meminfo says what the machine has available. A container may have less: every control group
above the process can have a limit, in version 2 (memory.max) or 1 (memory.limit_in_bytes); its
files in the page cache are released when needed, and count as free.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


class FreeMemory(NamedTuple):
    """place: whose memory it is, in words."""

    num_bytes: int
    place: str


class _Files(NamedTuple):
    """The files of a control group, by its version. cache: the key of memory.stat."""

    limit: str
    used: str
    cache: str


_VERSION_2 = _Files("memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory(device_type: str) -> FreeMemory | None:
    """What is free on `cuda` (its current device) or `cpu`; None if the system does not say."""
    if device_type == "cuda":
        import torch

        return FreeMemory(int(torch.cuda.mem_get_info()[0]), "GPU memory")
    return host_memory()


def host_memory(proc: Path = _PROC, control_groups: Path = _CONTROL_GROUPS) -> FreeMemory | None:
    """The machine's memory that this process may use; the smallest limit counts."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE)
    bounds = [FreeMemory(1024 * int(found[1]), "memory")] if found else []
    bounds += [
        FreeMemory(num_bytes, "memory within the container's limit")
        for num_bytes in _group_bounds(proc, control_groups)
    ]
    return min(bounds, default=None)


def _group_bounds(proc: Path, control_groups: Path) -> Iterator[int]:
    """What is left in each of this process's control groups, up to the root."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, files = control_groups / "memory", _VERSION_1
        elif number == "0":
            root, files = control_groups, _VERSION_2
        else:
            continue
        parts = [part for part in path.split("/") if part]
        # In a container, the path may be the one outside it; its own files are at the root.
        for depth in range(len(parts), -1, -1):
            left = _left_in(root.joinpath(*parts[:depth]), files)
            if left is not None:
                yield left


def _left_in(group: Path, files: _Files) -> int | None:
    """Bytes below the group's limit; None if it has none ("max", or an enormous number)."""
    limit, used = _text(group / files.limit).strip(), _text(group / files.used).strip()
    if not (limit.isdecimal() and used.isdecimal()):
        return None
    cache = re.search(rf"^{files.cache} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
    return max(0, int(limit) - int(used) + (int(cache[1]) if cache else 0))


def _text(path: Path) -> str:
    """The file's text; "" if there is none, as on another system."""
    try:
        return path.read_text()
    except OSError:
        return ""
