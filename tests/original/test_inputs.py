"""The forms of dataset_paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loracle.errors import PlanError
from loracle.migration.dataset_paths import datasets_of, entry_of


@pytest.mark.parametrize(
    ("item", "name", "evaluation"),
    [
        ("d/a.jsonl", "a", None),
        (Path("d/a.jsonl"), "a", None),
        (("d/a.jsonl", "d/t.jsonl"), "a", "d/t.jsonl"),
        (["d/a.jsonl", Path("d/t.jsonl")], "a", "d/t.jsonl"),
        ({"train": "d/a.jsonl"}, "a", None),
        ({"train": "d/a.jsonl", "eval": "d/t.jsonl", "name": "x"}, "x", "d/t.jsonl"),
    ],
)
def test_an_item_has_one_of_three_forms(item: Any, name: str, evaluation: str | None) -> None:
    (dataset,) = datasets_of([item])
    assert (dataset.name, dataset.train_path) == (name, Path("d/a.jsonl"))
    assert dataset.evaluation_path == (Path(evaluation) if evaluation else None)


def test_a_split_is_no_part_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    paths = ["hf://org/boxes#train", f"{tmp_path}/saved#train", "dataset_info.json#alpaca"]
    datasets = datasets_of(paths)
    assert [dataset.name for dataset in datasets] == ["boxes", "saved", "alpaca"]
    entries = [entry_of(dataset.name, dataset.train_path) for dataset in datasets]
    assert [entry["split"] for entry in entries] == ["train", "train", None]
    assert entries[2]["path"] == "dataset_info.json#alpaca"


def test_a_bare_path_is_one_dataset_and_not_its_letters() -> None:
    assert [dataset.name for dataset in datasets_of("abc.jsonl")] == ["abc"]


def test_a_tuple_of_paths_is_several_datasets() -> None:
    assert [dataset.name for dataset in datasets_of(("a.jsonl", "b.jsonl"))] == ["a", "b"]


def test_names_that_clash_are_numbered_and_evaluation_files_are_shared() -> None:
    datasets = datasets_of(
        [("x/a.jsonl", "t.jsonl"), ("y/A.jsonl", "t.jsonl"), ("z/a.jsonl", "z/t.jsonl"), "a.json"]
    )
    assert [dataset.name for dataset in datasets] == ["a", "A-2", "a-3", "a-4"]
    evaluations = [dataset.evaluation_name for dataset in datasets]
    assert evaluations == ["t", "t", "t-2", None]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "dataset_paths: found none"),
        (None, "dataset_paths: found None; expected a list of training files"),
        ({"a": "a.jsonl"}, "unknown key dataset_paths[0].a; known: train, eval, name, split"),
        ([("a", "b", "c")], "dataset_paths[0]: found 3 parts; expected (train, eval)"),
        ([7], "dataset_paths[0]: found 7; expected a path, (train, eval) or a dict"),
        ([{"train": "a", "evl": "b"}], "unknown key dataset_paths[0].evl; did you mean eval?"),
        ([{"eval": "b"}], "dataset_paths[0].train: missing"),
        (["a", ""], "dataset_paths[1].train: found ''; expected text"),
        ([{"train": "a", "name": "../a"}], "found '../a'; expected a name without slashes"),
    ],
)
def test_a_wrong_item_is_named(items: Any, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        datasets_of(items)
    assert message in str(caught.value)
