"""A user's own metric: `module:function`, in a module that is installed or in the working folder.

    def contains(prediction: str, references: list[str]) -> float: ...      # in my_metrics.py
    evaluation: [{path: test.jsonl, metrics: ["my_metrics:contains", em]}]

The function returns a share from 0 to 1; more is better. It is imported only to compute scores,
never when reports read them. The hash of its module's file is part of the plan's fingerprint, so
that no run is scored by two versions; what the module imports is not included.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from loracle.errors import PlanError
from loracle.files import sha256

_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_custom(name: str) -> bool:
    """Whether the name has the form `module:function`."""
    return _NAME.fullmatch(name) is not None


def custom_metric(name: str) -> Callable[[str, Sequence[str]], float]:
    """The user's function, with a check of its value. Nothing is imported before the first call."""

    def value(prediction: str, references: Sequence[str]) -> float:
        found = load_function(name)(prediction, list(references))
        # bool too: True is 1. NaN fails the comparison.
        if not isinstance(found, int | float) or not 0 <= found <= 1:
            raise PlanError(
                f"metric {name} returned {found!r} for the prediction {prediction[:60]!r}; "
                "expected a number from 0 to 1"
            )
        return float(found)

    return value


@cache
def load_function(name: str) -> Callable[..., Any]:
    """Import the function. Raises PlanError if there is none, with the import's own error."""
    module_name, _, function_name = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        # Console scripts have their own folder there, not the one they are called in.
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    # Any error that the user's module raises on import.
    except Exception as error:
        raise PlanError(
            f"metric {name}: {module_name} cannot be imported from {folder} "
            f"({type(error).__name__}: {error})"
        ) from error
    function: Callable[..., Any] | None = getattr(module, function_name, None)
    if not callable(function):
        raise PlanError(f"metric {name}: {module_name} has no function {function_name}")
    return function


def module_sha256(name: str) -> str:
    """The hash (hex) of the file of the function's module, "" if it has none.

    Raises PlanError as `load_function`.
    """
    load_function(name)
    file = sys.modules[name.partition(":")[0]].__file__
    return sha256(Path(file)) if file else ""
