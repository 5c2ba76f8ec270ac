"""A run whose trainings have replicas: the same record, also where one is killed."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from loracle.data.rendering.renderer import RenderedPrompt
from loracle.errors import PlanError
from loracle.experiment import attempt, foreseeing, planning, setup
from loracle.files import read_json_lines
from loracle.forecast.machines import Machine
from loracle.forecast.seconds import REPLICA_EFFICIENCY
from loracle.forecast.wording import forecast_lines
from loracle.forecast.work import Rows
from loracle.forest.trie import Sequences
from loracle.model.loaded_form import BaseSource, LoadedForm
from loracle.plan import Plan, fingerprint, freeze, load_plan
from loracle.plan.sections import TrainingPlan
from loracle.training import replica_process, replicas
from loracle.training.replicas import Replicas
from tests.forecast.test_forecast import SEVEN_B
from tests.small_run import World, make_world
from tests.training.forked_replicas import forked_replicas
from tests.training.test_loop import relative_error, tiny_base

SETTINGS = ("model.dtype=float32", "training.max_steps=4", "training.checkpoint_every=1")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "world")


def adapter_of(world: World, name: str) -> torch.Tensor:
    path = world.run / "trials" / f"{name}--s0" / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    return torch.cat([weights[key].flatten() for key in sorted(weights)])


def messages(world: World) -> list[str]:
    rows = read_json_lines(world.run / "events.jsonl").rows
    return [row["message"] for row in rows if row["event"] == "warning"]


@pytest.mark.long
@pytest.mark.parametrize(
    "shard_base", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["whole", "shards"]
)
def test_a_run_with_replicas_trains_the_same_adapters_also_when_one_is_killed(
    world, tmp_path, monkeypatch, shard_base
):
    monkeypatch.setattr(attempt, "_PAUSES_SECONDS", (0.0, 0.0))
    alone = World(world.root, tmp_path / "alone")
    assert alone.start(*SETTINGS)["num_failed"] == 0
    started: list[replica_process.ReplicaProcess] = []
    start, tell = replica_process.ReplicaProcess.__init__, replica_process.ReplicaProcess.tell

    def noted(self, *arguments):
        start(self, *arguments)
        started.append(self)

    def killed_in_the_third_step(self, **values):
        if values.get("step") == 2 and len(started) == 1:
            os.kill(self.process_id, signal.SIGKILL)
        tell(self, **values)

    monkeypatch.setattr(replica_process.ReplicaProcess, "__init__", noted)
    monkeypatch.setattr(replica_process.ReplicaProcess, "tell", killed_in_the_third_step)
    # Held, so that it is the run that ends them, not the garbage collector.
    held: list[Replicas] = []

    def kept(*arguments, **options):
        held.append(Replicas(*arguments, **options))
        return held[-1]

    monkeypatch.setattr(setup, "Replicas", kept)
    shards = f"training.shard_base={str(shard_base).lower()}"
    with forked_replicas():
        results = world.start(*SETTINGS, "training.data_parallel=2", shards)
    assert results["num_failed"] == 0
    # The second was started for the same trial, and served the other trial, too.
    assert len(started) == 2
    assert len(held) == 1
    assert not any(process.is_alive() for process in started)
    (warning,) = [text for text in messages(world) if "replica" in text]
    assert "replica 1 (cpu) was ended by SIGKILL" in warning
    assert "trying again" in warning
    for name in ("a", "b"):
        assert relative_error(adapter_of(world, name), adapter_of(alone, name)) <= 1e-5


def test_the_number_of_replicas_is_no_part_of_what_decides_a_result(world):
    plans = [load_plan(
        candidates=[world.root / "a.jsonl"], evaluations=[world.root / "test.jsonl"],
        model=str(world.model), overrides=[f"training.data_parallel={number}"],
    ) for number in (1, 4, "auto")]  # fmt: skip
    assert len({fingerprint(freeze(plan)) for plan in plans}) == 1


@pytest.mark.parametrize("value", ["0", "-1", "2.0", "yes"])
def test_the_number_of_replicas_is_a_whole_number_or_auto(world, value):
    with pytest.raises(PlanError, match=r"training\.data_parallel"):
        load_plan(
            candidates=[world.root / "a.jsonl"],
            evaluations=[world.root / "test.jsonl"],
            overrides=[f"training.data_parallel={value}"],
        )


def test_devices_of_a_trial_that_would_not_all_work_are_refused(world):
    def plan(*overrides: str) -> Plan:
        return load_plan(
            candidates=[world.root / "a.jsonl"],
            evaluations=[world.root / "test.jsonl"],
            overrides=["ray.devices_per_trial=2", *overrides],
        )

    for refused in ([], ["training.data_parallel=4"]):
        with pytest.raises(PlanError, match=r"ray\.devices_per_trial: found 2 without model\.devi"):
            plan(*refused)
    for taken in (
        "training.data_parallel=2",
        "training.data_parallel=auto",
        "model.device_map=auto",
    ):
        assert plan(taken).ray.devices_per_trial == 2


def test_a_plan_settles_auto_for_the_machine_that_it_is_made_for(world):
    plan = load_plan(
        candidates=[world.root / "a.jsonl"],
        evaluations=[world.root / "test.jsonl"],
        overrides=["training.data_parallel=auto"],
    )
    for device_type, num_devices, expected in (("cuda", 4, 4), ("cuda", 1, 1), ("cpu", 1, 1)):
        machine = Machine("one", device_type, num_devices, 1, 1e14, 1e12, is_here=False)
        assert planning._settled(plan, machine, 1).training.data_parallel == expected
        assert planning._settled(plan, machine, 4).training.data_parallel == 1


def test_replicas_use_the_cores_of_their_slot_and_no_others(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [replicas._threads_of_each(number, 8) for number in (2, 3, 16)] == [4, 2, 1]
    assert replicas._threads_of_each(2, 32) == 8


def test_more_replicas_than_processors_are_a_warning(monkeypatch):
    said: list[str] = []

    class Reporter:
        def emit(self, event: str, message: str) -> None:
            said.append(message)

    monkeypatch.setattr(setup, "num_cpus", lambda: 2)
    base = dataclasses.replace(tiny_base(), source=BaseSource("", "", LoadedForm()))
    for number in (1, 2, 3):
        setup._replicas(TrainingPlan(data_parallel=number), base, "", Reporter())
    alone_after_all = TrainingPlan(data_parallel="auto", shard_base=True)
    assert setup._replicas(alone_after_all, base, "", Reporter()) is None
    assert said == [
        "training.data_parallel: 3 processes share 2 processor cores, which is slower than 2",
        "training.shard_base: true has no effect: every training has one device",
    ]


def test_replicas_on_a_processor_share_its_memory(world):
    shape = dataclasses.replace(SEVEN_B, device_type="cpu")
    memory = shape.weight_bytes + 30 * 10**9
    rows = [Rows("a", Sequences.of([[1, 2, 3]]), np.zeros(1, np.int64))]
    budgets = []
    for number, device_type in ((1, "cpu"), (2, "cpu"), (2, "cuda")):
        plan = load_plan(
            candidates=[world.root / "a.jsonl"],
            evaluations=[world.root / "test.jsonl"],
            overrides=[f"training.data_parallel={number}"],
        )
        machine = Machine("here", device_type, 1, memory, 1e11, 1e10, is_here=True)
        budgets.append(foreseeing._choice(plan, shape, machine, rows).budget_tokens)
    assert budgets[0] > budgets[1]
    assert budgets[2] > budgets[1]


def test_a_forecast_shares_a_training_and_not_its_answers(world):
    rows = [Rows("a", Sequences.of([[1, 2, 3]], [[0.0, 1.0, 1.0]]), np.zeros(1, np.int64))]
    prompts = [RenderedPrompt([1, 2, 3], [])]
    sets = [setup.EvaluationSet("test", ("em",), (), prompts)]
    found = []
    for number in (1, 2):
        plan = load_plan(
            candidates=[world.root / "a.jsonl"],
            evaluations=[world.root / "test.jsonl"],
            overrides=[f"training.data_parallel={number}", "seeds=[0, 1, 2, 3]"],
        )
        machine = Machine("four cards", "cuda", 4, 80 * 10**9, 1e14, 1e12, is_here=False)
        found.append(foreseeing.foreseen(plan, rows, sets, SEVEN_B, machine))
    (one,), (two,) = found[0].candidates, found[1].candidates
    assert two.training_seconds == pytest.approx(one.training_seconds / (2 * REPLICA_EFFICIENCY))
    assert two.answering_seconds == one.answering_seconds
    # Four trainings at a time, or two.
    for forecast, num_at_once in zip(found, (4, 2), strict=True):
        (only,) = forecast.candidates
        of_trials = 4 * (only.training_seconds + only.answering_seconds) / num_at_once
        assert forecast.seconds == pytest.approx(of_trials + forecast.base_answering_seconds)
    assert "on 4 devices, 2 processes for each training" in next(iter(forecast_lines(found[1])))
