"""What a program may pass to the API: each argument is checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from loracle.errors import PlanError, UserError
from loracle.plan import DataFile

PathLike = str | os.PathLike[str]
"""A path or an address, as text or as any path object."""

_EXAMPLE = '{"path": "a.jsonl", "name": "short"}'
# Libraries whose tables iterate over their columns, which would be taken for paths.
_OF_TABLES = ("pandas", "polars", "datasets", "pyarrow")


def data_entries(given: DataFile | Iterable[DataFile], name: str) -> list[DataFile]:
    """One data file or several, as entries of a plan.

    Raises PlanError with every entry that is neither a path nor an entry with one.
    """
    if isinstance(given, str | os.PathLike | Mapping):
        return [_entry(given, name)]
    if not _is_listing(given):
        raise PlanError(_not_data(given, name))
    entries: list[DataFile] = []
    problems: list[str] = []
    for index, data in enumerate(given):
        try:
            entries.append(_entry(data, f"{name}[{index}]"))
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    return entries


def path_text(
    given: PathLike, name: str, what: str = "a path", error: type[UserError] = PlanError
) -> str:
    """A path as text. Raises `error` for anything else, with what was found."""
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str):
        raise error(f"{name}: found {_shown(given)}; expected {what}")
    return text


def texts(given: str | Iterable[str], name: str, example: str) -> list[str]:
    """One text or several, as a list. Raises PlanError for anything else."""
    listed = [given] if isinstance(given, str) else given
    found = list(listed) if _is_listing(listed) else None
    if found is None or not all(isinstance(text, str) for text in found):
        raise PlanError(f"{name}: found {_shown(given)}; expected texts, such as {example}")
    return found


def check_choice(value: object, choices: Any, name: str) -> None:
    """Check that the value is one of a Literal's. Raises PlanError that lists them."""
    known = get_args(choices)
    if value not in known:
        shown = f"{', '.join(known[:-1])} or {known[-1]}"
        raise PlanError(f"{name}: found {_shown(value)}; expected {shown}")


def check_loaded(base: Any) -> None:
    """Check that the caller's base is a model and its tokenizer. Raises PlanError otherwise."""
    is_pair = isinstance(base, Sequence) and not isinstance(base, str) and len(base) == 2
    if is_pair and hasattr(base[0], "config") and hasattr(base[1], "apply_chat_template"):
        return
    found = f"({', '.join(map(_shown, base))})" if is_pair else _shown(base)
    raise PlanError(
        f"base: found {found}; expected (model, tokenizer), both loaded with transformers; to let "
        "Loracle load a model, pass its folder or hub id as `model`"
    )


def _entry(given: DataFile, name: str) -> DataFile:
    if not isinstance(given, Mapping):
        if not isinstance(given, str | os.PathLike):
            raise PlanError(_not_data(given, name))
        return path_text(given, name)
    if "path" not in given:
        raise PlanError(
            f"{name}: found an entry without a path (its keys: {', '.join(map(str, given))}); "
            f"expected one such as {_EXAMPLE}; rows must be in a file"
        )
    return {**given, "path": path_text(given["path"], f"{name}.path")}  # type: ignore[arg-type]


def _not_data(given: object, name: str) -> str:
    expected = f"a path, a hub address, or an entry such as {_EXAMPLE}"
    write = "; write the rows to a file, such as JSONL or Parquet, and name that"
    return f"{name}: found {_shown(given)}; expected {expected}{write if _is_table(given) else ''}"


def _is_listing(given: object) -> bool:
    return (
        isinstance(given, Iterable)
        and not isinstance(given, str | bytes | bytearray | Mapping)
        and not _is_table(given)
    )


def _is_table(given: object) -> bool:
    return type(given).__module__.partition(".")[0] in _OF_TABLES


def _shown(value: object) -> str:
    kind = type(value).__name__
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return repr(value)[:60] if value is None else f"{repr(value)[:60]} ({kind})"
    return f"a {kind}"
