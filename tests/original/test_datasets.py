"""The forms of dataset_paths, and the part of a dataset that is held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loracle.data.rendering.renderer import Renderer
from loracle.errors import DataError, PlanError
from tests import tiny
from tests.original.conftest import question_rows, write_rows
from training.datasets import Split, datasets_of, hold_out, read_dataset, split


def split_of(path: Path) -> Split:
    (dataset,) = datasets_of([path])
    end_token_ids = frozenset({tiny.tokenizer().eos_token_id})
    return split(dataset, read_dataset(dataset), Renderer(tiny.tokenizer(), end_token_ids), 4)


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
    assert evaluations == ["t", "t", "t-2", "a-4-held-out"]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "dataset_paths: found none"),
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


def test_rows_of_one_passage_are_never_on_both_sides(tmp_path: Path) -> None:
    rows = question_rows(num_passages=10, num_questions=3)
    parts = split_of(write_rows(tmp_path / "a.jsonl", rows))
    asked = [example.id for example in parts.evaluation.examples]
    assert parts.training.sequences.num_sequences + len(asked) == 30
    passages = Counter(name[:2] for name in asked)
    assert list(passages.values()) == [3], "one whole passage, a tenth of the rows"
    trained = tiny.tokenizer().decode(parts.training.sequences.token_ids)
    assert f"Box {asked[0][1]} holds" not in trained


def test_the_same_rows_are_held_out_again(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", question_rows(num_passages=10))
    first, second = (split_of(path).evaluation.examples for _ in range(2))
    assert first == second


def test_a_single_row_cannot_be_split(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", question_rows(1, 1))
    with pytest.raises(DataError, match=r"share no passage.*name an evaluation file"):
        split_of(path)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60))
def test_whole_groups_are_held_out_and_some_stay(labels: list[int]) -> None:
    groups = np.array(labels)
    held_out = hold_out(groups)
    inside = set(groups[held_out].tolist())
    assert [i for i, label in enumerate(labels) if label in inside] == held_out.tolist()
    if len(set(labels)) == 1:
        assert not inside
    else:
        assert 0 < len(held_out) <= len(labels) / 2
