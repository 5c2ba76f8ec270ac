"""What a process runs on, as the record of a run keeps it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

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
    """What this process runs on: versions, machine, command line without secrets."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_secrets(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": _num_cpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


_HIDDEN = "[hidden]"
_SECRET = r"(?:token|secret|password|passwd|credentials?|(?:api|access|secret)[-_]?key)"
_SECRET_OPTION = re.compile(rf"-[^=]*?[-_.]?{_SECRET}", re.IGNORECASE)
_SECRET_SETTING = re.compile(rf"((?:^|[-_.=]){_SECRET}=).+", re.IGNORECASE)
# Access tokens of known services by their first letters, and the user of a URL.
_SECRET_VALUE = re.compile(
    r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|AKIA)[\w-]{16,}|(?<=://)[^/@\s]+(?=@)"
)


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """The arguments with passwords and access tokens hidden: by their option's name or form."""
    kept = []
    previous = ""
    for argument in arguments:
        shown = _SECRET_SETTING.sub(rf"\1{_HIDDEN}", argument)
        shown = _SECRET_VALUE.sub(_HIDDEN, shown)
        kept.append(_HIDDEN if _SECRET_OPTION.fullmatch(previous) else shown)
        previous = argument
    return kept


def _num_cpus() -> int | None:
    """The processors this process may use, which in a container are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
