"""A large set that was checked once is not checked again, unless anything that counts changed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from loracle.data_check import datasets, kept
from loracle.data_check.datasets import check_files
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
