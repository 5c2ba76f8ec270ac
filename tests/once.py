"""What is the same in nearly every run of the tests is done once a process.

The tiny model's layers are counted for the forecast, which takes a sixth of a run's time: a test
that replaces the counting calls it in its own module, where nothing is remembered. Every part of
every chart is validated, which takes a tenth: outside of the report's own tests, only whole charts.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_COUNTING = "loracle.forecast.counting"
_CALLERS = ("loracle.experiment.foreseeing", "loracle.experiment.planning")
_SCHEMAS = "altair.utils.schemapi"
_counted: dict[str, Any] = {}


def remember_counts() -> None:
    """Let the modules that were imported by now, and count, remember what they counted."""
    for name in _CALLERS:
        module: Any = sys.modules.get(name)
        if module is not None:
            own = sys.modules[_COUNTING].counted_shape
            # Replaced by a test, or already remembering: left as it is.
            if getattr(module, "counted_shape", None) is own:
                module.counted_shape = _remembered


def validate_parts_of_charts(whether: bool) -> None:
    """Whether altair holds every part of a chart against its schema; it always does the whole."""
    schemas: Any = sys.modules.get(_SCHEMAS)
    if schemas is not None:
        schemas.DEBUG_MODE = whether


def _remembered(config: Any, lora: Any, dtype: Any, device_type: str, **options: Any) -> Any:
    counting = sys.modules[_COUNTING]
    described = config.to_dict(), lora.to_dict(), dtype, device_type, sorted(options.items())
    key = json.dumps(described, sort_keys=True, default=str)
    if key not in _counted:
        _counted[key] = counting.counted_shape(config, lora, dtype, device_type, **options)
    return _counted[key]
