from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loracle.errors import RunFolderError
from loracle.files import (
    JsonLinesWriter,
    read_json,
    read_json_lines,
    write_atomically,
    write_json,
)
from loracle.run_folder.folder import RunFolder, TrialFolder
from loracle.run_folder.reporter import Reporter
from loracle.run_folder.trial_record import read_summary
from loracle.run_folder.views import QuietView
from tests.trial_summaries import summary

FINGERPRINT = "9f2c"


def frozen(epochs: float = 2.0, path: str = "/data/a.jsonl") -> dict[str, Any]:
    return {
        "candidates": [{"path": path, "name": "a", "sha256": "00", "size_bytes": 3}],
        "evaluation": [],
        "training": {"epochs": epochs},
    }


def finished_trial(folder: Path) -> TrialFolder:
    trial = RunFolder(folder).trial("clean", 0)
    with JsonLinesWriter(trial.steps) as steps:
        steps.write({"step": 1, "loss": 0.5})
    with JsonLinesWriter(trial.predictions("test")) as predictions:
        predictions.write({"id": "q1", "prediction": "丹佛野马"})
    write_atomically(trial.adapter / "adapter_model.safetensors", b"weights")
    trial.finish(summary(num_steps=1), plan_fingerprint=FINGERPRINT)
    return trial


# Trials


def test_every_path_of_the_run_folder_is_as_the_layout_says(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    trial = run.trial("clean", 3)
    paths = [
        run.plan,
        run.environment,
        run.pipeline_log,
        run.training_log,
        run.evaluation_log,
        run.events,
        run.results,
        run.base.predictions("test"),
        run.base.scores("test"),
        trial.trial_json,
        trial.steps,
        trial.checkpoint,
        trial.adapter,
        trial.predictions("中文"),
        trial.scores("test"),
        trial.failed,
        trial.done,
    ]
    assert [path.relative_to(run.root).as_posix() for path in paths] == [
        "plan.json",
        "environment.json",
        "pipeline.log",
        "training.log",
        "evaluation.log",
        "events.jsonl",
        "results.json",
        "base/predictions/test.jsonl",
        "base/scores/test.jsonl",
        "trials/clean--s3/trial.json",
        "trials/clean--s3/steps.jsonl",
        "trials/clean--s3/checkpoint",
        "trials/clean--s3/adapter",
        "trials/clean--s3/predictions/中文.jsonl",
        "trials/clean--s3/scores/test.jsonl",
        "trials/clean--s3/FAILED.json",
        "trials/clean--s3/DONE",
    ]


def test_done_lists_every_file_and_keeps_the_summary(tmp_path: Path) -> None:
    trial = finished_trial(tmp_path)
    assert trial.verify(FINGERPRINT) is None
    assert trial.summary() == summary(num_steps=1)
    assert list(read_json(trial.done)["files"]) == [
        "adapter/adapter_model.safetensors",
        "predictions/test.jsonl",
        "steps.jsonl",
        "trial.json",
    ]
    assert read_summary(trial.trial_json) == summary(num_steps=1)


def test_finishing_twice_does_not_list_the_first_done(tmp_path: Path) -> None:
    trial = finished_trial(tmp_path)
    trial.finish(summary(num_steps=2), plan_fingerprint=FINGERPRINT)
    assert trial.verify(FINGERPRINT) is None
    assert trial.summary() == summary(num_steps=2)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    trial = finished_trial(tmp_path)
    (trial.adapter / "adapter_model.safetensors").write_bytes(b"weightz")
    reason = trial.verify(FINGERPRINT)
    assert reason == "adapter/adapter_model.safetensors has changed since it was written"


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    trial = finished_trial(tmp_path)
    trial.steps.unlink()
    assert trial.verify(FINGERPRINT) == "steps.jsonl is missing"


def test_a_trial_of_another_plan_does_not_count(tmp_path: Path) -> None:
    assert finished_trial(tmp_path).verify("other") == "it was made under another plan"


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 2, "files": {}}'])
def test_a_damaged_done_does_not_count(tmp_path: Path, content: str) -> None:
    trial = finished_trial(tmp_path)
    trial.done.write_text(content)
    reason = trial.verify(FINGERPRINT)
    assert reason is not None
    assert "DONE" in reason


def test_an_attempt_without_done_has_to_run_again(tmp_path: Path) -> None:
    trial = RunFolder(tmp_path).trial("a", 0)
    assert trial.verify(FINGERPRINT) == "it has not run yet"
    write_json(trial.trial_json, {})
    assert trial.verify(FINGERPRINT) == "it was not finished"
    trial.fail("step 3: loss nan")
    assert trial.verify(FINGERPRINT) == "it failed before"
    assert read_json(trial.failed)["reason"] == "step 3: loss nan"


def test_clearing_names_what_it_removed_and_follows_no_link(tmp_path: Path) -> None:
    trial = finished_trial(tmp_path / "run")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "weights").write_text("keep")
    (trial.root / "link").symlink_to(precious)
    assert trial.clear() == [
        "adapter/adapter_model.safetensors",
        "link",
        "predictions/test.jsonl",
        "steps.jsonl",
        "trial.json",
    ]
    assert trial.verify(FINGERPRINT) == "it has not run yet"
    assert (precious / "weights").read_text() == "keep"
    assert trial.clear() == []


# Opening


def test_a_new_run_freezes_its_plan_and_records_its_environment(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "runs" / "one", frozen(), FINGERPRINT) as run:
        assert read_json(run.plan) == {
            "version": 1,
            "fingerprint": FINGERPRINT,
            "plan": frozen(),
        }
        assert run.frozen_plan() == frozen()
        assert len(read_json(run.environment)) == 1


def test_the_same_plan_continues_and_every_process_is_on_record(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, frozen(), FINGERPRINT) as run:
        finished_trial(run.root)
    with RunFolder.open(tmp_path, frozen(), FINGERPRINT) as run:
        assert run.trial("clean", 0).verify(FINGERPRINT) is None
        assert len(read_json(run.environment)) == 2


def test_a_moved_data_file_continues_from_its_new_place(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, frozen(), FINGERPRINT).close()
    with RunFolder.open(tmp_path, frozen(path="/new/a.jsonl"), FINGERPRINT) as run:
        assert run.frozen_plan()["candidates"][0]["path"] == "/new/a.jsonl"


def test_another_plan_is_refused_with_the_difference(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, frozen(epochs=2.0), FINGERPRINT).close()
    finished_trial(tmp_path)
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(RunFolderError, match="another plan") as caught:
        RunFolder.open(tmp_path, frozen(epochs=3.0), "other")
    assert "\n  training.epochs: 2 → 3" in str(caught.value)
    assert (tmp_path / "plan.json").read_bytes() == before
    RunFolder.open(tmp_path, frozen(epochs=2.0), FINGERPRINT).close()


def test_another_plan_replaces_a_run_without_a_finished_trial_and_says_so(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, frozen(epochs=2.0), FINGERPRINT).close()
    for name in ("trials/a--s0/steps.jsonl", "base/DONE", "events.jsonl", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x\n")
    with RunFolder.open(tmp_path, frozen(epochs=3.0), "other") as run:
        with Reporter(run, QuietView(io.StringIO())):
            pass
        assert run.plan_fingerprint() == "other"
    [row] = read_json_lines(run.events).rows
    assert "training.epochs: 2 → 3" in row["message"]
    assert not (tmp_path / "trials").exists()
    assert not (tmp_path / "base").exists()
    assert (tmp_path / "notes.txt").exists()


def test_a_run_with_a_checkpoint_is_not_replaced(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, frozen(epochs=2.0), FINGERPRINT).close()
    checkpoint = tmp_path / "trials/a--s0/checkpoint/state.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("hours of work")
    with pytest.raises(RunFolderError, match="another plan"):
        RunFolder.open(tmp_path, frozen(epochs=3.0), "other")
    assert checkpoint.exists()


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "z.txt").write_text("")
    with pytest.raises(RunFolderError, match=r"it has thesis\.tex and 1 more.*--out"):
        RunFolder.open(tmp_path, frozen(), FINGERPRINT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex", "z.txt"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.open(tmp_path / "run", frozen(), FINGERPRINT)
    with pytest.raises(RunFolderError, match="cannot be used"):
        RunFolder.open(tmp_path / "run" / "below", frozen(), FINGERPRINT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ('{"version": 2}', "not of version 1"),
        ('{"version": 1, "plan": {}}', "the plan or its fingerprint is missing"),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(RunFolderError, match=message):
        RunFolder.open(tmp_path, frozen(), FINGERPRINT)


def test_a_folder_without_a_plan_has_no_frozen_plan(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"not a run folder: it has no plan\.json"):
        RunFolder(tmp_path).frozen_plan()


def test_a_start_that_was_killed_early_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 1 on a\n")
    (tmp_path / ".loracle-unfinished-0123").write_text('{"ver')
    with RunFolder.open(tmp_path, frozen(), FINGERPRINT):
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".holder.json",
            ".lock",
            "MANIFEST.json",
            "environment.json",
            "plan.json",
        ]


HOLDER = """
import sys
from loracle.run_folder.folder import RunFolder
run = RunFolder.open(sys.argv[1], {"candidates": [], "evaluation": []}, "f")
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_which_one_holds_the_folder(tmp_path: Path) -> None:
    plan: dict[str, Any] = {"candidates": [], "evaluation": []}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(RunFolderError, match=rf"in use by process {holder.pid} on .* since 20"):
            RunFolder.open(tmp_path, plan, "f")
        holder.kill()
        holder.wait()
        RunFolder.open(tmp_path, plan, "f").close()


def test_a_refused_start_does_not_keep_the_folder_locked(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, frozen(), FINGERPRINT).close()
    finished_trial(tmp_path)
    refused = []
    for _ in range(2):
        with pytest.raises(RunFolderError) as caught:
            RunFolder.open(tmp_path, frozen(epochs=3.0), "other")
        # The traceback would keep an unclosed file alive, and with it the lock.
        refused.append(caught)
    assert all("another plan" in str(error.value) for error in refused)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_folder_that_was_removed_or_moved_is_noticed(tmp_path, replaced):
    with RunFolder.open(tmp_path / "run", {"a": 1}, "f") as run:
        run.write_json(run.results, {})
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        other = RunFolder.open(tmp_path / "run", {"a": 1}, "f") if replaced else None
        with pytest.raises(RunFolderError, match=r"run was removed, moved or replaced while"):
            run.write_json(run.results, {})
    if other is not None:
        assert other.holder() is not None
        other.close()
