"""From a plan file, flags and `--set` to a Plan, with all problems found together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from loracle.errors import PlanError
from loracle.plan.data_sections import CandidatePlan, EvaluationPlan
from loracle.plan.foreign import (
    foreign_problem,
    tool_of_command,
    tool_of_keys,
    unread_problem,
    unread_tool,
)
from loracle.plan.locations import is_hub_location
from loracle.plan.messages import file_problem, show
from loracle.plan.names import name_problems, repeated, with_distinct_names
from loracle.plan.problems import problems_of
from loracle.plan.root import (
    CANDIDATES_OPTIONAL,
    EVALUATION_OPTIONAL,
    FILE_SECTIONS,
    Plan,
    written_out,
)
from loracle.safety.secrecy import has_secret, values_without_secrets, without_secrets
from loracle.text import size

DataFile = str | os.PathLike[str] | Mapping[str, object]
"""A path, or a plan's entry with one."""


def load_plan(
    path: str | os.PathLike[str] | None = None,
    *,
    candidates: Sequence[DataFile] = (),
    evaluations: Sequence[DataFile] = (),
    model: str | None = None,
    settings: Mapping[str, object] = MappingProxyType({}),
    overrides: Sequence[str] = (),
) -> Plan:
    """Read a plan file and apply the command line on top of it.

    Candidates and evaluations of the command line (paths, or entries with further keys) replace
    the file's whole list if any are given; `model` replaces the file's model name; settings are
    sections as in a plan file, merged into the file's key by key; overrides
    ("training.epochs=2", "candidates.0.name=short") come last, their values read as YAML. Relative
    paths in the plan file start at its folder, those of the command line at the current folder.

    Raises PlanError with all problems found together.
    """
    return _loaded(path, _Given(candidates, evaluations, model, settings, overrides))


def load_unmeasured_plan(
    path: str | os.PathLike[str] | None = None,
    *,
    candidates: Sequence[DataFile] = (),
    evaluations: Sequence[DataFile] = (),
    model: str | None = None,
    settings: Mapping[str, object] = MappingProxyType({}),
    overrides: Sequence[str] = (),
) -> Plan:
    """As `load_plan`, if nothing is measured: neither an evaluation nor a holdout is needed."""
    given = _Given(candidates, evaluations, model, settings, overrides)
    return _loaded(path, given, frozenset({EVALUATION_OPTIONAL}))


def load_untrained_plan(*, evaluations: Sequence[DataFile], settings: Mapping[str, object]) -> Plan:
    """As `load_plan`, if nothing is trained: no candidate is needed."""
    given = _Given((), evaluations, None, settings, ())
    return _loaded(None, given, frozenset({CANDIDATES_OPTIONAL}))


class _Given(NamedTuple):
    """What is laid over a plan file."""

    candidates: Sequence[DataFile]
    evaluations: Sequence[DataFile]
    model: str | None
    settings: Mapping[str, object]
    overrides: Sequence[str]


def _loaded(
    path: str | os.PathLike[str] | None, given: _Given, allowed: frozenset[str] = frozenset()
) -> Plan:
    tree = {} if path is None else _read_plan_file(Path(path))
    # Only what was given; writing the short forms out adds empty lists of files.
    sections = written_out(given.settings)
    sections = {key: value for key, value in sections.items() if key in given.settings}
    tree = _laid_over(written_out(tree), sections)
    problems: list[str] = []
    if given.candidates:
        tree["candidates"] = list(given.candidates)
    if given.evaluations:
        tree["evaluation"] = list(given.evaluations)
    if given.model is not None:
        problems += _foreign_model_settings(tree, given.model, given.overrides)
        tree = _with_value(written_out(tree), ["model", "name"], given.model)
    tree, override_problems = _overridden(written_out(tree), given.overrides)
    problems += override_problems
    try:
        plan = Plan.model_validate(tree, context=allowed)
    except ValidationError as error:
        problems += problems_of(error)
    else:
        problems += _secrets_in("", plan.model_dump(mode="json"))
    if problems:
        raise PlanError([without_secrets(problem) for problem in problems])
    return plan


def _secrets_in(place: str, value: Any) -> list[str]:
    """The keys that hold passwords or access tokens: the plan is stored, hashed and shown to
    others."""
    if isinstance(value, str):
        if not has_secret(value):
            return []
        return [
            f"{place}: found {show(values_without_secrets(value))}, which holds a password or an "
            "access token; the plan is stored and shown, so set it in the environment instead "
            "(HF_TOKEN, MODELSCOPE_API_TOKEN)"
        ]
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    above = f"{place}." if place else ""
    return [line for key, item in items for line in _secrets_in(f"{above}{key}", item)]


def named_files(
    candidates: Sequence[DataFile], evaluations: Sequence[DataFile]
) -> tuple[list[CandidatePlan], list[EvaluationPlan]]:
    """Data files without a plan, with the names that a plan would give them.

    Raises PlanError if there is no file at all, two would have one name, or an entry's keys
    cannot be used.
    """
    tree = written_out({"candidates": candidates, "evaluation": evaluations})
    try:
        trained = [CandidatePlan.model_validate(entry) for entry in tree["candidates"]]
        asked = [EvaluationPlan.model_validate(entry) for entry in tree["evaluation"]]
    except ValidationError as error:
        raise PlanError(problems_of(error)) from error
    trained, asked = with_distinct_names(trained), with_distinct_names(asked)
    problems = name_problems("candidates", trained) + name_problems("evaluation", asked)
    if not candidates and not evaluations:
        problems.append("found no data; name at least one file")
    if problems:
        raise PlanError(problems)
    return trained, asked


def _laid_over(tree: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with the settings merged in, mapping by mapping; everything else is replaced."""
    laid = dict(tree)
    for key, value in settings.items():
        below = laid.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            laid[key] = _laid_over(below, value)
        else:
            laid[key] = value
    return laid


class _PlanLoader(yaml.SafeLoader):
    """YAML that reads 1e-3 as a number (YAML 1.1 calls it text) and refuses a key given twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value} appears twice in one mapping; keep one",
                    problem_mark=key.start_mark,
                )
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
        return node


# A plan written by a person is far below both. Aliased values (`*a`) count every time they are
# used: a few lines can expand to billions.
_MAX_PLAN_BYTES = 4 << 20
_MAX_YAML_VALUES = 200_000


_PlanLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def _read_plan_file(path: Path) -> dict[str, Any]:
    """The file's tree, with short forms written out and paths relative to the current folder."""
    if problem := file_problem(path):
        raise PlanError(problem)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_PLAN_BYTES + 1)
        if len(content) > _MAX_PLAN_BYTES:
            raise PlanError(f"{path}: larger than {size(_MAX_PLAN_BYTES)}; is it a plan?")
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if tool := tool_of_command(text):
        raise PlanError(foreign_problem(path, tool))
    tree = parse_yaml(text, str(path))
    if tool := tool_of_keys(tree):
        raise PlanError(foreign_problem(path, tool))
    if unread := unread_tool(tree):
        raise PlanError(unread_problem(path, unread))
    if not isinstance(tree, dict | None):
        raise PlanError(
            f"{path}:1: found {show(tree)}; expected keys, such as `candidates: [a.jsonl]`"
        )
    return _from_folder(written_out(tree or {}), path.parent)


def parse_yaml(text: str, where: str) -> Any:
    """The tree of a YAML text. Raises PlanError, with `where` and the line, if it is not YAML."""
    loader = None
    try:
        loader = _PlanLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _num_values(node, {}) > _MAX_YAML_VALUES:
            raise PlanError(
                f"{where}: its aliases (*name) expand to more than {_MAX_YAML_VALUES:,} values; "
                "write the values out"
            )
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        context = f" ({error.context})" if error.context else ""
        raise PlanError(f"{where}:{line}: not YAML: {error.problem}{context}") from error
    # ValueError: a date or number that Python rejects, such as 2024-13-01.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PlanError(f"{where}: not YAML: {str(error).strip()}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node expands to, including its aliases."""
    if id(node) in known:
        return known[id(node)]
    # A node that contains itself would never end; it has this count until the sum below is known.
    known[id(node)] = _MAX_YAML_VALUES
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        below = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = list(node.value)
    known[id(node)] = 1 + sum(_num_values(part, known) for part in below)
    return known[id(node)]


def _from_folder(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with its data paths relative to the current folder."""

    def moved(entry: Any) -> Any:
        if (
            isinstance(entry, dict)
            and isinstance(entry.get("path"), str)
            and entry["path"]
            and not is_hub_location(entry["path"])
        ):
            # Path.expanduser raises if ~name is not a user; os.path leaves such a name alone.
            path = os.path.expanduser(entry["path"])  # noqa: PTH111
            return {**entry, "path": str(folder / path)}
        return entry

    lists = {key: tree[key] for key in FILE_SECTIONS if isinstance(tree.get(key), list)}
    return tree | {key: [moved(entry) for entry in entries] for key, entries in lists.items()}


def _foreign_model_settings(
    tree: Mapping[str, Any], model: str, overrides: Sequence[str]
) -> list[str]:
    """Settings that the file makes for its own model, which must not silently apply to another."""
    section = tree.get("model")
    if not isinstance(section, Mapping) or section.get("name", "embedded") == model:
        return []
    decided = {override.partition("=")[0].strip() for override in overrides}
    return [
        f"model.{name}: found {show(section[name])}, which the plan sets for "
        f"{section.get('name', 'embedded')}, not for {model}; repeat it for {model} with "
        f"--set model.{name}=..."
        for name in ("revision", "trust_remote_code")
        if section.get(name) and f"model.{name}" not in decided
    ]


def _overridden(tree: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The tree with every `key.path=value` applied, and the problems of those that cannot be
    applied."""
    problems: list[str] = []
    keys = [override.partition("=")[0].strip() for override in overrides]
    problems += [f"--set {key}: found twice; set it once" for key in repeated(keys)]
    for key, override in zip(keys, overrides, strict=True):
        try:
            if "=" not in override or not all(key.split(".")):
                raise PlanError(f"--set {override}: expected key.path=value")
            value = parse_yaml(override.partition("=")[2], f"--set {override}")
            tree = written_out(_with_value(tree, key.split("."), value))
        except PlanError as error:
            problems += error.problems
    return tree, problems


def _with_value(tree: Any, keys: Sequence[str], value: Any, above: str = "") -> Any:
    """A copy of the tree with the value at the keys; list items are addressed by index."""
    if not keys:
        return value
    head, rest = keys[0], keys[1:]
    place = f"{above}.{head}" if above else head
    if isinstance(tree, list):
        if head not in map(str, range(len(tree))):
            have = f"0 to {len(tree) - 1}" if tree else "no items yet"
            raise PlanError(f"--set {place}: no such item of {above}, which has {have}")
        changed = _with_value(tree[int(head)], rest, value, place)
        return [changed if str(index) == head else item for index, item in enumerate(tree)]
    if tree is not None and not isinstance(tree, Mapping):
        raise PlanError(f"--set {place}: {above} is {show(tree)} and has no key below it")
    below = {} if tree is None else tree
    return {**below, head: _with_value(below.get(head), rest, value, place)}
