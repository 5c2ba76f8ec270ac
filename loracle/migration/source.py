"""A training file of another tool: its tool, and its settings by the tool's names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loracle.errors import PlanError
from loracle.migration.commands import read_command
from loracle.plan import file_problem
from loracle.plan.foreign import Tool, tool_of_command, tool_of_keys, unread_problem, unread_tool
from loracle.plan.loading import parse_yaml
from loracle.plan.messages import show


@dataclass(frozen=True)
class TheirFile:
    """A training file, read.

    settings: values as YAML or the command line has them: numbers may be text.
    environment: variables that a script sets for the command.
    command: what the script runs, "swift sft"; "" for a YAML.
    others: further commands of the script, which are not read.
    """

    path: Path
    tool: Tool
    settings: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    others: Sequence[str] = ()


def read_their_file(path: Path) -> TheirFile:
    """Read a training file; its tool is detected from the content.

    Raises PlanError if it cannot be read, or belongs to no known tool.
    """
    text = _text(path)
    if tool_of_command(text):
        return _of_script(path, text)
    if unread := unread_tool(None, text):
        raise PlanError(unread_problem(path, unread))
    tree = parse_yaml(text, str(path))
    tool = tool_of_keys(tree)
    if tool is None and (unread := unread_tool(tree)):
        raise PlanError(unread_problem(path, unread))
    if tool is None:
        raise PlanError(_unknown(path, tree))
    return TheirFile(path, tool, tree)


def _text(path: Path) -> str:
    if problem := file_problem(path):
        raise PlanError(problem)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _of_script(path: Path, text: str) -> TheirFile:
    command = read_command(text, str(path))
    settings: dict[str, Any] = {}
    origin = path
    if command.config is not None:
        origin = _config(path, command.config)
        settings = _mapping(origin)
    return TheirFile(
        origin,
        command.tool,
        {**settings, **command.settings},
        command.environment,
        command.name,
        command.others,
    )


def _config(script: Path, name: str) -> Path:
    """The file that a command reads its settings from: paths start where the command is run."""
    folders = (Path(), script.parent, *list(script.resolve().parents)[1:4])
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise PlanError(
        f"{script}: uses the settings in {name}, which does not exist; run `loracle init` in the "
        "folder where the command is run, or name that file with --from"
    )


def _mapping(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        tree = json.loads(text) if path.suffix == ".json" else parse_yaml(text, str(path))
    except ValueError as error:
        raise PlanError(f"{path}: not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise PlanError(f"{path}: found {show(tree)}; expected keys and values")
    return tree


def _unknown(path: Path, tree: object) -> str:
    tools = ", ".join(Tool)
    if isinstance(tree, dict):
        keys = ", ".join(map(str, list(tree)[:8])) or "none"
        return f"{path}: not a training file of a known tool ({tools}); its keys: {keys}"
    return f"{path}: not a training file of a known tool ({tools}); found {show(tree)}"
