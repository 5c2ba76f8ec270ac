"""Rows that one run examined are not examined by the next, unless anything that counts changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loracle.data_check import kept, remembered
from loracle.data_check.datasets import check_files
from loracle.errors import UserError
from tests.small_run import World, make_world


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and data, which nothing changes."""
    root = tmp_path_factory.mktemp("files")
    make_world(root)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(remembered, "MIN_KEPT_CHARACTERS", 0)
    monkeypatch.setenv("LORACLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def examinations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every examination."""
    calls: list[int] = []
    examine = remembered.examine

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return examine(*arguments)

    monkeypatch.setattr(remembered, "examine", counted)
    return calls


def recorded(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "check.json").read_text(encoding="utf-8"))
    return {key: value for key, value in record.items() if key != "made_from"}


def test_a_run_in_another_folder_examines_the_same_rows_no_more(
    files: Path, tmp_path: Path, examinations: list[int]
) -> None:
    World(files, tmp_path / "one").start()
    assert len(examinations) == 1
    # What is trained, and how, does not count.
    World(files, tmp_path / "two").start("training.learning_rate=1e-3")
    assert len(examinations) == 1
    assert recorded(tmp_path / "one") == recorded(tmp_path / "two")
    assert "the same rows were already" in (tmp_path / "two" / "events.jsonl").read_text()


def checked(root: Path, **more: Any) -> dict[str, Any]:
    paths = [[str(root / name)] for name in ("a.jsonl", "test.jsonl")]
    return check_files(*paths, model=str(root / "model"), **more).to_dict()


def test_a_check_with_a_model_is_remembered_too(files: Path, examinations: list[int]) -> None:
    first = checked(files)
    assert checked(files) == first
    assert len(examinations) == 1


def test_data_in_another_folder_is_remembered_and_named_where_it_lies(
    files: Path, tmp_path: Path, examinations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked(files)
    moved = tmp_path / "moved"
    moved.mkdir()
    paths = [[str(shutil.copy(files / name, moved))] for name in ("a.jsonl", "test.jsonl")]
    known = check_files(*paths, model=str(files / "model")).to_dict()
    assert len(examinations) == 1
    monkeypatch.setenv("LORACLE_CACHE", str(tmp_path / "another"))
    assert known == check_files(*paths, model=str(files / "model")).to_dict()
    assert len(examinations) == 2


@pytest.mark.parametrize("change", ["byte", "template", "settings", "program", "damage"])
def test_whatever_counts_and_changed_is_examined_again(
    change: str,
    tmp_path: Path,
    examinations: list[int],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_world(tmp_path / "files")
    root = tmp_path / "files"
    checked(root)
    settings: dict[str, Any] = {}
    if change == "byte":
        path = root / "test.jsonl"
        content = path.read_bytes()
        place = content.rindex(b'content": "') + len(b'content": "')
        path.write_bytes(content[:place] + b"z" + content[place + 1 :])
    elif change == "template":
        [path] = (root / "model").glob("*.jinja")
        path.write_text(f"{path.read_text()}{{# another #}}")
    elif change == "settings":
        settings = {"overrides": ["training.train_on=last"]}
    elif change == "program":
        for module in (kept, remembered):
            monkeypatch.setattr(module, "program_sha256", lambda: "of another version")
    else:
        [record] = (cache / kept.FOLDER_NAME).iterdir()
        record.write_text("{}")
    try:
        checked(root, **settings)
    except UserError as error:
        pytest.fail(str(error))
    assert len(examinations) == 2


def test_few_rows_are_not_kept(files: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MIN_KEPT_CHARACTERS", 1 << 20)
    checked(files)
    assert not (cache / kept.FOLDER_NAME).exists()
