from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from loracle.run_folder.folder import RunFolder
from loracle.run_folder.naming import default_run_folder

DAY = date(2026, 11, 26)


def named(runs: Path, *candidates: str, fingerprint: str = "f") -> str:
    return default_run_folder(fingerprint, candidates, runs, DAY).name


def test_a_run_is_named_by_date_and_candidates(tmp_path: Path) -> None:
    assert named(tmp_path, "clean") == "2026-11-26-clean"
    assert named(tmp_path, "clean", "small") == "2026-11-26-clean-vs-small"
    assert named(tmp_path, "中文 数据", "b") == "2026-11-26-中文-数据-vs-b"
    assert named(tmp_path, "a", "b", "c") == "2026-11-26-a-and-2-more"
    long = "alpaca-zh-cleaned-version-2"
    assert named(tmp_path, long, "b") == "2026-11-26-alpaca-zh-cleaned-vs-b"
    assert named(tmp_path, "$$$") == "2026-11-26-data"


def test_the_same_plan_finds_its_run_on_another_day(tmp_path: Path) -> None:
    root = tmp_path / "2026-11-20-a-vs-b"
    RunFolder.open(root, {"candidates": [], "evaluation": []}, "f").close()
    assert default_run_folder("f", ["a", "b"], tmp_path, DAY) == root


def test_another_plan_of_the_same_candidates_gets_a_number(tmp_path: Path) -> None:
    for number, expected in enumerate(("a-vs-b", "a-vs-b-2", "a-vs-b-3")):
        root = default_run_folder(str(number), ["a", "b"], tmp_path, DAY)
        assert root.name == f"2026-11-26-{expected}"
        RunFolder.open(root, {"candidates": [], "evaluation": []}, str(number)).close()


@pytest.mark.parametrize("content", ["", "{}", '{"version": 9}', "[]"])
def test_a_damaged_run_beside_it_does_not_matter(tmp_path: Path, content: str) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/plan.json").write_text(content)
    assert named(tmp_path, "a") == "2026-11-26-a"
