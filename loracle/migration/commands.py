r"""The training command of a shell script:

    CUDA_VISIBLE_DEVICES=0 \
    swift sft \
        --model Qwen/Qwen2.5-7B-Instruct \
        --dataset data/a.jsonl data/b.jsonl#500

Line continuations, quotes, comments, environment variables before the command and script variables
are supported; other shell features (loops, command substitution) are not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loracle.errors import PlanError
from loracle.plan.foreign import Tool, tool_of_command

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_CONFIG_ENDINGS = (".yaml", ".yml", ".json")

Setting = str | list[str]
"""A flag's value: one, or several; a flag without a value is "true"."""


@dataclass(frozen=True)
class Command:
    """A training command.

    name: its name, "swift sft".
    environment: the variables set for it.
    config: the YAML that it reads its settings from.
    others: further training commands of the script, which are not read.
    """

    tool: Tool
    name: str
    settings: Mapping[str, Setting]
    environment: Mapping[str, str]
    config: str | None = None
    others: Sequence[str] = ()


def read_command(text: str, where: str) -> Command:
    """The first training command of a script. Raises PlanError if it cannot be read."""
    variables: dict[str, str] = {}
    found: list[tuple[Tool, list[str]]] = []
    for line in _lines(text):
        words = _words(line, where, variables)
        if words and all(_ASSIGNMENT.fullmatch(word) for word in words if word != "export"):
            variables |= _assigned(words)
        elif tool := tool_of_command(line):
            found.append((tool, words))
    if not found:
        raise PlanError(f"{where}: found no training command; expected `swift sft --model ...`")
    tool, words = found[0]
    return _parsed(tool, words, variables, [shlex.join(other[:6]) for _, other in found[1:]])


def _lines(text: str) -> list[str]:
    """The lines of a script, without comment lines, continued ones joined."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\\[ \t]*\n", " ", "\n".join(kept)).splitlines()


def _words(line: str, where: str, variables: Mapping[str, str]) -> list[str]:
    """The words of a line up to a comment, with the script's variables expanded."""
    try:
        words = shlex.split(line, comments=False)
    except ValueError as error:
        if tool_of_command(line) is None:
            return []
        raise PlanError(f"{where}: the command cannot be read: {error}") from error
    for position, word in enumerate(words):
        if word.startswith("#"):
            words = words[:position]
            break
    return [_VARIABLE.sub(lambda m: variables.get(m[1] or m[2], m[0]), word) for word in words]


def _assigned(words: Sequence[str]) -> dict[str, str]:
    pairs = [_ASSIGNMENT.fullmatch(word) for word in words]
    return {pair[1]: pair[2] for pair in pairs if pair is not None}


def _parsed(
    tool: Tool, words: Sequence[str], variables: Mapping[str, str], others: Sequence[str]
) -> Command:
    leading = next(
        (n for n, word in enumerate(words) if not _ASSIGNMENT.fullmatch(word)), len(words)
    )
    environment = {**variables, **_assigned(words[:leading])}
    command = list(words[leading:])
    first_flag = next((n for n, word in enumerate(command) if _is_own_flag(command, n)), None)
    head = command if first_flag is None else command[:first_flag]
    settings = _flags([] if first_flag is None else command[first_flag:])
    config = next((word for word in head if word.endswith(_CONFIG_ENDINGS)), None)
    # llamafactory-cli train file.yaml learning_rate=1e-5
    settings |= {word.partition("=")[0]: word.partition("=")[2] for word in head if "=" in word}
    named = settings.pop("config", None)
    if isinstance(named, str):
        config = named
    name = " ".join(word for word in head if word != config and "=" not in word)
    return Command(tool, name, settings, environment, config, others)


def _is_own_flag(command: Sequence[str], position: int) -> bool:
    """Whether the word is a flag of the training command rather than of a launcher before it
    (torchrun, accelerate launch)."""
    before = " ".join(command[:position])
    return command[position].startswith("--") and tool_of_command(before) is not None


def _flags(words: Sequence[str]) -> dict[str, Setting]:
    """`--name value`, `--name=value`, `--name a b` and a bare `--name`."""
    values: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word in ("&", "&&", "|", ";", "2>&1", ">", ">>"):
            break
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            name = flag.replace("-", "_")
            values[name] = [value] if equals else []
        elif name:
            values[name].append(word)
    return {
        name: found[0] if len(found) == 1 else found or "true" for name, found in values.items()
    }
