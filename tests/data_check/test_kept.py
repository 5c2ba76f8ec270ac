"""A large set that was checked once is not checked again, unless anything that counts changed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from loracle.data_check import datasets, kept
from loracle.data_check.datasets import check_files
from loracle.data_check.places import Places
from tests.data.files import lines

WORDS = ["river", "stone", "copper", "trade", "market", "bridge", "winter", "council", "harbour"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every set counts as large, and the cache is the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kept, "MIN_STORED_BYTES", 0)
    monkeypatch.setenv("LORACLE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write(name: str, seed: int, **more: object) -> str:
    generator = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(30):
        passage = " ".join(generator.choices(WORDS, k=40))
        rows.append({"context": passage, "question": f"What is {number}?", "answer": passage[:9]})
    rows += [
        rows[0],
        {**rows[1], "answer": "another"},
        {"question": "no answer"},
        {**rows[2], **more},
    ]
    Path(name).write_text(lines(*rows), encoding="utf-8")
    return name


def checked(**settings: Any) -> dict[str, Any]:
    return check_files(["a.jsonl"], ["e.jsonl"], settings=settings).to_dict()


def forbid_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr(datasets, "check", fail)


def test_the_same_files_are_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.jsonl", 1)
    write("e.jsonl", 1)
    first = check_files(["a.jsonl"], ["e.jsonl"])
    assert first.leaks
    assert first.reports[0].findings
    forbid_checking(monkeypatch)
    again = check_files(["a.jsonl"], ["e.jsonl"])
    assert again.to_dict() == first.to_dict()
    assert again.exit_code == first.exit_code
    assert (again.reports, again.leakages) == (first.reports, first.leakages)


@pytest.mark.parametrize("elsewhere", ["elsewhere/deep", "data.d"])
def test_files_in_another_folder_are_known_and_named_where_they_lie(
    elsewhere: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(str(folder / name), 1) for name in ("a.jsonl", "e.jsonl")]
    check_files(paths[:1], paths[1:])
    moved = folder / elsewhere
    moved.mkdir(parents=True)
    new = [str(Path(path).rename(moved / Path(path).name)) for path in paths]
    with monkeypatch.context() as patched:
        forbid_checking(patched)
        known = check_files(new[:1], new[1:]).to_dict()
    monkeypatch.setenv("LORACLE_CACHE", str(folder / "another"))
    assert known == check_files(new[:1], new[1:]).to_dict()
    assert known["datasets"][0]["accounting"]["dropped"][0]["file"] == new[0]


def test_a_file_of_another_name_is_another_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.jsonl", 1)
    write("e.jsonl", 2)
    check_files(["a.jsonl"], ["e.jsonl"])
    Path("a.jsonl").rename("b.jsonl")
    forbid_checking(monkeypatch)
    with pytest.raises(AssertionError, match="checked again"):
        check_files(["b.jsonl"], ["e.jsonl"])


def test_a_folder_of_files_is_known_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one/a", "two/a"):
        Path(name).mkdir(parents=True)
        write(f"{name}/x.jsonl", 1)
        write(f"{name}/y.jsonl", 4)
    write("e.jsonl", 2)
    first = check_files(["one/a"], ["e.jsonl"]).to_dict()
    forbid_checking(monkeypatch)
    again = check_files(["two/a"], ["e.jsonl"]).to_dict()
    assert again != first
    assert json.loads(json.dumps(again).replace("two/a", "one/a")) == json.loads(json.dumps(first))


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["a.jsonl"], "a.jsonl:3: no answer; a.jsonl, or data/a.jsonl"),
        (["x/a.jsonl", "a.jsonl"], "x/a.jsonl:1 and a.jsonl:2 and xa.jsonl"),
        (["a", "b"], "a cat; b/x.jsonl:1"),
        (["/d/a", "/d/a/b.csv"], "/d/a/b.csv:1 and /d/a/c.csv:2 and /d/ab"),
        (["hf://o/n"], "hf://o/n@1:a.jsonl:3"),
    ],
)
def test_paths_are_taken_out_of_a_text_and_put_in_again(paths: list[str], text: str) -> None:
    places = Places(paths)
    assert places.shown(places.neutral(text)) == text


@pytest.mark.parametrize("change", ["content", "settings", "program", "other set"])
def test_what_changed_is_checked_again(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.jsonl", 1)
    write("e.jsonl", 2)
    checked()
    settings: dict[str, Any] = {}
    if change == "content":
        write("a.jsonl", 1, answer="changed")
    elif change == "settings":
        settings = {"limit": 5}
    elif change == "other set":
        write("e.jsonl", 3)
    else:
        monkeypatch.setattr(kept, "program_sha256", lambda: "of another version")
    forbid_checking(monkeypatch)
    with pytest.raises(AssertionError, match="checked again"):
        checked(**settings)


@pytest.mark.parametrize("content", ["", "{}", '{"datasets": 3, "leakage": []}', "[]"])
def test_a_damaged_record_is_made_again(content: str, folder: Path) -> None:
    write("a.jsonl", 1)
    write("e.jsonl", 2)
    first = checked()
    [record] = (folder / "cache" / kept.FOLDER_NAME).iterdir()
    record.write_text(content, encoding="utf-8")
    assert checked() == first
    assert record.read_text(encoding="utf-8") != content


def test_a_cache_that_cannot_be_written_changes_nothing(folder: Path) -> None:
    (folder / "cache").write_text("a file where the folder should be", encoding="utf-8")
    write("a.jsonl", 1)
    write("e.jsonl", 2)
    assert checked() == checked()


def test_only_so_many_checks_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_KEPT", 2)
    write("e.jsonl", 2)
    for seed in range(4):
        write("a.jsonl", seed)
        checked()
    assert len([*(folder / "cache" / kept.FOLDER_NAME).iterdir()]) == 2


def test_small_sets_are_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MIN_STORED_BYTES", 1 << 20)
    write("a.jsonl", 1)
    write("e.jsonl", 2)
    checked()
    assert not (folder / "cache").exists()


def test_a_missing_file_is_said_as_ever() -> None:
    write("e.jsonl", 2)
    assert "a.jsonl" in check_files(["a.jsonl"], ["e.jsonl"]).errors[0]
