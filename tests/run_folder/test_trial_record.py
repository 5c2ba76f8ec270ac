"""trial.json: what is written is read back, and what cannot be trusted is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loracle.errors import RunFolderError
from loracle.files import read_json, write_json
from loracle.run_folder.trial_record import (
    DraftUse,
    EvaluationOutcome,
    TrialSummary,
    read_summary,
    write_summary,
)
from tests.trial_summaries import summary

WITH_DRAFTS = TrialSummary(
    "clean",
    1,
    summary().training,
    {"测试 (1)": EvaluationOutcome({"f1": 0.25}, {}, {}, {"base": DraftUse(12, 8)})},
    1.5,
)


@pytest.mark.parametrize("written", [summary(), summary("base", None), WITH_DRAFTS])
def test_a_summary_is_read_as_it_was_written(tmp_path: Path, written: TrialSummary) -> None:
    path = tmp_path / "trial.json"
    write_summary(path, written)
    assert read_summary(path) == written


def test_the_base_has_no_training_figures(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    write_summary(path, summary("base", None))
    found = read_json(path)
    assert (found["seed"], found["num_steps"], found["adapter_fingerprint"]) == (None, None, None)


@pytest.mark.parametrize("content", [[], {}, {"candidate": "clean"}, {"version": 0}])
def test_a_summary_of_another_version_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "trial.json"
    write_json(path, content)
    with pytest.raises(RunFolderError, match=r"trial\.json contains a trial's summary of version"):
        read_summary(path)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("num_steps", ..., "it lacks 'num_steps'"),
        ("scripts", {}, "it lacks 'test'"),
        ("scores", 3, "not iterable"),
        ("drafts", {"test": {"base": [1]}}, "missing 1 required positional argument"),
    ],
)
def test_a_damaged_summary_is_refused(tmp_path: Path, key: str, value: Any, found: str) -> None:
    path = tmp_path / "trial.json"
    write_summary(path, summary())
    record = read_json(path)
    changed = {k: v for k, v in (record | {key: value}).items() if v is not ...}
    write_json(path, changed)
    with pytest.raises(RunFolderError, match=rf"trial\.json contains a damaged summary.*{found}"):
        read_summary(path)


def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text('{"version": 1, "cand')
    with pytest.raises(RunFolderError, match=r"trial\.json is not valid JSON"):
        read_summary(path)
