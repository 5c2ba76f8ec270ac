"""From events to a tracker's runs, with a tracker that only notes what it gets."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loracle import trackers
from loracle.errors import MissingExtraError, PlanError
from loracle.trackers import check_trackers, listen
from loracle.trackers.client import Config, Experiment
from loracle.trackers.listening import TrackerListener, flat
from loracle.trackers.mlflow import MLflow

PLAN = {
    "model": {"name": "embedded", "revision": None},
    "candidates": [{"name": "a", "path": "/data/a.jsonl"}, {"name": "b", "path": "/data/b.jsonl"}],
    "lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
    "seeds": [0, 1],
}


def trial(name: str, **fields: Any) -> dict[str, Any]:
    return {"trial": name, "index": 1, "num_trials": 2, **fields}


def started(name: str, candidate: str, seed: int) -> tuple[str, dict[str, Any]]:
    fields = {"candidate": candidate, "seed": seed, "num_examples": 12, "num_steps": 2}
    return "trial_started", trial(name, **fields)


def step(name: str, number: int, loss: float) -> tuple[str, dict[str, Any]]:
    values = {"epoch": 0.5, "loss": loss, "gradient_norm": 0.2, "learning_rate": 1e-3}
    values |= {"tokens_read": 100, "tokens_computed": 40, "seconds": 0.5}
    return "step", {"trial": name, "num_steps": 2, "step": number, **values}


def scored(name: str, f1: float) -> tuple[str, dict[str, Any]]:
    return "scored", {"trial": name, "evaluation": "test", "means": {"f1": f1}}


class NotingRun:
    def __init__(self, name: str, config: Config) -> None:
        self.name, self.config = name, config
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.end: tuple[dict[str, float], dict[str, str], bool] | None = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        sys.stdout.write("a client talks\n")
        self.steps.append((step, dict(values)))

    def finish(
        self, scores: Mapping[str, float], texts: Mapping[str, str], *, failed: bool
    ) -> None:
        assert self.end is None, "a run ends once"
        self.end = (dict(scores), dict(texts), failed)


class NotingTracker:
    def __init__(self) -> None:
        self.runs: list[NotingRun] = []

    @staticmethod
    def problem() -> str | None:
        return None

    def start(self, name: str, config: Config) -> NotingRun:
        self.runs.append(NotingRun(name, config))
        return self.runs[-1]


def heard(*events: tuple[str, dict[str, Any]]) -> list[NotingRun]:
    tracker = NotingTracker()
    # The protocol's constructor is for the real clients.
    listener = TrackerListener("noting", tracker, PLAN)  # type: ignore[arg-type]
    for kind, fields in events:
        listener.hear(kind, fields)
    listener.close()
    return tracker.runs


def test_the_base_each_trial_and_the_decision_are_a_run_each() -> None:
    runs = heard(
        ("base_started", {}),
        scored("base", 0.1),
        ("base_finished", {"seconds": 1.0}),
        started("a--s1", "a", 1),
        step("a--s1", 1, 3.0),
        step("a--s1", 2, 2.0),
        scored("a--s1", 0.6),
        ("trial_finished", trial("a--s1", seconds=2.0)),
        ("decided", {"evaluation": None, "sentence": "Use a."}),
        ("decided", {"evaluation": "test", "sentence": "Use a on test."}),
        ("run_finished", {"run": "r", "num_failed": 0, "seconds": 3.0}),
    )
    base, trained, decision = runs
    assert (base.name, base.end) == ("base", ({"eval/test/f1": 0.1}, {}, False))
    assert (trained.name, trained.end) == ("a--s1", ({"eval/test/f1": 0.6}, {}, False))
    assert [(number, values["train/loss"]) for number, values in trained.steps] == [(1, 3), (2, 2)]
    assert trained.steps[0][1]["train/tokens_per_second"] == 200
    assert decision.end == ({}, {"decision": "Use a.", "decision/test": "Use a on test."}, False)


def test_the_config_is_the_flat_plan_with_the_trial_s_own_candidate() -> None:
    base, trained = heard(("base_started", {}), started("b", "b", 0))
    assert trained.config == {
        "model.name": "embedded",
        "model.revision": "null",
        "lora.r": 8,
        "lora.target_modules": '["q_proj", "v_proj"]',
        "seeds": "[0, 1]",
        "seed": 0,
        "num_examples": 12,
        "num_steps": 2,
        "candidate.name": "b",
        "candidate.path": "/data/b.jsonl",
    }
    assert not any(key.startswith("candidate") for key in base.config)
    assert flat({"a": {}}) == {"a": "{}"}


def test_trials_may_overlap() -> None:
    first, second = heard(
        started("a", "a", 0),
        started("b", "b", 0),
        step("a", 1, 3.0),
        step("b", 1, 4.0),
        scored("b", 0.5),
        ("trial_finished", trial("b", seconds=1.0)),
        scored("a", 0.4),
        ("trial_finished", trial("a", seconds=1.0)),
    )
    assert first.steps[0][1]["train/loss"] == 3.0
    assert (first.end, second.end) == (
        ({"eval/test/f1": 0.4}, {}, False),
        ({"eval/test/f1": 0.5}, {}, False),
    )


def test_failed_and_stopped_trials_end_as_failed_and_refused_ones_never_begin() -> None:
    failed, stopped = heard(
        ("trial_failed", trial("refused", reason="no rows")),
        started("a", "a", 0),
        ("trial_failed", trial("a", reason="the loss is NaN")),
        started("b", "b", 0),
    )
    assert failed.end == ({}, {"reason": "the loss is NaN"}, True)
    assert stopped.end == ({}, {"status": "stopped"}, True)


def test_what_a_client_prints_is_kept_off_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    heard(started("a", "a", 0), step("a", 1, 3.0))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "a client talks\n")


def test_all_trackers_that_are_not_installed_are_named_with_one_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as found:
        check_trackers(["wandb", "tensorboard"])
    assert "wandb, tensorboard are not installed" in str(found.value)
    assert "pip install 'loracle[wandb,tensorboard]'" in str(found.value)
    check_trackers([])


def test_a_tracker_that_is_installed_and_cannot_be_used_is_a_problem_of_the_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    monkeypatch.setattr(MLflow, "problem", staticmethod(lambda: "it has no address"))
    with pytest.raises(PlanError, match="trackers: mlflow: it has no address"):
        check_trackers(["mlflow"])


def test_a_listener_opens_nothing_before_the_first_event(tmp_path: Path) -> None:
    experiment = Experiment("run", tmp_path, "0" * 64)
    names = ["tensorboard", "wandb", "mlflow", "swanlab", "trackio"]
    listeners = listen(names, experiment, PLAN)
    for listener in listeners:
        listener.hear("run_started", {"run": "r", "num_trials": 1, "candidates": ["a"]})
        listener.close()
    assert [listener.name for listener in listeners] == [f"tracker {name}" for name in names]
    assert list(tmp_path.iterdir()) == []
