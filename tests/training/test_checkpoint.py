"""Checkpoints: resuming gives the same bytes, damage is named, a stop loses nothing."""

from __future__ import annotations

import dataclasses
import errno
import functools
import itertools
import os
import signal
import tempfile
from pathlib import Path
from typing import NamedTuple

import peft
import pytest
import torch

from loracle.files import UNFINISHED_PREFIX
from loracle.model import adapter
from loracle.run_folder import signals
from loracle.training import checkpoint as checkpoint_module
from loracle.training import loop as training
from loracle.training import optimizers
from loracle.training.budget import MemoryEvent
from loracle.training.checkpoint import CheckpointFolder
from loracle.training.loop import Following, StepRecord, TrainingSettings, train
from loracle.training.saving import BY_COST, CheckpointClock, CheckpointInterval
from tests.training.test_loop import SETTINGS, attached, fail_when, rows, tiny_base

EVERY_STEP = dataclasses.replace(SETTINGS, checkpoint_every=CheckpointInterval(steps=1))
NUM_STEPS = 6
IDENTITY = {"plan": "a", "seed": 0}


class Killed(Exception):
    """Stands for the end of a process."""


class Training:
    """One training of the tiny model, in as many processes as it takes."""

    def __init__(self, folder: Path, settings=EVERY_STEP, dropout: float = 0.1) -> None:
        self.base, self.data = tiny_base(), rows()
        self.settings, self.dropout = settings, dropout
        self.problems: list[str] = []
        self.folder = CheckpointFolder(folder, IDENTITY, self.problems.append)
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.memory: list[MemoryEvent] = []

    def run(self, on_step=lambda step: None) -> str:
        """Train from the newest checkpoint on; the adapter's fingerprint."""
        adapted = attached(self.base, self.settings.seed, self.dropout)
        self.steps, self.losses = [], []

        def note(record: StepRecord) -> None:
            self.steps.append(record.step)
            self.losses.append(record.loss)
            on_step(record.step)

        try:
            train(
                self.base,
                adapted,
                self.data,
                self.settings,
                Following(note, self.memory.append, self.folder, self.folder.newest()),
            )
            return adapter.adapter_fingerprint(adapted)
        finally:
            adapter.detach(adapted)

    def killed_after(self, step: int) -> None:
        def kill(at: int) -> None:
            if at == step:
                raise Killed

        with pytest.raises(Killed):
            self.run(kill)


class Whole(NamedTuple):
    """What a training that nothing disturbs gives."""

    fingerprint: str
    losses: list[float]


@functools.cache
def trained_whole(settings: TrainingSettings = EVERY_STEP, dropout: float = 0.1) -> Whole:
    """Train once for all tests of the same settings."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Training(Path(folder) / "whole", settings, dropout)
        return Whole(whole.run(), whole.losses)


@pytest.fixture
def undisturbed() -> Whole:
    return trained_whole()


@pytest.fixture
def killed(tmp_path) -> Training:
    return Training(tmp_path / "killed")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 6])
def test_a_training_killed_after_any_step_resumes_to_the_same_adapter(tmp_path, step, dropout):
    whole = trained_whole(dropout=dropout)
    killed = Training(tmp_path / "killed", dropout=dropout)
    killed.killed_after(step)
    assert killed.run() == whole.fingerprint
    # The checkpoint of the last step was not written yet: that step is done again, and no other.
    assert killed.steps == list(range(step, NUM_STEPS + 1))
    assert killed.losses == whole.losses[step - 1 :]
    assert killed.problems == []


def test_a_training_killed_again_and_again_ends_with_the_same_adapter(undisturbed, killed):
    for step in (2, 4, 5):
        killed.killed_after(step)
    assert killed.run() == undisturbed.fingerprint


def test_one_checkpoint_is_kept_and_nothing_unfinished(killed):
    killed.killed_after(4)
    assert names(killed.folder.root) == ["step-00000003"]
    assert names(killed.folder.root / "step-00000003") == [
        "adapter.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]


def test_what_memory_allowed_is_known_to_the_resumed_training(killed, monkeypatch):
    fail_when(monkeypatch, lambda micro_batch: micro_batch.num_nodes > 120)
    killed.killed_after(3)
    assert [event.budget_tokens for event in killed.memory] == [200, 100]
    killed.run()
    assert len(killed.memory) == 2


def two_checkpoints(killed: Training, monkeypatch) -> None:
    """Leave the checkpoints of steps 2 and 3, as a kill between writing and removing does."""
    with monkeypatch.context() as patch:
        killed.killed_after(3)
        patch.setattr(checkpoint_module.shutil, "rmtree", lambda *_, **__: None)
        killed.killed_after(4)
    assert names(killed.folder.root) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["bit", "cut", "emptied", "removed"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    undisturbed, killed, name, damage, monkeypatch
):
    two_checkpoints(killed, monkeypatch)
    path = killed.folder.root / "step-00000003" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(
        {"bit": content, "cut": content[: len(content) // 2], "emptied": b"", "removed": b""}[
            damage
        ]
    )
    if damage == "removed":
        path.unlink()
    assert killed.run() == undisturbed.fingerprint
    assert killed.steps[0] == 3
    (problem,) = killed.problems
    assert str(path) in problem
    assert "not used" in problem


def test_without_a_whole_checkpoint_training_starts_over(undisturbed, killed):
    killed.killed_after(3)
    (killed.folder.root / "step-00000002" / "state.json").write_text("{}")
    assert killed.run() == undisturbed.fingerprint
    assert killed.steps[0] == 1
    assert len(killed.problems) == 1


def test_a_checkpoint_of_another_training_is_not_used(killed, tmp_path):
    killed.killed_after(3)
    problems: list[str] = []
    other = CheckpointFolder(killed.folder.root, {"plan": "b", "seed": 0}, problems.append)
    assert other.newest() is None
    assert "another training" in problems[0]


def test_other_versions_are_said(killed, monkeypatch):
    killed.killed_after(3)
    monkeypatch.setattr(peft, "__version__", "9.9")
    killed.run()
    assert "peft 9.9" in killed.problems[0]
    assert killed.steps[0] == 3


ADVICE = {
    errno.ENOSPC: "free space on that disk",
    errno.EIO: "the system log (dmesg)",
    errno.EACCES: "change the owner or mode",
}


@pytest.mark.parametrize("number", ADVICE)
@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_that_the_disk_refuses_is_a_warning_and_the_one_before_stays(
    undisturbed, killed, monkeypatch, number, name
):
    write_file = checkpoint_module._write_file

    def refuses_from_step_4(path, data, final):
        if killed.steps[-1] < 4 or path.name != name:
            return write_file(path, data, final)
        with checkpoint_module.writing(final, needed_bytes=len(data)):
            path.write_bytes(b"half of it")
            raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "_write_file", refuses_from_step_4)
        assert killed.run() == undisturbed.fingerprint
    assert names(killed.folder.root) == ["step-00000003"]
    assert len(killed.problems) == 3
    problem = killed.problems[0]
    assert f"{killed.folder.root / 'step-00000004' / name} cannot be written" in problem
    assert os.strerror(number) in problem
    assert "it needs " in problem
    assert ADVICE[number] in problem
    assert "training continues; if it is killed now, it resumes from step-00000003" in problem


def test_a_stop_without_its_checkpoint_says_where_the_run_will_resume(
    undisturbed, killed, monkeypatch, handlers
):
    killed.settings = dataclasses.replace(EVERY_STEP, checkpoint_every=CheckpointInterval(steps=2))
    write_file = checkpoint_module._write_file

    def full(path, data, final):
        with checkpoint_module.writing(final, needed_bytes=len(data)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def stop(at: int) -> None:
        if at == 3:
            monkeypatch.setattr(checkpoint_module, "_write_file", full)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        killed.run(stop)
    assert stopped.value.code == 143
    assert "the run stops without it and will resume from step-00000002" in killed.problems[0]
    monkeypatch.setattr(checkpoint_module, "_write_file", write_file)
    assert killed.run() == undisturbed.fingerprint
    assert killed.steps == [3, 4, 5, 6]


def test_a_second_checkpoint_of_a_step_does_not_endanger_the_first(killed, monkeypatch):
    killed.killed_after(3)
    found = killed.folder.newest()
    assert found is not None
    before = killed.folder.root / "step-00000002" / "state.json"
    written = before.stat().st_mtime_ns
    adapted = attached(killed.base)
    parameters = dict(adapter.trainable(adapted))
    killed.folder.write(found.progress, parameters, torch.optim.AdamW(parameters.values()))
    assert before.stat().st_mtime_ns == written
    assert killed.problems == []


def test_the_one_before_goes_only_after_the_new_one_verifies(killed, monkeypatch):
    killed.killed_after(3)

    def bad_disk(folder):
        raise checkpoint_module.RunFolderError(f"{folder} has changed since it was written")

    folder = killed.folder
    found = folder.newest()
    assert found is not None
    monkeypatch.setattr(checkpoint_module, "_verified_state", bad_disk)
    adapted = attached(killed.base)
    parameters = dict(adapter.trainable(adapted))
    optimizer = torch.optim.AdamW(parameters.values())
    folder.write(dataclasses.replace(found.progress, step=9), parameters, optimizer)
    assert names(folder.root)[0] == "step-00000002"


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def written_at(interval: CheckpointInterval, *, step_seconds: float, cost_seconds: float):
    """After which of 2000 steps checkpoints are written, and their share of the time."""
    now = Clock()
    clock = CheckpointClock(interval, cost_seconds, now)
    written = []
    for step in range(1, 2001):
        now.seconds += step_seconds
        if clock.due(step, ends_epoch=step % 500 == 0):
            now.seconds += cost_seconds
            clock.written(cost_seconds)
            written.append(step)
    return written, clock.share


@pytest.mark.parametrize("step_seconds", [0.01, 1.0, 20.0])
@pytest.mark.parametrize("cost_seconds", [0.01, 0.5, 10.0])
def test_by_cost_checkpoints_take_at_most_two_percent(step_seconds, cost_seconds):
    _, share = written_at(BY_COST, step_seconds=step_seconds, cost_seconds=cost_seconds)
    assert share <= 0.02


@pytest.mark.parametrize("cost_seconds", [0.01, 10.0, 60.0])
def test_by_cost_a_checkpoint_is_written_at_least_every_ten_minutes(cost_seconds):
    written, _ = written_at(BY_COST, step_seconds=1.0, cost_seconds=cost_seconds)
    assert max(b - a for a, b in zip([0, *written], written, strict=False)) <= 600


def test_by_cost_an_epoch_end_is_taken_when_affordable():
    written, _ = written_at(BY_COST, step_seconds=0.018, cost_seconds=0.1)
    assert written[0] == 500
    written, _ = written_at(BY_COST, step_seconds=0.001, cost_seconds=0.1)
    assert written == []


def test_an_interval_in_steps_or_seconds_is_kept():
    written, _ = written_at(CheckpointInterval(steps=300), step_seconds=0.001, cost_seconds=1.0)
    assert written == [300, 600, 900, 1200, 1500, 1800]
    written, _ = written_at(CheckpointInterval(seconds=60.0), step_seconds=0.5, cost_seconds=5.0)
    assert {b - a for a, b in itertools.pairwise(written)} == {120}


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_signal_finishes_the_step_and_leaves_its_checkpoint(
    undisturbed, killed, number, code, step, handlers, capfd
):
    with pytest.raises(SystemExit) as stopped:
        killed.run(lambda at: os.kill(os.getpid(), number) if at == step else None)
    assert stopped.value.code == code
    assert killed.steps[-1] == step
    assert names(killed.folder.root) == [f"step-{step:08}"]
    error = capfd.readouterr().err
    assert "finishing the step under way" in error
    assert "stopped" in error
    assert killed.run() == undisturbed.fingerprint
    assert killed.steps == list(range(step + 1, NUM_STEPS + 1))


def test_sigint_twice_stops_at_once(killed, handlers):
    def twice(at: int) -> None:
        if at == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as stopped:
        killed.run(twice)
    assert stopped.value.code == 130
    assert names(killed.folder.root) == ["step-00000002"]


def test_sigterm_in_a_long_step_drops_it_and_keeps_those_before(killed, handlers, monkeypatch):
    monkeypatch.setattr(signals, "_PATIENCE_SECONDS", 0.0)
    killed.settings = dataclasses.replace(
        EVERY_STEP, checkpoint_every=CheckpointInterval(steps=100), budget_tokens=100
    )
    undisturbed = trained_whole(killed.settings)
    gradient, forest_loss = training.step_gradient, training.forest_loss
    calls = []

    def in_the_fourth_step(base, adapted, batch, step, *rest):
        calls.append(step)
        return gradient(base, adapted, batch, step, *rest)

    def interrupted(base, micro_batch):
        if calls[-1] == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return forest_loss(base, micro_batch)

    with monkeypatch.context() as patch:
        patch.setattr(training, "step_gradient", in_the_fourth_step)
        patch.setattr(training, "forest_loss", interrupted)
        with pytest.raises(SystemExit) as stopped:
            killed.run()
    assert stopped.value.code == 143
    assert killed.steps == [1, 2, 3]
    assert names(killed.folder.root) == ["step-00000003"]
    assert killed.run() == undisturbed.fingerprint
    assert killed.steps == [4, 5, 6]


def test_a_signal_is_not_forgotten_when_the_step_under_way_fails(killed, handlers):
    def fail(at: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("a tracker failed")

    with pytest.raises(SystemExit) as stopped:
        killed.run(fail)
    assert stopped.value.code == 130


def test_outside_of_training_a_signal_ends_the_process_at_once(handlers):
    with pytest.raises(SystemExit) as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 143


def test_nothing_unfinished_is_left_by_a_checkpoint_that_failed(killed, monkeypatch):
    write_file = checkpoint_module._write_file

    def broken(path, data, final):
        if path.name == "state.json":
            raise checkpoint_module.StorageError(os.strerror(errno.EIO))
        write_file(path, data, final)

    monkeypatch.setattr(checkpoint_module, "_write_file", broken)
    killed.run()
    assert len(killed.problems) == NUM_STEPS
    assert not list(killed.folder.root.glob(f"{UNFINISHED_PREFIX}*"))


def test_moments_in_8_bits_resume_to_the_same_adapter(tmp_path, monkeypatch):
    bnb = pytest.importorskip("bitsandbytes")
    # The tiny adapter's weights are below the size that is kept in 8 bits.
    small = functools.partial(bnb.optim.AdamW8bit, min_8bit_size=1)
    monkeypatch.setattr(optimizers, "_eight_bit_adamw", lambda: small)
    settings = dataclasses.replace(EVERY_STEP, optimizer="adamw_8bit")
    expected = Training(tmp_path / "undisturbed", settings).run()
    stopped = Training(tmp_path / "killed", settings)

    def kill(step: int) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        stopped.run(kill)
    resumed = Training(tmp_path / "killed", settings)
    assert resumed.run() == expected
    assert resumed.steps[0] in (3, 4)
    assert not resumed.problems
