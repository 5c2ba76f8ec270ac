"""What a trial takes from an earlier attempt, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from loracle.errors import OutOfMemoryError
from loracle.experiment import answering, learning
from loracle.experiment.run import run
from loracle.generation import prefill
from loracle.plan import load_plan
from loracle.run_folder.views import QuietView
from loracle.training import loop as training
from tests.experiment.test_given_base import given_base
from tests.original.conftest import question_rows, write_rows

SETTINGS = {
    "training.max_steps": 6,
    "training.batch_size": 4,
    "training.checkpoint_every": 2,
    "training.learning_rate": 0.01,
    "generation.max_new_tokens": 4,
    "generation.batch_size": 3,
    "lora.dropout": 0.2,
}


class Killed(BaseException):
    """Stands for the end of a process: nothing catches it."""


class Run:
    """A run of one candidate, in the processes that it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = question_rows()
        self.test = write_rows(
            folder / "test.jsonl", [{**row, "id": f"t{row['id']}"} for row in rows]
        )
        self.candidate = write_rows(folder / "a.jsonl", rows)
        self.root = folder / "run"
        self.trial = self.root / "trials" / "a--s0"

    def go(self, **changes: object) -> dict[str, Any]:
        settings = {key.replace("__", "."): value for key, value in changes.items()}
        plan = load_plan(
            None,
            candidates=[str(self.candidate)],
            evaluations=[str(self.test)],
            model="mine",
            overrides=[f"{key}={value}" for key, value in {**SETTINGS, **settings}.items()],
        )
        return run(plan, self.root, QuietView(), given_base())

    def killed(self, monkeypatch, module: Any, name: str, call: int) -> None:
        """End in the `call`th call of a function."""
        function, calls = getattr(module, name), []

        def ending(*arguments, **options):
            calls.append(None)
            if len(calls) == call:
                raise Killed
            return function(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, ending)
            with pytest.raises(Killed):
                self.go()

    def made(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.trial).as_posix(): path.read_bytes()
            for name in ("adapter", "predictions", "scores")
            for path in (self.trial / name).rglob("*")
            if path.is_file()
        }

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.root / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def warnings(self) -> str:
        return "\n".join(event["message"] for event in self.events("warning"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    whole = Run(tmp_path_factory.mktemp("undisturbed"))
    whole.go()
    assert whole.made()
    return whole.made()


@pytest.fixture
def stopped(tmp_path) -> Run:
    return Run(tmp_path)


def test_training_resumes_at_the_checkpoint_and_says_so(stopped, undisturbed, monkeypatch):
    stopped.killed(monkeypatch, training, "step_gradient", 6)
    stopped.go()
    (resumed,) = stopped.events("trial_resumed")
    assert (resumed["trial"], resumed["step"], resumed["num_steps"]) == ("a", 4, 6)
    assert [event["step"] for event in stopped.events("step")] == [1, 2, 3, 4, 5, 5, 6]
    assert stopped.made() == undisturbed
    summary = json.loads((stopped.trial / "trial.json").read_text())
    assert summary["num_steps"] == 6
    assert summary["tokens_read"] > 0


def test_a_trained_adapter_is_not_trained_again(stopped, undisturbed, monkeypatch):
    # The base has 4 batches of questions; the next is the trial's second.
    stopped.killed(monkeypatch, prefill, "_accept", 6)
    assert len((stopped.trial / "predictions" / "test.jsonl").read_text().splitlines()) == 3
    stopped.killed(monkeypatch, answering, "_score", 1)
    stopped.go()
    assert len(stopped.events("step")) == 6
    assert stopped.made() == undisturbed


def test_answers_on_file_are_not_given_again(stopped, undisturbed, monkeypatch):
    stopped.killed(monkeypatch, answering, "_score", 2)
    with monkeypatch.context() as patch:
        patch.setattr(prefill, "_accept", lambda *_: pytest.fail("answered again"))
        stopped.go()
    assert stopped.made() == undisturbed


def test_a_damaged_checkpoint_is_named_and_training_starts_over(stopped, undisturbed, monkeypatch):
    stopped.killed(monkeypatch, training, "step_gradient", 6)
    (path,) = (stopped.trial / "checkpoint").glob("*/optimizer.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    stopped.go()
    assert f"{path} has changed since it was written; it is not used" in stopped.warnings()
    assert stopped.made() == undisturbed


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"\x00" * 40])
def test_steps_that_are_lost_are_taken_again(stopped, undisturbed, monkeypatch, damage):
    stopped.killed(monkeypatch, training, "step_gradient", 6)
    (stopped.trial / "steps.jsonl").write_bytes(damage)
    stopped.go()
    assert "training starts over" in stopped.warnings()
    assert stopped.made() == undisturbed


@pytest.mark.parametrize("damage", [b'{"id": 3}\n', b"\x00\n", b'{"id": "t0", "tok'])
def test_predictions_that_are_damaged_are_made_again(stopped, undisturbed, monkeypatch, damage):
    stopped.killed(monkeypatch, answering, "_score", 2)
    (stopped.trial / "predictions" / "test.jsonl").write_bytes(damage)
    stopped.go()
    assert stopped.made() == undisturbed


def test_an_adapter_that_changed_is_trained_again(stopped, undisturbed, monkeypatch):
    stopped.killed(monkeypatch, answering, "_score", 2)
    path = stopped.trial / "adapter" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    stopped.go()
    assert stopped.made() == undisturbed


def test_another_chat_template_makes_an_unfinished_trial_start_over(stopped, monkeypatch):
    stopped.killed(monkeypatch, answering, "_score", 2)
    attempt = stopped.trial / "attempt.json"
    record = json.loads(attempt.read_text())
    record["conditions"]["chat template"] = "another"
    attempt.write_text(json.dumps(record))
    stopped.go()
    assert "started with another chat template; starting over" in stopped.warnings()
    assert len(stopped.events("step")) == 12


def test_an_adapter_of_another_template_does_not_answer(stopped, monkeypatch):
    save = learning.adapter.save

    def of_another_template(adapted, folder, known):
        save(adapted, folder, {**known, "chat_template_sha256": "another"})

    monkeypatch.setattr(learning.adapter, "save", of_another_template)
    results = stopped.go()
    (row,) = [row for row in results["rows"] if row["candidate"] == "a"]
    assert "was trained with a different chat_template_sha256" in row["reason"]


def test_a_trial_that_learns_nothing_fails_with_its_reason(stopped):
    results = stopped.go(training__learning_rate=1e-30)
    (row,) = [row for row in results["rows"] if row["candidate"] == "a"]
    assert row["status"] == "failed"
    assert "learn" in row["reason"]


def test_a_trial_that_failed_resumes_where_it_failed(stopped, undisturbed, monkeypatch):
    gradient = training.step_gradient

    def short(base, adapted, batch, step, *rest):
        if step == 4:
            raise OutOfMemoryError("another program took the memory")
        return gradient(base, adapted, batch, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "step_gradient", short)
        assert stopped.go()["num_failed"] == 1
    stopped.go()
    assert [event["step"] for event in stopped.events("step")] == [1, 2, 3, 4, 5, 6]
    assert stopped.made() == undisturbed


def test_memory_that_runs_out_while_answering_is_a_warning(stopped, undisturbed, monkeypatch):
    accept, calls = prefill._accept, []

    def short(*arguments):
        calls.append(None)
        if len(calls) in (2, 6):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return accept(*arguments)

    monkeypatch.setattr(prefill, "_accept", short)
    stopped.go()
    assert "out of memory while answering test; answering 1 question" in stopped.warnings()
    assert stopped.made() == undisturbed


def test_by_default_other_trials_propose_no_drafts(stopped):
    stopped.go()
    drafts = json.loads((stopped.trial / "trial.json").read_text())["drafts"]
    assert set(drafts["test"]) <= {"references"}


def test_all_drafts_may_be_asked_for(stopped):
    stopped.go(generation__drafts="all")
    drafts = json.loads((stopped.trial / "trial.json").read_text())["drafts"]
    assert set(drafts["test"]) == {"base", "references"}
