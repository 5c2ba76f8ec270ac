"""The pipeline's datasets: what each is trained on, and what it is measured on.

"data/a.jsonl"                                           measured on rows held out of all datasets,
                                                         or on the files that others name
("data/a.jsonl", "data/test.jsonl")                      trained on one file, measured on another
{"train": "a.jsonl", "eval": "test.jsonl", "name": "a"}  the same; eval and name may be left out
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loracle.errors import PlanError
from loracle.plan import data_name, nearest
from loracle.plan.locations import is_hub_location

_KEYS = ("train", "eval", "name", "split")


class DatasetPaths(NamedTuple):
    """One item of dataset_paths. `evaluation_path` None: no file is named.

    evaluation_name: the same for datasets that are measured on the same file; None without one.
    """

    name: str
    train_path: str | Path
    evaluation_path: str | Path | None
    evaluation_name: str | None
    split: str | None = None


def datasets_of(dataset_paths: Sequence[Any] | str | Path) -> list[DatasetPaths]:
    """The items of dataset_paths, each under its own name; a bare path is a list of one.

    Raises PlanError with all problems.
    """
    items = [dataset_paths] if isinstance(dataset_paths, str | os.PathLike) else list(dataset_paths)
    if not items:
        raise PlanError("dataset_paths: found none; name at least one training file")
    problems: list[str] = []
    entries = [_entry(item, f"dataset_paths[{i}]", problems) for i, item in enumerate(items)]
    if problems:
        raise PlanError(problems)
    names = _distinct(entry.get("name") or data_name(entry["train"]) for entry in entries)
    files = list(dict.fromkeys(entry["eval"] for entry in entries if "eval" in entry))
    name_of_file = dict(zip(files, _distinct(map(data_name, files)), strict=True))
    return [
        DatasetPaths(
            name,
            _location(entry["train"]),
            _location(entry["eval"]) if "eval" in entry else None,
            name_of_file[entry["eval"]] if "eval" in entry else None,
            entry.get("split"),
        )
        for name, entry in zip(names, entries, strict=True)
    ]


def _entry(item: object, place: str, problems: list[str]) -> dict[str, str]:
    """The item with its parts by key; what is wrong with it goes to the problems."""
    if isinstance(item, str | os.PathLike):
        item = {"train": item}
    elif isinstance(item, list | tuple):
        if len(item) != 2:
            problems.append(f"{place}: found {len(item)} parts; expected (train, eval)")
            return {"train": ""}
        item = {"train": item[0], "eval": item[1]}
    if not isinstance(item, Mapping):
        problems.append(f"{place}: found {item!r}; expected a path, (train, eval) or a dict")
        return {"train": ""}
    for key in item:
        if key not in _KEYS:
            near = nearest(str(key), _KEYS)
            hint = f"did you mean {near}?" if near else f"known: {', '.join(_KEYS)}"
            problems.append(f"unknown key {place}.{key}; {hint}")
    entry = {key: item[key] for key in _KEYS if item.get(key) is not None}
    if "train" not in entry:
        problems.append(f"{place}.train: missing; name the file to train on")
    for key, value in entry.items():
        if not isinstance(value, str | os.PathLike) or not str(value).strip():
            problems.append(f"{place}.{key}: found {value!r}; expected text")
        elif key == "name" and Path(value).name != value:
            problems.append(f"{place}.name: found {value!r}; expected a name without slashes")
    return {key: str(value) for key, value in entry.items()}


def _location(text: str) -> str | Path:
    """A path, or the address of a hub's dataset, which a Path would change."""
    return text if is_hub_location(text) else Path(text)


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, a repeated one with a number behind it."""
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
