"""Loracle tells which dataset is worth fine-tuning on.

    run = loracle.run(["clean.jsonl", "noisy.jsonl"], evaluation="test.jsonl")
    print(run.decision.sentence)
    run.estimates()

The names of `__all__` are the public API. They are imported when they are first used, so that
`import loracle` takes no time; functions that only need files (`open_run`, `decide`, `compare`,
`score`, `check` without a model) never import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loracle import errors
    from loracle.api.files import check, score
    from loracle.api.judging import Decision, Judged, compare, decide
    from loracle.api.run import Run, open_run
    from loracle.api.running import LoadedBase, resume, run

__version__ = "0.1.0"

__all__ = [
    "Decision",
    "Judged",
    "LoadedBase",
    "Run",
    "__version__",
    "check",
    "compare",
    "decide",
    "errors",
    "open_run",
    "resume",
    "run",
    "score",
]

# Where each public name is defined; None: it is a module.
_HOMES: dict[str, tuple[str, str | None]] = {
    "Decision": ("loracle.api.judging", "Decision"),
    "Judged": ("loracle.api.judging", "Judged"),
    "LoadedBase": ("loracle.api.running", "LoadedBase"),
    "Run": ("loracle.api.run", "Run"),
    "check": ("loracle.api.files", "check"),
    "compare": ("loracle.api.judging", "compare"),
    "decide": ("loracle.api.judging", "decide"),
    "errors": ("loracle.errors", None),
    "open_run": ("loracle.api.run", "open_run"),
    "resume": ("loracle.api.running", "resume"),
    "run": ("loracle.api.running", "run"),
    "score": ("loracle.api.files", "score"),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'loracle' has no attribute {name!r}")
    module_name, attribute = _HOMES[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
