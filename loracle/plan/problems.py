"""pydantic's errors about a plan in words: the key, what was found, what is expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from loracle.errors import PlanError
from loracle.plan.data_sections import CandidatePlan, EvaluationPlan, HoldoutPlan
from loracle.plan.devices import RayPlan
from loracle.plan.messages import OWN_ERROR, nearest, show
from loracle.plan.root import FILE_SECTIONS, Plan
from loracle.plan.sections import (
    DecisionPlan,
    GenerationPlan,
    LoraPlan,
    ModelPlan,
    Section,
    TrainingPlan,
)

_SECTION_MODELS: Mapping[str, type[Section]] = {
    "": Plan,
    "model": ModelPlan,
    "candidates": CandidatePlan,
    "holdout": HoldoutPlan,
    "evaluation": EvaluationPlan,
    "lora": LoraPlan,
    "training": TrainingPlan,
    "generation": GenerationPlan,
    "decision": DecisionPlan,
    "ray": RayPlan,
}
_KEYS = {key for section in _SECTION_MODELS.values() for key in section.model_fields}

# pydantic's error types in words; {names} are filled from the error's context.
_EXPECTED = {
    "missing": "a value",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text (in quotes where it looks like a number)",
    "string_too_short": "text that is not empty",
    "list_type": "a list",
    "too_short": "at least one entry",
    "dict_type": "a mapping",
    "model_type": "a mapping of settings",
    "literal_error": "{expected}",
    "invalid_key": "keys that are text",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


def problems_of(error: ValidationError) -> list[str]:
    """Every problem once, in the plan's order, the branches of a union joined by `or`."""
    problems: list[str] = []
    found: dict[str, tuple[Any, list[str]]] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == OWN_ERROR:
            problems += detail["ctx"]["problems"]
        elif detail["type"] == "extra_forbidden":
            problems.append(_unknown_key(detail["loc"]))
        elif detail["type"] == "missing":
            problems.append(f"{_key_path(detail['loc'])}: missing; expected a value")
        # A name cannot be derived from a wrong path; the path's own problem is reported instead.
        elif detail["type"] != "default_factory_not_called":
            key = _key_path(detail["loc"])
            found.setdefault(key, (detail["input"], []))[1].append(_expectation(detail))
    problems += [
        f"{key}: found {show(value)}; expected {' or '.join(expected)}"
        for key, (value, expected) in found.items()
        # An item's own problem is more helpful than "this list is not text", from the union's other
        # branch.
        if not any(deeper.startswith(f"{key}.") for deeper in found)
    ]
    return problems


Checked = TypeVar("Checked", bound=Section)


def checked(
    kind: type[Checked],
    name: str,
    given: Mapping[str, Any] | None,
    instead: Mapping[str, str] = MappingProxyType({}),
) -> Checked:
    """Settings from a program's dict, where None means the default.

    name: what the program calls the dict. instead: by key, what to do about one that is wrong.

    Raises:
        PlanError: with every problem, once for each key.
    """
    if given is not None and not isinstance(given, Mapping):
        raise PlanError(f"{name}: found {_shortly(given)}; expected a dict")
    is_known = kind.model_fields.__contains__
    values = {k: v for k, v in (given or {}).items() if v is not None or not is_known(k)}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found: dict[str, str] = {}
        for detail in error.errors(include_url=False):
            key = str(detail["loc"][0])
            found.setdefault(key, _problem_of_dict(kind, name, key, detail, instead.get(key)))
        raise PlanError(list(found.values())) from error


def _problem_of_dict(
    kind: type[Section], name: str, key: str, detail: ErrorDetails, instead: str | None
) -> str:
    is_unknown = detail["type"] == "extra_forbidden"
    if is_unknown and instead is None:
        near = nearest(key, kind.model_fields)
        hint = f"did you mean {near}?" if near else f"known: {', '.join(kind.model_fields)}"
        return f"unknown key {name}.{key}; {hint}"
    if detail["type"] == "missing":
        return f"{name}.{key}: missing; expected a value"
    value = "" if is_unknown else f"found {_shortly(detail['input'])}; "
    own = detail["type"] not in _EXPECTED
    expected = detail["msg"] if own else f"expected {_expectation(detail)}"
    return f"{name}.{key}: {value}{instead or expected}"


def _shortly(value: object) -> str:
    """A value of a program, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60].splitlines()[0]}... ({type(value).__name__})"


def _expectation(detail: ErrorDetails) -> str:
    template = _EXPECTED.get(detail["type"])
    return (
        template.format(**detail.get("ctx", {}))
        if template
        else f"something else ({detail['msg']})"
    )


def _key_path(location: Sequence[str | int]) -> str:
    """The key path of an error; pydantic adds the names of a union's branches, left out here."""
    known = [str(part) for part in location if isinstance(part, int) or part in _KEYS]
    return ".".join(known) or ".".join(map(str, location)) or "plan"


def _unknown_key(location: Sequence[str | int]) -> str:
    """The message for a key that its section does not know."""
    name = str(location[-1])
    prefix = "".join(f"{part}." for part in location[:-1])
    fields = list(_SECTION_MODELS[str(location[0]) if prefix else ""].model_fields)
    if near := nearest(name, fields):
        return f"unknown key {prefix}{name}; did you mean {prefix}{near}?"
    if elsewhere := nearest(name, _KEYS - set(FILE_SECTIONS)):
        paths = [
            f"{section}.{elsewhere}" if section else elsewhere
            for section, model in _SECTION_MODELS.items()
            if elsewhere in model.model_fields and section not in FILE_SECTIONS
        ]
        if paths:
            return f"unknown key {prefix}{name}; did you mean {' or '.join(paths)}?"
    return f"unknown key {prefix}{name}; known here: {', '.join(fields)}"
