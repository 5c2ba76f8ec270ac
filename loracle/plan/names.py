"""Names of data files: each names files and folders of a run, and is derived from the path if the
plan gives none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from loracle.plan.data_sections import CandidatePlan, DataFilePlan, EvaluationPlan
from loracle.plan.locations import BadLocation, parse_location
from loracle.plan.messages import show
from loracle.plan.paths import data_name

BASE_NAME = "base"
"""The untrained model's row in every result; no candidate may have this name."""

MAX_NAME_CHARACTERS = 100
# File systems count bytes: 255 for one name, and a trial's folder adds the seed to it.
MAX_NAME_BYTES = 200


DataFile = TypeVar("DataFile", CandidatePlan, EvaluationPlan)
Item = TypeVar("Item", str, int)


def with_distinct_names(entries: list[DataFile]) -> list[DataFile]:
    """The entries, with `folder-stem` instead of derived names that clash."""
    times = Counter(entry.name.casefold() for entry in entries)
    return [
        entry.model_copy(update={"name": _folder_and_stem(entry.path)})
        if times[entry.name.casefold()] > 1 and "name" not in entry.model_fields_set
        else entry
        for entry in entries
    ]


def _folder_and_stem(path: str) -> str:
    if location := parse_location(path):
        return location.full_name
    folder, stem = Path(path).parent, data_name(path)
    name = folder.resolve().name if folder.name == ".." else folder.name
    return f"{name}-{stem}" if name else stem


def location_problems(section: str, entries: Sequence[DataFilePlan]) -> list[str]:
    """Problems with the paths that name a hub."""
    problems = []
    for index, entry in enumerate(entries):
        try:
            location = parse_location(entry.path)
        except BadLocation as error:
            problems.append(f"{section}.{index}.path: {error}")
            continue
        if entry.split is not None and location is not None and location.pattern is not None:
            problems.append(
                f"{section}.{index}.split: found {show(entry.split)} together with named files, "
                f"{entry.path}; remove one of the two"
            )
    return problems


def name_problems(section: str, entries: Sequence[DataFilePlan]) -> list[str]:
    """Problems with the names: each must be a valid file name, and no two may be the same."""
    problems = []
    first: dict[str, DataFilePlan] = {}
    for index, entry in enumerate(entries):
        if fault := _name_fault(entry.name):
            problems.append(
                f"{section}.{index}.name: found {show(entry.name)} for {entry.path}, which "
                f"{fault}; give it a name of its own, {{path: ..., name: ...}}"
            )
        # Folders whose names differ only by case are the same folder on some systems.
        other = first.setdefault(entry.name.casefold(), entry)
        if other is not entry:
            found = (
                f"{entry.path} is listed twice"
                if entry.path == other.path
                else f"{show(entry.name)} is the name of both {other.path} and {entry.path}"
            )
            problems.append(
                f"{section}.{index}.name: {found}; give one of them another name, "
                "{path: ..., name: ...} in a plan"
            )
    return problems


def _name_fault(name: str) -> str | None:
    """Why a name cannot be a folder's name, or None."""
    if name != name.strip() or name in ("", ".", ".."):
        return "is empty, a dot, or has spaces around it"
    if "/" in name or "\\" in name:
        return "has a slash in it"
    if not name.isprintable():
        return "has a character that cannot be shown"
    if len(name) > MAX_NAME_CHARACTERS or len(name.encode()) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_CHARACTERS} characters or {MAX_NAME_BYTES} bytes"
    return None


def numbered(names: Iterable[str]) -> list[str]:
    """The names, a repeated one with a number behind it: a, a-2."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        number, free = 1, name
        # Folders whose names differ by case alone are one folder on some systems.
        while free.casefold() in taken:
            number += 1
            free = f"{name}-{number}"
        taken.add(free.casefold())
        distinct.append(free)
    return distinct


def repeated(items: Iterable[Item]) -> list[Item]:
    """The items that occur more than once, each once, in order of first occurrence."""
    return [item for item, times in Counter(items).items() if times > 1]
