"""Datasets as a program lists them: what each is trained on, and what it is measured on.

"data/a.jsonl"                                           measured on rows held out of all datasets,
                                                         or on the files that others name
("data/a.jsonl", "data/test.jsonl")                      trained on one file, measured on another
{"train": "a.jsonl", "eval": "test.jsonl", "name": "a"}  the same; eval, name, split may be left out
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from loracle.errors import PlanError
from loracle.plan import Section, data_name
from loracle.plan.locations import is_hub_location
from loracle.plan.names import numbered
from loracle.plan.problems import checked


def _location(value: object) -> str | Path:
    """A path, or the address of a hub's dataset, which a Path would change."""
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise PydanticCustomError("text", "expected text")
    return str(value) if is_hub_location(str(value)) else Path(value)


def _name(value: object) -> str:
    if not isinstance(value, str) or Path(value).name != value:
        raise PydanticCustomError("name", "expected a name without slashes")
    return value


_Location = Annotated[str | Path, BeforeValidator(_location)]


class _Item(Section):
    train: _Location
    eval: _Location | None = None
    name: Annotated[str | None, BeforeValidator(_name)] = None
    split: str | None = None


class DatasetPaths(NamedTuple):
    """One item of dataset_paths. evaluation_path: None if no file is named; each has one name."""

    name: str
    train_path: str | Path
    split: str | None
    evaluation_path: str | Path | None
    evaluation_name: str | None


def datasets_of(dataset_paths: Sequence[Any] | str | Path) -> list[DatasetPaths]:
    """The items of dataset_paths, each under its own name; a single path or dict is a list of one.

    Raises PlanError with all problems.
    """
    if isinstance(dataset_paths, str | os.PathLike | dict):
        given: list[Any] = [dataset_paths]
    elif isinstance(dataset_paths, Iterable):
        given = list(dataset_paths)
    else:
        raise PlanError(
            f"dataset_paths: found {dataset_paths!r}; expected a list of training files"
        )
    items: list[_Item] = []
    problems = [] if given else ["dataset_paths: found none; name at least one training file"]
    for i, item in enumerate(given):
        try:
            items.append(_item_of(item, f"dataset_paths[{i}]"))
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    names = numbered(item.name or name_of_path(item.train) for item in items)
    files = list(dict.fromkeys(item.eval for item in items if item.eval))
    names_of_files: dict[str | Path | None, str] = dict(
        zip(files, numbered(map(name_of_path, files)), strict=True)
    )
    return [
        DatasetPaths(name, one.train, one.split, one.eval, names_of_files.get(one.eval))
        for name, one in zip(names, items, strict=True)
    ]


def _item_of(item: Any, place: str) -> _Item:
    if isinstance(item, str | os.PathLike):
        item = {"train": item}
    elif isinstance(item, list | tuple):
        if len(item) != 2:
            raise PlanError(f"{place}: found {len(item)} parts; expected (train, eval)")
        item = dict(zip(("train", "eval"), item, strict=True))
    elif not isinstance(item, dict):
        raise PlanError(f"{place}: found {item!r}; expected a path, (train, eval) or a dict")
    return checked(_Item, place, item)


def entry_of(name: str, path: str | Path, split: str | None = None) -> dict[str, Any]:
    """A data file's entry in the plan; `PATH#SPLIT` names one of several splits."""
    where, after = _path_and_split(str(path))
    return {"name": name, "path": where, "split": split or after}


def name_of_path(path: str | Path) -> str:
    """What a data file is called, whichever of its splits is named."""
    return data_name(_path_and_split(str(path))[0])


def _path_and_split(path: str) -> tuple[str, str | None]:
    # Behind a file, # names the entry of a registry, which is part of the path.
    where, _, split = path.rpartition("#")
    names_split = where and (is_hub_location(where) or Path(where).is_dir())
    return (where, split) if names_split else (path, None)
