"""One training over several processes: the same adapter as in one, and none left behind."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import torch

from loracle.errors import ModelError, OutOfMemoryError, ReplicaError, TrialError
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, load_base
from loracle.model.loaded_form import LoadedForm
from loracle.run_folder import signals
from loracle.training import replica_process
from loracle.training import replicas as replicas_module
from loracle.training.budget import MemoryEvent
from loracle.training.checkpoint import CheckpointFolder
from loracle.training.loop import Following, StepRecord, TrainingSettings, train
from loracle.training.replicas import Replicas
from loracle.training.saving import CheckpointInterval
from tests import tiny
from tests.training.forked_replicas import forked_replicas
from tests.training.test_loop import SETTINGS, attached, relative_error, rows

# Together: each of them starts processes.
pytestmark = pytest.mark.long

# 16 rows in steps of 7: the last step of an epoch has 2, fewer than 3 replicas.
ROOT = Path(__file__).parents[2]
ODD = dataclasses.replace(SETTINGS, batch_size=7, learning_rate=1e-3)


@pytest.fixture(scope="module", autouse=True)
def _forked() -> Iterator[None]:
    with forked_replicas():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = str(tiny.save_model(tmp_path_factory.mktemp("model")))
    return load_base("tiny", folder, tiny.tokenizer(), LoadedForm("float32", device="cpu"))


@pytest.fixture(scope="module")
def pair(base: BaseModel) -> Iterator[Replicas]:
    with closing(Replicas(base, base_fingerprint(base.model), 2)) as replicas:
        yield replicas


@pytest.fixture(scope="module")
def three(base: BaseModel) -> Iterator[Replicas]:
    with closing(Replicas(base, base_fingerprint(base.model), 3)) as replicas:
        yield replicas


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Killed(Exception):
    """Stands for the end of a process."""


def kill_at(step: int) -> Callable[[StepRecord], None]:
    def kill(record: StepRecord) -> None:
        if record.step == step:
            raise Killed

    return kill


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def listening_addresses(process: int) -> set[str]:
    """Where the process' own sockets of the internet protocols listen."""
    own = set()
    for path in Path(f"/proc/{process}/fd").iterdir():
        # One of them was the folder that is being read.
        with suppress(FileNotFoundError):
            own.add(str(path.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in own and fields[3] == "0A":
            address = int(fields[1].partition(":")[0], 16)
            found.add(socket.inet_ntoa(struct.pack("<I", address)))
    return found


class Run:
    """What a training came to."""

    def __init__(
        self,
        base: BaseModel,
        replicas: Replicas | None,
        settings: TrainingSettings = ODD,
        dropout: float = 0.3,
        folder: CheckpointFolder | None = None,
        on_step: Callable[[StepRecord], None] = lambda record: None,
    ) -> None:
        self.steps: list[StepRecord] = []
        self.memory: list[MemoryEvent] = []

        def note(record: StepRecord) -> None:
            self.steps.append(record)
            on_step(record)

        adapted = attached(base, settings.seed, dropout)
        newest = folder.newest() if folder else None
        following = Following(note, self.memory.append, folder, newest)
        try:
            train(base, adapted, rows(), settings, following, replicas)
            self.weights = torch.cat([p.detach().flatten() for _, p in adapter.trainable(adapted)])
        finally:
            adapter.detach(adapted)


@pytest.mark.parametrize("num_replicas", [2, 3])
@pytest.mark.parametrize("forest", [True, False])
def test_any_number_of_replicas_gives_the_same_adapter(base, pair, three, num_replicas, forest):
    settings = dataclasses.replace(ODD, forest=forest)
    alone = Run(base, None, settings)
    shared = Run(base, {2: pair, 3: three}[num_replicas], settings)
    assert relative_error(shared.weights, alone.weights) <= 1e-5
    for one, other in zip(alone.steps, shared.steps, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)
        assert other.tokens_read == one.tokens_read


def test_connections_are_bound_to_the_loopback_address(base, pair):
    Run(base, pair)
    if sys.platform != "linux":
        pytest.skip("needs Linux, to see which sockets a process has")
    for process in (os.getpid(), *pair.process_ids):
        addresses = listening_addresses(process)
        assert addresses == {"127.0.0.1"}


def test_the_same_replicas_give_the_same_bytes_again(base, pair):
    assert torch.equal(Run(base, pair).weights, Run(base, pair).weights)


def test_a_training_is_resumed_with_another_number_of_replicas(base, pair, tmp_path):
    every_step = dataclasses.replace(ODD, checkpoint_every=CheckpointInterval(steps=1))
    alone = Run(base, None, every_step)
    for first, second in ((None, pair), (pair, None)):
        folder = CheckpointFolder(tmp_path / str(first), {"seed": 0}, pytest.fail)
        with pytest.raises(Killed):
            Run(base, first, every_step, folder=folder, on_step=kill_at(3))
        resumed = Run(base, second, every_step, folder=folder)
        assert [record.step for record in resumed.steps] == [3, 4, 5, 6]
        assert relative_error(resumed.weights, alone.weights) <= 1e-5


def test_a_signal_ends_the_replicas_after_a_checkpoint(base, pair, tmp_path, handlers):
    folder = CheckpointFolder(tmp_path, {"seed": 0}, pytest.fail)

    def interrupt(record: StepRecord) -> None:
        if record.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as stopped:
        Run(base, pair, folder=folder, on_step=interrupt)
    assert stopped.value.code == 130
    assert not pair.process_ids
    newest = folder.newest()
    assert newest is not None
    assert newest.progress.step == 2


def test_a_killed_replica_is_named_and_the_next_training_starts_another(base, pair):
    alone, first = Run(base, None), Run(base, pair)
    processes = pair.process_ids

    def kill(record: StepRecord) -> None:
        if record.step == 2:
            os.kill(processes[0], signal.SIGKILL)

    with pytest.raises(ReplicaError, match=r"replica 1 \(cpu\) was ended by SIGKILL"):
        Run(base, pair, on_step=kill)
    assert not any(map(is_running, processes))
    assert not pair.process_ids
    again = Run(base, pair)
    assert torch.equal(again.weights, first.weights)
    assert relative_error(again.weights, alone.weights) <= 1e-5


def test_a_replica_that_hangs_ends_the_training(base, pair, monkeypatch):
    Run(base, pair)
    (process,) = pair.process_ids

    def stop(record: StepRecord) -> None:
        monkeypatch.setattr(replicas_module, "_PATIENCE_SECONDS", 0.5)
        monkeypatch.setattr(replicas_module, "_PATIENCE_TIMES", 0.0)
        os.kill(process, signal.SIGSTOP)

    with pytest.raises(ReplicaError, match="no answer for 0 seconds"):
        Run(base, pair, on_step=stop)
    assert not is_running(process)


def failing(
    base: BaseModel, fault: str, monkeypatch: pytest.MonkeyPatch, *, shard_base: bool = False
) -> Replicas:
    monkeypatch.setattr(replica_process, "PROGRAM", "tests.training.failing_replica")
    monkeypatch.setenv("REPLICA_FAULT", fault)
    return Replicas(base, base_fingerprint(base.model), 2, shard_base=shard_base)


def test_a_replica_short_of_memory_cuts_its_own_rows_and_says_so(base, monkeypatch):
    with closing(failing(base, "short", monkeypatch)) as replicas:
        shared = Run(base, replicas)
    assert [(event.step, event.budget_tokens) for event in shared.memory] == [(1, 100)]
    assert relative_error(shared.weights, Run(base, None).weights) <= 1e-5


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        pytest.param(
            "never",
            OutOfMemoryError,
            r"replica 1 \(cpu\): step 1: out of memory even one sequence",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "broken",
            TrialError,
            r"replica 1 \(cpu\): RuntimeError: shapes do not match",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_a_replica_fails_with_is_the_trials_error(base, monkeypatch, fault, error, words):
    replicas = failing(base, fault, monkeypatch)
    with pytest.raises(error, match=words):
        Run(base, replicas)
    assert not replicas.process_ids


def test_no_replica_survives_the_process_that_trains(tmp_path):
    command = [sys.executable, "-m", "tests.training.abandoned_training", str(tmp_path)]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as training:
        assert training.stdout is not None
        (process,) = map(int, training.stdout.readline().split())
        assert is_running(process)
        training.kill()
    until = time.monotonic() + 30
    while is_running(process) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_running(process)
    assert not list(temporary.glob("loracle-replicas-*"))


def test_replicas_need_a_model_that_can_be_loaded_again_and_a_device_each(base):
    in_memory = dataclasses.replace(base, source=None)
    with pytest.raises(ModelError, match="no other process can load it"):
        Replicas(in_memory, "", 2)
    spread = dataclasses.replace(
        base, source=dataclasses.replace(base.source, form=LoadedForm(device_map="auto"))
    )
    with pytest.raises(ModelError, match=r"model\.device_map spreads one model"):
        Replicas(spread, "", 2)
    apple = dataclasses.replace(base, device=torch.device("mps"))
    with pytest.raises(ModelError, match=r"torch sees 1 device\(s\) of the kind mps"):
        Replicas(apple, "", 2)


@pytest.mark.slow
def test_a_replica_that_loads_other_weights_is_refused(base):
    replicas = Replicas(base, "another fingerprint", 2)
    with pytest.raises(TrialError, match="loaded other weights"):
        Run(base, replicas)
    assert not replicas.process_ids
