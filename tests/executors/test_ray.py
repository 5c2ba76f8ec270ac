"""Trials on several devices give what they give on one: byte for byte, whatever dies on the way.

Real Ray on two workers of one core each. The default suite has one run; --slow kills workers, the
driver and a whole node.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from loracle.executors.leases import workers_folder
from loracle.executors.ray_slots import RaySlots
from loracle.training.replica_process import PROGRAM
from tests.executors.ray_runs import Watching, processes_of_ray, start
from tests.executors.sameness import made
from tests.small_run import World, make_world
from tests.training.test_loop import relative_error

pytest.importorskip("ray", reason="needs the extra `ray`: pip install 'loracle[ray]'")

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("ray") / "world")


@pytest.fixture(scope="module")
def inline(world: World) -> dict[str, Any]:
    return made(start(world, "inline", "devices=1"))


def require_same(root: Path, inline: Mapping[str, Any]) -> None:
    found = made(root)
    assert found.keys() == inline.keys()
    assert [name for name in found if found[name] != inline[name]] == []
    assert not workers_folder(root).exists()


def no_process_is_left(patience_seconds: float = 20.0) -> bool:
    ends = time.monotonic() + patience_seconds
    while processes_of_ray():
        if time.monotonic() > ends:
            return False
        time.sleep(0.2)
    return True


def _addresses(ray: Any) -> list[str]:
    return [node["NodeManagerAddress"] for node in ray.nodes()] if ray.is_initialized() else []


@pytest.mark.long
def test_eight_trials_on_two_workers_are_those_of_one_process(world, inline, monkeypatch):
    import ray

    close, held = RaySlots.close, []

    def closed(slots: RaySlots) -> None:
        close(slots)
        values = [value for slot in slots._slots for value in vars(slot).values()]
        held.extend(value for value in values if type(value).__module__.startswith("ray"))

    monkeypatch.setattr(RaySlots, "close", closed)
    addresses = set()
    view = Watching(lambda *_: addresses.update(_addresses(ray)))
    root = start(world, "two", "devices=2", view=view)
    assert addresses == {"127.0.0.1"}
    require_same(root, inline)
    assert no_process_is_left()
    assert held == [], "the cluster ends in another thread meanwhile"
    assert len(set(view.processes.values())) == 2
    assert view.processes.keys() == {
        "base",
        *(f"{name}--s{seed}" for name in "ab" for seed in range(4)),
    }
    assert [
        fields for kind, fields in view.events if kind == "warning" and "lost" in str(fields)
    ] == []
    events = [json.loads(row) for row in (root / "events.jsonl").read_text().splitlines()]
    placed = {event["trial"] for event in events if event["event"] == "trial_placed"}
    assert placed == view.processes.keys()


@pytest.mark.slow
def test_workers_that_are_killed_cost_nothing_but_time(world):
    # Long enough for the news of a step to arrive before the training ends.
    long = ("seeds=[0,1]", "training.epochs=60")

    def act(view: Watching, kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "step" and fields["step"] == 3:
            view.kill(fields["trial"], "training")
        elif kind == "evaluated" and fields["trial"] != "base" and fields["num_done"] == 2:
            view.kill(fields["trial"], "answering")

    view = Watching(act)
    root = start(world, "killed", "devices=2", *long, view=view)
    assert sorted(view.killed) == ["answering", "training"]
    require_same(root, made(start(world, "unharmed", "devices=1", *long)))
    assert any(kind == "trial_resumed" for kind, _ in view.events)
    lost = [fields["message"] for kind, fields in view.events if "was lost" in str(fields)]
    assert len(lost) == 2
    assert no_process_is_left()


@pytest.mark.slow
def test_a_trial_whose_process_is_lost_each_time_fails_alone(world):
    def act(view: Watching, kind: str, fields: Mapping[str, Any]) -> None:
        # The driver's own event: what a worker tells arrives when the trial may have ended.
        if kind == "trial_placed" and fields["trial"] == "b":
            os.kill(view.processes["b"], signal.SIGKILL)

    root = start(world, "cursed", "devices=2", "seeds=[0]", view=(view := Watching(act)))
    failed = [fields for kind, fields in view.events if kind == "trial_failed"]
    assert [fields["trial"] for fields in failed] == ["b"]
    assert "its process was lost 3 times" in failed[0]["reason"]
    assert (root / "trials" / "a--s0" / "DONE").is_file()
    assert (root / "trials" / "b--s0" / "FAILED.json").is_file()


class Driver:
    """A run in a process of its own."""

    def __init__(self, world: World, name: str, *overrides: str) -> None:
        self.root = world.root / name
        command = [sys.executable, "-m", "tests.executors.ray_runs", str(world.root), name]
        self._process = subprocess.Popen(
            [*command, *overrides],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.shown = ""

    def read_until(self, there: Callable[[str], bool]) -> None:
        """Read its lines until one is as wanted."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.shown += line
            if there(line):
                return
        pytest.fail(f"it ended before:\n{self.shown}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        assert self._process.stderr is not None
        self.shown += self._process.stderr.read()
        return self._process.wait(120)


@pytest.mark.slow
def test_a_driver_that_is_killed_is_followed_by_one_that_resumes(world, inline):
    driver = Driver(world, "driver", "devices=2")
    driver.read_until(lambda line: "step 3/6" in line)
    driver.signal(signal.SIGKILL)
    assert driver.end() == -signal.SIGKILL
    second = Driver(world, "driver", "devices=2")
    assert second.end() == 0, second.shown
    require_same(second.root, inline)
    assert no_process_is_left()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_checkpoints_and_no_process(world, number, code):
    long = ("seeds=[0]", "training.epochs=30", "training.checkpoint_every=1 h")
    driver = Driver(world, f"signal-{code}", "devices=2", *long)
    driver.read_until(lambda line: "step 5/" in line)
    driver.signal(number)
    assert driver.end() == code, driver.shown
    assert no_process_is_left()
    assert list(driver.root.glob("trials/*/checkpoint/step-*")), driver.shown
    resumed = start(world, driver.root.name, "devices=1", *long)
    require_same(resumed, made(start(world, f"calm-{code}", "devices=1", *long)))


@pytest.mark.slow
def test_one_slot_of_two_processes_trains_the_adapters_of_one_process(world, monkeypatch):
    """A cluster of two cores: one actor, which starts a replica for its trainings."""
    from ray.cluster_utils import Cluster

    # In bfloat16, and with large steps, the order of a sum would show.
    exact = ("seeds=[0]", "model.dtype=float32", "training.max_steps=4")
    exact += ("training.learning_rate=0.001",)
    alone = start(world, "alone", "devices=1", *exact)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        shared = ("devices=2", "training.data_parallel=2", f"ray.address={cluster.address}")
        driver = Driver(world, "shared", *exact, *shared)
        driver.read_until(lambda line: "step 2/" in line)
        (actor,) = _actors(cluster.head_node)
        replicas = [child for child in actor.children() if PROGRAM in child.cmdline()]
        assert len(replicas) == 1
        assert driver.end() == 0, driver.shown
        gone, alive = psutil.wait_procs(replicas, timeout=20)
        assert (len(gone), alive) == (1, [])
    finally:
        cluster.shutdown()
    assert relative_error(_weights(driver.root), _weights(alone)) <= 1e-5


def _weights(root: Path) -> torch.Tensor:
    """Of every adapter of a run."""
    paths = sorted(root.glob("trials/*/adapter/adapter_model.safetensors"))
    assert len(paths) == 2
    found = [load_file(path) for path in paths]
    return torch.cat([one[key].flatten() for one in found for key in sorted(one)])


def _actors(node: Any) -> list[psutil.Process]:
    return [
        process
        for process in map(psutil.Process, _children(node))
        if any("ray::TrialActor" in word for word in process.cmdline())
    ]


@pytest.mark.slow
def test_a_node_that_dies_costs_nothing_but_time(world, inline, monkeypatch):
    """Two nodes of one core on this machine: two raylets with processes of their own."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        driver = Driver(world, "nodes", "devices=2", f"ray.address={cluster.address}")
        processes: dict[str, int] = {}

        def runs_on_second(line: str) -> bool:
            """Whether the line tells of a step of a trial on the second node."""
            if found := re.search(r"\[(\S+)\] goes to .* process (\d+)", line):
                processes[found[1]] = int(found[2])
            step = re.search(r"\[\d+/\d+ (\S+)\] step 3/", line)
            return step is not None and processes[step[1]] in _children(second)

        driver.read_until(runs_on_second)
        cluster.remove_node(second, allow_graceful=False)
        assert driver.end() == 0, driver.shown
        assert "was lost" in driver.shown
        require_same(driver.root, inline)
    finally:
        cluster.shutdown()


def _children(node: Any) -> set[int]:
    """The processes below a node's own."""
    return {
        child.pid
        for started in node.all_processes["raylet"]
        for child in psutil.Process(started.process.pid).children(recursive=True)
    }
