"""The pipeline's datasets: what each is trained on, and what it is measured on.

"data/a.jsonl"                                           trained on most of its rows, measured
                                                         on a held-out part of them
("data/a.jsonl", "data/test.jsonl")                      trained on one file, measured on another
{"train": "a.jsonl", "eval": "test.jsonl", "name": "a"}  the same; eval and name may be left out
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loracle.data.conversation import Example
from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import Renderer
from loracle.errors import DataError, PlanError
from loracle.experiment.setup import EvaluationSet, TrainingSet
from loracle.forest.trie import IntArray
from loracle.plan import data_name, nearest
from loracle.plan.locations import is_hub_location
from training.evaluate_module import METRICS

HELD_OUT_SHARE = 0.1
# Not the training's seed: with another of those, the same rows are asked.
HELD_OUT_SEED = 0

_KEYS = ("train", "eval", "name")


class DatasetPaths(NamedTuple):
    """One item of dataset_paths. `evaluation_path` None: a held-out part of the training file.

    evaluation_name: the same for datasets that are measured on the same file.
    """

    name: str
    train_path: str | Path
    evaluation_path: str | Path | None
    evaluation_name: str

    def evaluation_facts(self) -> dict[str, Any]:
        """What the results say of the rows that are asked."""
        if self.evaluation_path is not None:
            return {"source": "file", "path": str(self.evaluation_path)}
        return {
            "source": "held_out",
            "path": str(self.train_path),
            "share": HELD_OUT_SHARE,
            "seed": HELD_OUT_SEED,
            "rule": "rows that share a passage stay together, and none of them is trained on",
        }


class Content(NamedTuple):
    """The rows of a dataset. `evaluation` None: to be split off from those of training."""

    training: list[Example]
    evaluation: list[Example] | None


class Split(NamedTuple):
    """What a dataset is trained on and measured on, rendered."""

    training: TrainingSet
    evaluation: EvaluationSet


def datasets_of(dataset_paths: Sequence[Any] | str | Path) -> list[DatasetPaths]:
    """The items of dataset_paths, each under a name of its own; a bare path is a list of one.

    Raises PlanError with all problems.
    """
    items = [dataset_paths] if isinstance(dataset_paths, str | os.PathLike) else list(dataset_paths)
    if not items:
        raise PlanError("dataset_paths: found none; name at least one training file")
    problems: list[str] = []
    entries = [_entry(item, f"dataset_paths[{i}]", problems) for i, item in enumerate(items)]
    if problems:
        raise PlanError(problems)
    names = _distinct(entry.get("name") or _stem(entry["train"]) for entry in entries)
    files = list(dict.fromkeys(entry["eval"] for entry in entries if "eval" in entry))
    name_of_file = dict(zip(files, _distinct(map(_stem, files)), strict=True))
    return [
        DatasetPaths(
            name,
            _location(entry["train"]),
            _location(entry["eval"]) if "eval" in entry else None,
            name_of_file[entry["eval"]] if "eval" in entry else f"{name}-held-out",
        )
        for name, entry in zip(names, entries, strict=True)
    ]


def read_dataset(dataset: DatasetPaths) -> Content:
    """Read its files. Raises DataError."""
    path = dataset.evaluation_path
    training = read_examples(dataset.train_path)
    return Content(training, None if path is None else read_examples(path))


def split(
    dataset: DatasetPaths, content: Content, renderer: Renderer, max_new_tokens: int
) -> Split:
    """Render the rows, and hold some out where no evaluation file is named.

    Raises DataError where rows cannot be rendered, or none can be held out.
    """
    rows = renderer.training_rows(content.training)
    asked = content.evaluation
    if asked is None:
        held_out = hold_out(TrainingSet.of(dataset.name, rows).groups)
        if not len(held_out):
            raise DataError(
                f"{dataset.train_path}: its rows cannot be parted into two groups that share no "
                "passage, so none can be held out; name an evaluation file, (train, eval)"
            )
        asked = [content.training[i] for i in held_out]
        taken = set(held_out.tolist())
        rows = [row for i, row in enumerate(rows) if i not in taken]
    prompts = renderer.prompts(asked, max_new_tokens)
    return Split(
        TrainingSet.of(dataset.name, rows),
        EvaluationSet(dataset.evaluation_name, METRICS, asked, prompts),
    )


def hold_out(groups: IntArray) -> IntArray:
    """The rows to measure on, ascending: whole groups in a seeded order, about the wanted share.

    groups: the prefix group of each row, shape (rows,). With one group alone, none is held out.
    """
    labels, sizes = np.unique(groups, return_counts=True)
    if len(labels) < 2:
        return np.empty(0, np.int64)
    # Where every group is larger than the share, the smallest one is held out.
    limit = max(1, round(HELD_OUT_SHARE * len(groups)), int(sizes.min()))
    taken: list[int] = []
    num_rows = 0
    for i in np.random.default_rng(HELD_OUT_SEED).permutation(len(labels)):
        if num_rows + sizes[i] <= limit:
            taken.append(int(labels[i]))
            num_rows += int(sizes[i])
    return np.flatnonzero(np.isin(groups, taken))


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


def _stem(path: str) -> str:
    return data_name(path)


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
