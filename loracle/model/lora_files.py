"""LoRA settings from a JSON file in peft's names, as its users keep them:

{"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["q_proj"], "bias": "none"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loracle.errors import PlanError
from loracle.model.adapter import SHORT_NAMES, lora_config
from loracle.plan import LoraPlan, file_problem
from loracle.plan.problems import problems_of

_BIASES = ("none", "all", "lora_only")


def read_lora_plan(folder: str | Path, name: str) -> LoraPlan:
    """Read `folder/name.json`; the name may carry its `.json` already.

    Any field of peft.LoraConfig may be in it. What is left out has the plan's default, bias "none".

    Raises:
        PlanError: the file is missing, is not a JSON object, or does not fit.
    """
    path = Path(folder) / f"{name.removesuffix('.json')}.json"
    if problem := file_problem(path):
        raise PlanError(f"LoRA config: {problem}")
    try:
        given = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise PlanError(f"{path}:{error.lineno}: bad JSON ({error.msg})") from error
    if not isinstance(given, dict):
        raise PlanError(f'{path}: expected one JSON object, as {{"r": 8, "lora_alpha": 16}}')
    try:
        return _lora_plan(given)
    except PlanError as error:
        raise PlanError([f"{path}: {problem}" for problem in error.problems]) from error


def peft_settings(plan: LoraPlan) -> dict[str, Any]:
    """Every setting of a plan's adapter under peft's name."""
    return {SHORT_NAMES.get(key, key): value for key, value in plan.model_dump().items()}


def _lora_plan(given: Mapping[str, Any]) -> LoraPlan:
    plan_names = {name: short for short, name in SHORT_NAMES.items()}
    if twice := [pair for pair in plan_names.items() if given.keys() >= set(pair)]:
        raise PlanError(
            [f"{name} and {short} are the same setting: give one of them" for name, short in twice]
        )
    settings = {plan_names.get(key, key): value for key, value in given.items()}
    try:
        plan = LoraPlan.model_validate({"bias": "none", **settings})
    except ValidationError as error:
        raise PlanError([f"lora.{problem}" for problem in problems_of(error)]) from error
    values = plan.model_dump()
    # peft looks at it only once its layers are in the model.
    if values["bias"] not in _BIASES:
        raise PlanError(f"lora.bias: found {values['bias']!r}; expected {' or '.join(_BIASES)}")
    lora_config(values)
    return plan
