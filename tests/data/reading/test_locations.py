"""Folders, saved datasets, LLaMA-Factory's registry, and names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loracle.data.reading.dataset import Dataset, read_dataset
from loracle.data.reading.locations import deciding_files
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError
from loracle.plan import data_name
from tests.data.files import lines, row, turns, written


def pair(answer: str) -> dict[str, str]:
    return {"question": "Who?", "answer": answer}


def answers(dataset: Dataset) -> list[str]:
    return [value.conversation.reply for value in dataset.examples]


def refusal(location: str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(location, ReadOptions(**options))  # type: ignore[arg-type]
    return str(caught.value)


def test_a_folder_is_read_in_order_of_its_files_names() -> None:
    written(lines(pair("b")), "data/part-1.jsonl")
    written(lines(pair("a")), "data/part-0.jsonl")
    written("question,answer\nWho?,c\n", "data/sub/part-2.csv")
    written("about", "data/README.md")
    written("{}", "data/.hidden.json")

    dataset = read_dataset("data")

    assert answers(dataset) == ["a", "b", "c"]
    assert dataset.container == "folder of 3 files: JSONL, CSV"
    assert [value.id for value in dataset.examples] == ["data-1", "data-2", "data-3"]
    assert [value.where for value in dataset.examples][2] == "data/sub/part-2.csv:2"
    assert [path.name for path in dataset.ignored] == ["README.md"]
    assert dataset.description.endswith("1 other files not read")


def test_a_folder_with_several_splits_asks_which() -> None:
    written(lines(pair("a")), "data/train-00000-of-00002.jsonl")
    written(lines(pair("b")), "data/train-00001-of-00002.jsonl")
    written(lines(pair("c")), "data/validation-00000-of-00001.jsonl")

    assert refusal("data") == (
        "data has several splits (train, validation); name the one to read, split: train"
    )
    assert refusal("data", split="trian") == "data has no split 'trian'; did you mean train?"
    dataset = read_dataset("data", ReadOptions(split="train"))
    assert answers(dataset) == ["a", "b"]
    assert dataset.container == "folder, split train of 2 files: JSONL"


def test_a_folder_without_data_says_what_it_has() -> None:
    written("x", "data/notes.txt")
    Path("empty").mkdir()

    assert refusal("data").startswith("data has no data file (found 'notes.txt'); expected one of ")
    assert refusal("empty").startswith("empty has no data file (found no files); expected one of ")


def test_links_that_lead_round_or_nowhere_are_named() -> None:
    written(lines(pair("a")), "data/a.jsonl")
    Path("data/again").symlink_to("..", target_is_directory=True)
    Path("loop.jsonl").symlink_to("loop.jsonl")
    Path("broken").mkdir()
    Path("broken/gone.jsonl").symlink_to("nowhere.jsonl")

    dataset = read_dataset("data")
    assert answers(dataset) == ["a"]
    assert [path.name for path in dataset.ignored] == ["again"]
    assert refusal("loop.jsonl") == (
        "loop.jsonl is a symbolic link that leads back to itself; name the file itself"
    )
    gone = (
        "broken/gone.jsonl is a symbolic link that leads to nowhere.jsonl, which does not exist; "
    )
    assert refusal("broken") == refusal("broken/gone.jsonl") == f"{gone}name the file itself"


def test_a_name_of_300_characters_is_refused_in_words() -> None:
    name = "x" * 300 + ".jsonl"
    assert refusal(name) == f"{name} cannot be reached: File name too long"


def test_saved_datasets_are_read() -> None:
    datasets = pytest.importorskip("datasets", reason="needs the datasets library to save with")
    whole = datasets.Dataset.from_list([pair("a"), pair("b"), pair("c")])
    whole.save_to_disk("saved", num_shards=2)
    whole.select([2, 0]).save_to_disk("chosen")
    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk("splits")

    dataset = read_dataset("saved")
    assert answers(dataset) == ["a", "b", "c"]
    assert dataset.container == "saved dataset of 2 files: Arrow"
    assert answers(read_dataset("chosen")) == ["c", "a"]
    assert "several splits (train, test)" in refusal("splits")
    assert answers(read_dataset("splits", ReadOptions(split="test"))) == ["a"]


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ("{", "data/state.json is not JSON ("),
        ("[]", "data/state.json holds a list; expected an object"),
        ("{}", "data/state.json: found no list of data files; save the dataset again"),
        ('{"_data_files": [3]}', "data/state.json: found no list of data files"),
        ('{"_data_files": [{"filename": "x.arrow"}]}', "there is no file data/x.arrow; check"),
    ],
)
def test_a_saved_dataset_that_is_damaged_is_named(state: str, problem: str) -> None:
    written(state, "data/state.json")
    assert refusal("data").startswith(problem)


REGISTRY = {
    "plain": {"file_name": "alpaca.json"},
    "renamed": {
        "file_name": "renamed.json",
        "columns": {"prompt": "q", "query": "more", "response": "a"},
        "num_samples": 1,
    },
    "chat": {
        "file_name": "chat.json",
        "formatting": "sharegpt",
        "columns": {"messages": "dialog", "tools": "functions_json"},
        "tags": {
            "role_tag": "who",
            "content_tag": "says",
            "user_tag": "customer",
            "assistant_tag": "agent",
        },
    },
    "openai": {"file_name": "openai.json", "formatting": "openai"},
    "images": {"file_name": "x.json", "formatting": "sharegpt", "columns": {"images": "images"}},
    "pairs": {"file_name": "x.json", "ranking": True},
    "hub": {"hf_hub_url": "org/name", "subset": "zh"},
    "script": {"script_url": "x"},
    "odd": {"file_name": "x.json", "formatting": "chatml"},
    "none": {},
    "text": "x",
}


@pytest.fixture
def registry() -> str:
    written(json.dumps([{"instruction": "a", "input": "", "output": "b"}]), "lf/alpaca.json")
    renamed = [{"q": "a", "more": "b", "a": "c", "input": "x"}, {"q": "d", "more": "", "a": "e"}]
    written(json.dumps(renamed), "lf/renamed.json")
    dialog = [{"who": "customer", "says": "a"}, {"who": "agent", "says": "b"}]
    written(json.dumps([{"dialog": dialog, "functions_json": "[]"}]), "lf/chat.json")
    written(json.dumps([row("a", "b")]), "lf/openai.json")
    return written(json.dumps(REGISTRY), "lf/dataset_info.json")


@pytest.mark.parametrize(
    ("name", "first_turn", "count"),
    [("plain", "a", 1), ("renamed", "a\nb", 1), ("chat", "a", 1), ("openai", "a", 1)],
)
def test_an_entry_of_llama_factorys_registry_is_read(
    registry: str, name: str, first_turn: str, count: int
) -> None:
    dataset = read_dataset(f"{registry}#{name}", strict=True)

    assert turns(dataset)[0] == ("user", first_turn)
    assert len(dataset.examples) == count
    assert dataset.container == "dataset_info of 1 file: JSON"
    assert dataset.examples[0].id == f"{name}-1"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("plian", "lf/dataset_info.json has no dataset 'plian'; did you mean plain?"),
        ("images", "lf/dataset_info.json#images: columns.images is not supported"),
        ("pairs", "lf/dataset_info.json#pairs: ranking is true: pairs of a chosen and a rejected"),
        ("script", "lf/dataset_info.json#script: script_url is not supported"),
        ("odd", "lf/dataset_info.json#odd: formatting is 'chatml'"),
        ("none", "lf/dataset_info.json#none: found no file_name"),
        ("text", "lf/dataset_info.json#text is text; expected an object"),
    ],
)
def test_an_entry_that_cannot_be_followed_is_named(registry: str, name: str, problem: str) -> None:
    assert refusal(f"{registry}#{name}").startswith(problem)


def test_a_registrys_hub_entry_is_the_hubs_dataset(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert refusal(f"{registry}#hub").startswith("hf://org/name: ")


def test_what_decides_the_reading_is_every_file_and_the_registry(registry: str) -> None:
    written("{}", "data/b.json")
    written("{}", "data/a.json")
    options = ReadOptions()

    assert [str(p) for p in deciding_files("data", options)] == ["data/a.json", "data/b.json"]
    assert [str(p) for p in deciding_files(f"{registry}#plain", options)] == [
        "lf/dataset_info.json",
        "lf/alpaca.json",
    ]


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("data/a.jsonl", "a"),
        ("data/a.jsonl.gz", "a"),
        ("data/a.b.csv.zst", "a.b"),
        ("data/", "data"),
        ("data/dataset_info.json#alpaca_zh", "alpaca_zh"),
        ("a#b/c.json", "c"),
    ],
)
def test_the_name_of_a_location_is_short(location: str, name: str) -> None:
    assert data_name(location) == name
