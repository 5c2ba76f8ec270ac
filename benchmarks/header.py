"""What a figure was measured on: the head of every file under benchmarks/results.

    {"benchmark": "training_step", "commit": "3544c60", "dtype": "bfloat16",
     "processor": {"model": "AMD EPYC", "family": 26, "flags": ["avx2", ..., "avx512_bf16"], ...},
     "switches": {"OMP_NUM_THREADS": "1"},
     "load": {"before": 0.1, "after": 2.0, "share_of_others": 0.01, "quiet": true}, ...}

Other work shows in two ways: the share of the cores' time that processes other than the benchmark's
own took until its end (Linux; None elsewhere), and the system's load before the measurement, which
decides only where that share is not known: it may be that of the benchmark before.
"switches" are the variables, if any, that make a processor compute as another one would.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("loracle", "torch", "transformers", "peft", "trl", "numpy")
# What decides how fast float32 and bfloat16 products are.
FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
SWITCHES = (
    *("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"),
    *("LORACLE_NATIVE", "LORACLE_NATIVE_ARCH"),
)
FIELDS = ("benchmark", "time", "commit", "dtype", "processor", "memory_bytes", "load", "packages")

_CPU_INFO, _STAT = Path("/proc/cpuinfo"), Path("/proc/stat")
_QUIET_LOAD_A_CORE, _QUIET_SHARE = 0.3, 0.05
_SET_CHILD_SUBREAPER = 36  # sys/prctl.h


@dataclass(frozen=True)
class Start:
    """The machine before a measurement. load: over the last minute; None where it is not told.

    busy_seconds: of all cores since they started, whoever took them; own_seconds: of this process
    and of all that it started.
    """

    time: datetime
    load: float | None
    busy_seconds: float | None
    own_seconds: float

    @classmethod
    def now(cls) -> Self:
        return cls(datetime.now(UTC), _load(), _busy_seconds(), _own_seconds())


def header(benchmark: str, dtype: str, started: Start) -> dict[str, Any]:
    """FIELDS, for a measurement that ends now, and "switches" if any is set.

    dtype: the precision of both sides.
    """
    switches = {name: os.environ[name] for name in SWITCHES if os.environ.get(name)}
    return {
        "benchmark": benchmark,
        "time": started.time.isoformat(timespec="seconds"),
        "commit": _commit(),
        "dtype": dtype,
        "processor": processor(),
        "memory_bytes": _memory_bytes(),
        "load": load_since(started, Start.now()),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        **({"switches": switches} if switches else {}),
    }


def processor(cpu_info: Path = _CPU_INFO) -> dict[str, Any]:
    """Its name and family, the flags that decide its speed, and the cores of this process."""
    text = cpu_info.read_text() if cpu_info.is_file() else ""

    def told(field: str) -> str:
        found = re.search(rf"^{field}\s*:\s*(.+)$", text, re.MULTILINE | re.IGNORECASE)
        return found[1].strip() if found else ""

    flags = set((told("flags") or told("features")).split())
    family = told("cpu family")
    return {
        "model": told("model name") or platform.processor() or "unknown",
        "family": int(family) if family else None,
        "architecture": platform.machine(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": _num_cores(),
    }


def load_since(started: Start, ended: Start) -> dict[str, Any]:
    """The load before and after, the share of others between, and whether that counts as quiet."""
    others = None
    if started.busy_seconds is not None and ended.busy_seconds is not None:
        seconds = (ended.time - started.time).total_seconds() * _num_cores()
        busy = ended.busy_seconds - started.busy_seconds
        own = ended.own_seconds - started.own_seconds
        others = round(max(0.0, busy - own) / max(seconds, 1e-9), 3)
    if others is None:
        is_quiet = started.load is not None and started.load <= _QUIET_LOAD_A_CORE * _num_cores()
    else:
        is_quiet = others <= _QUIET_SHARE
    return {
        "before": started.load,
        "after": ended.load,
        "share_of_others": others,
        "quiet": is_quiet,
    }


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def adopt_orphans() -> None:
    """Let processes whose parent has ended become this one's (Linux), so that their time counts as
    its own: Ray starts its workers that way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)


def _own_seconds() -> float:
    """Of this process, its descendants, and those of them that have ended."""
    times = os.times()
    seconds = times.user + times.system + times.children_user + times.children_system
    return seconds + sum(_descendants_seconds())


def _descendants_seconds() -> Iterator[float]:
    children: dict[int, list[tuple[int, float]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold anything.
            words = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        seconds = sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")
        children.setdefault(int(words[1]), []).append((int(path.parent.name), seconds))
    waiting = [os.getpid()]
    while waiting:
        for child, seconds in children.get(waiting.pop(), ()):
            yield seconds
            waiting.append(child)


def _busy_seconds() -> float | None:
    """Of all cores together; waiting and idle time left out, time stolen by other guests not."""
    if not _STAT.is_file():
        return None
    user, nice, system, _idle, _waiting, irq, soft, stolen = (
        int(word) for word in _STAT.read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _num_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit that ran, with "+changes" if tracked files differ from it."""

    def git(*words: str) -> str:
        asked = subprocess.run(
            ["git", "-C", ROOT, *words], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip()

    commit = git("rev-parse", "--short=10", "HEAD")
    if not commit:
        return "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "loracle", "benchmarks")
    kept = [line for line in changed.splitlines() if "benchmarks/results/" not in line]
    return commit + ("+changes" if kept else "")
