"""The pipeline's datasets: what each is trained on, and what it is measured on.

"data/a.jsonl"                                           measured on rows held out of all datasets,
                                                         or on the files that others name
("data/a.jsonl", "data/test.jsonl")                      trained on one file, measured on another
{"train": "a.jsonl", "eval": "test.jsonl", "name": "a"}  the same; eval, name, split may be left out
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from loracle.errors import PlanError
from loracle.plan import Section, data_name
from loracle.plan.locations import is_hub_location
from loracle.plan.names import numbered
from loracle.plan.problems import checked


def _text(value: object) -> str:
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise PydanticCustomError("text", "expected text")
    return str(value)


def _without_slashes(name: str) -> str:
    if Path(name).name != name:
        raise PydanticCustomError("name", "expected a name without slashes")
    return name


_Text = Annotated[str, BeforeValidator(_text)]


class _Item(Section):
    train: _Text
    eval: _Text | None = None
    name: Annotated[_Text, AfterValidator(_without_slashes)] | None = None
    split: _Text | None = None


class DatasetPaths(NamedTuple):
    """One item of dataset_paths.

    evaluation_path: None if no file is named. evaluation_name: one for each file.
    """

    name: str
    train_path: str | Path
    split: str | None
    evaluation_path: str | Path | None
    evaluation_name: str | None


def datasets_of(dataset_paths: Sequence[Any] | str | Path) -> list[DatasetPaths]:
    """The items of dataset_paths, each under its own name; a bare path is a list of one.

    Raises PlanError with all problems.
    """
    given = [dataset_paths] if isinstance(dataset_paths, str | os.PathLike) else list(dataset_paths)
    items: list[_Item] = []
    problems = [] if given else ["dataset_paths: found none; name at least one training file"]
    for i, item in enumerate(given):
        try:
            items.append(_item_of(item, f"dataset_paths[{i}]"))
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    names = numbered(item.name or data_name(item.train) for item in items)
    files = list(dict.fromkeys(item.eval for item in items if item.eval))
    evaluations = {None: (None, None)} | {
        file: (_location(file), name)
        for file, name in zip(files, numbered(map(data_name, files)), strict=True)
    }
    return [
        DatasetPaths(name, _location(item.train), item.split, *evaluations[item.eval])
        for name, item in zip(names, items, strict=True)
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


def _location(text: str) -> str | Path:
    """A path, or the address of a hub's dataset, which a Path would change."""
    return text if is_hub_location(text) else Path(text)
