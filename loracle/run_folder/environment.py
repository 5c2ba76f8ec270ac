"""The environment of a process, as recorded in a run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loracle.safety.secrecy import arguments_without_secrets

_PACKAGES = (
    "loracle",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "safetensors",
    "numpy",
    "pyarrow",
    "pydantic",
)


def environment() -> dict[str, Any]:
    """This process's environment: versions, machine, command line without secrets."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": arguments_without_secrets(sys.argv),
        "folder": str(Path.cwd()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": num_cpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


# Libraries whose version may change a result.
_DECIDING = ("loracle", "torch", "transformers", "tokenizers", "peft", "safetensors", "numpy")


def version_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which libraries that affect results differ between two processes: "torch 2.6.0 → 2.7.1"."""
    old, new = before["packages"], now["packages"]
    return [
        f"{name} {old.get(name)} → {new.get(name)}"
        for name in _DECIDING
        if old.get(name) != new.get(name)
    ]


def num_cpus() -> int:
    """The processors this process may use, which may be fewer than the machine has, as in a
    container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
