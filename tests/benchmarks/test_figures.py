"""Figures of speed come from benchmarks/results, and every file there says what it was made on."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures, header

RESULTS = sorted(figures.RESULTS.glob("*.json"))

TABLE = """## Speed

| what | times | file |
|---|---:|---|
| a step, 64 rows | 9.9 | `step.json` |
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write(tmp_path / "step.json", {"median": 13.46})
    ties = {"bfloat16": {"batches_of_64_with_drafts": 7}}
    near = {"num_rows": 50, "answers_that_differ_from_one_at_a_time": ties}
    (tmp_path / "near_ties-adapter.json").write_text(json.dumps(near))
    return tmp_path


def write(path: Path, ratio: dict[str, float]) -> None:
    path.write_text(json.dumps({"benchmark": "training_step", "trl_over_loracle": ratio}))


@pytest.mark.parametrize("page", figures.PAGES)
def test_every_figure_of_the_pages_equals_its_file(page: str) -> None:
    text = (figures.REPOSITORY / page).read_text(encoding="utf-8")
    wrong = [figure.problem for figure in figures.quoted(page, text) if not figure.is_right]
    assert wrong == []


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_no_number_stands_in_the_table_of_speed_without_its_file(page: str) -> None:
    text = (figures.REPOSITORY / page).read_text(encoding="utf-8")
    in_table = [figure for figure in figures.quoted(page, text) if "near_ties" not in figure.source]
    assert len(in_table) >= 4
    assert all(figure.source for figure in in_table)


def test_every_sentence_that_is_known_is_on_a_page() -> None:
    pages = [(figures.REPOSITORY / page).read_text(encoding="utf-8") for page in figures.PAGES]
    for sentence in figures.SENTENCES:
        assert any(re.search(sentence.pattern, text) for text in pages), sentence.pattern


def test_a_figure_that_differs_from_its_file_is_found_and_written(results: Path) -> None:
    [figure] = figures.quoted("page", TABLE, results)
    assert figure.problem == "page: found 9.9, step.json says 13.5"

    text = figures.written(TABLE, [figure])
    assert "| a step, 64 rows | 13.5 | `step.json` |" in text
    assert all(figure.is_right for figure in figures.quoted("page", text, results))


def test_a_number_without_a_file_is_found_in_the_table_of_speed_alone(results: Path) -> None:
    text = TABLE.replace("`step.json`", "none")
    [figure] = figures.quoted("page", text, results)
    assert figure.problem == "page: 9.9 stands in the table of speed without its file"
    assert figures.quoted("page", text.replace("## Speed", "## Other"), results) == []


def test_two_figures_of_a_row_come_from_two_files(results: Path) -> None:
    write(results / "other.json", {"median": 4.0})
    text = TABLE.replace("9.9 | `step.json`", "13.5 | 3.9 | `step.json`, `other.json`")
    assert [f.wanted for f in figures.quoted("page", text, results)] == ["13.5", "4.0"]


def test_a_figure_in_a_sentence_is_checked(results: Path) -> None:
    text = "shape: 9 of 50 short\nanswers of an adapter did"
    found = figures.quoted("page", text, results)
    assert [(f.found, f.wanted) for f in found] == [("9", "7"), ("50", "50")]


def test_a_quoted_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="a page quotes gone"):
        figures.headline(tmp_path / "gone.json")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_says_what_it_was_measured_on(path: Path) -> None:
    result: dict[str, Any] = json.loads(path.read_text())
    assert set(header.FIELDS) <= result.keys()
    assert result["processor"]["model"]
    assert result["processor"]["cores"] >= 1
    assert set(result["load"]) == {"before", "after", "share_of_others", "quiet"}


def test_a_head_names_the_variables_that_imitate_another_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORACLE_NATIVE_ARCH", "x86-64-v3")
    found = header.header("trial", "float32", header.Start.now())
    assert found["switches"]["LORACLE_NATIVE_ARCH"] == "x86-64-v3"


def test_a_head_has_every_field_and_the_processor_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in header.SWITCHES:
        monkeypatch.delenv(name, raising=False)
    found = header.header("trial", "float32", header.Start.now())
    assert tuple(found) == header.FIELDS
    assert found["dtype"] == "float32"
    assert found["packages"]["torch"]


def test_a_processor_is_read_with_the_flags_that_decide_its_speed(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "cpu family\t: 25\nmodel name\t: AMD EPYC 7763\nflags\t\t: fpu fma avx2 rdtscp\n"
    )
    found = header.processor(info)
    assert (found["model"], found["family"]) == ("AMD EPYC 7763", 25)
    assert found["flags"] == ["avx2", "fma"]


@pytest.mark.parametrize(
    ("share", "load", "is_quiet"),
    [
        (0.02, 2.0, True),
        (0.2, 0.0, False),
        (None, 0.0, True),
        (None, 2.0, False),
        (None, None, False),
    ],
)
def test_a_machine_is_quiet_by_the_share_of_others_or_else_by_its_load(
    share: float | None, load: float | None, is_quiet: bool
) -> None:
    cores, seconds = header.processor()["cores"], 100.0
    busy = None if share is None else 0.0
    start = header.Start(datetime.now(UTC), None if load is None else load * cores, busy, 7.0)
    end = dataclasses.replace(
        start,
        time=start.time + timedelta(seconds=seconds),
        busy_seconds=None if share is None else seconds + share * seconds * cores,
        own_seconds=start.own_seconds + seconds,
    )
    found = header.load_since(start, end)
    assert (found["share_of_others"], found["quiet"]) == (share, is_quiet)


ORPHAN = """
import os, time
import header

header.adopt_orphans()
start = header.Start.now()
done, says_done = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        while time.process_time() < 1.0:
            pass
    os._exit(0)  # the inner process computes for a second without a parent
os.wait()
os.close(says_done)
os.read(done, 1)  # until the inner process has ended
print(header.Start.now().own_seconds - start.own_seconds)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="orphans and /proc are as Linux has them")
def test_the_time_of_a_process_whose_parent_has_ended_is_not_counted_as_others() -> None:
    environment = {**os.environ, "PYTHONPATH": str(header.ROOT / "benchmarks")}
    printed = subprocess.run(
        [sys.executable, "-c", ORPHAN], env=environment, capture_output=True, check=True
    )
    assert float(printed.stdout) > 0.9
