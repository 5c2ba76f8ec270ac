"""A base whose layers are cut into shards: the same adapter, half the memory, and nothing left."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from loracle.errors import ModelError, OutOfMemoryError, ReplicaError
from loracle.model.base import BaseModel, base_fingerprint, load_base
from loracle.model.loaded_form import LoadedForm
from loracle.run_folder import signals
from loracle.training import loop
from loracle.training.checkpoint import CheckpointFolder
from loracle.training.loop import StepRecord
from loracle.training.micro_batches import cut, in_step
from loracle.training.replicas import Replicas
from loracle.training.saving import CheckpointInterval
from loracle.training.sharding import ShardedLayers, ShardGroup, is_connection_error, sharded
from tests import tiny
from tests.training.forked_replicas import forked_replicas
from tests.training.test_loop import relative_error, rows
from tests.training.test_replicas import (
    ODD,
    Killed,
    Run,
    failing,
    is_running,
    kill_at,
    listening_addresses,
)

# Together: each of them starts processes.
pytestmark = pytest.mark.long

CPU = torch.device("cpu")
SMALL = dataclasses.replace(ODD, budget_tokens=120)
"""Several passes a step, and not the same number in both processes."""


@pytest.fixture(scope="module", autouse=True)
def _forked() -> Iterator[None]:
    with forked_replicas():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = str(tiny.save_model(tmp_path_factory.mktemp("model")))
    return load_base("tiny", folder, tiny.tokenizer(), LoadedForm("float32", device="cpu"))


def sharing(base: BaseModel) -> Replicas:
    return Replicas(base, base_fingerprint(base.model), 2, shard_base=True)


@pytest.fixture(scope="module")
def pair(base: BaseModel) -> Iterator[Replicas]:
    with closing(sharing(base)) as replicas:
        yield replicas


@pytest.fixture(scope="module")
def alone(base: BaseModel) -> Run:
    return Run(base, None, SMALL)


@pytest.fixture
def group(pair: Replicas) -> Iterator[ShardGroup]:
    """A group of one process: its shards are whole."""
    pair.close()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(ShardGroup(Path(folder) / "meeting", 0, 1, "gloo", CPU, 60.0)) as group,
    ):
        yield group


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="forest"),
        pytest.param({"forest": False}, id="padded", marks=pytest.mark.slow),
        pytest.param({"gradient_checkpointing": True}, id="checkpointing"),
    ],
)
def test_a_sharded_base_gives_the_same_adapter(base, pair, changes):
    settings = dataclasses.replace(SMALL, **changes)
    whole, shards = Run(base, None, settings), Run(base, pair, settings)
    assert relative_error(shards.weights, whole.weights) <= 1e-5
    for one, other in zip(whole.steps, shards.steps, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.tokens_read == one.tokens_read


def test_after_a_training_the_base_is_what_it_was(base, pair):
    before = base_fingerprint(base.model)
    classes = [type(module) for module in base.model.modules()]
    attributes = [set(vars(module)) for module in base.model.get_decoder().layers]
    Run(base, pair, SMALL)
    assert base_fingerprint(base.model) == before
    assert [type(module) for module in base.model.modules()] == classes
    assert [set(vars(module)) for module in base.model.get_decoder().layers] == attributes
    # peft loads an adapter in this way: no hook of a shard is left.
    base.model.load_state_dict({}, strict=False)


def test_each_process_holds_half_of_the_layers(base, pair, monkeypatch):
    num_bytes: list[int] = []

    class Counted(ShardedLayers):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            num_bytes.append(self.num_bytes)

    monkeypatch.setattr("loracle.training.sharding.ShardedLayers", Counted)
    Run(base, pair, SMALL)
    whole = sum(p.numel() * p.element_size() for p in base.model.get_decoder().layers.parameters())
    assert num_bytes == [pytest.approx(whole / 2, rel=0.01)]


def test_a_sharded_training_is_resumed_and_takes_over_from_one_process(base, pair, alone, tmp_path):
    every_step = dataclasses.replace(SMALL, checkpoint_every=CheckpointInterval(steps=1))
    for first, second in ((pair, pair), (pair, None)):
        folder = CheckpointFolder(tmp_path / f"{first}-{second}", {"seed": 0}, pytest.fail)
        with pytest.raises(Killed):
            Run(base, first, every_step, folder=folder, on_step=kill_at(3))
        resumed = Run(base, second, every_step, folder=folder)
        assert [record.step for record in resumed.steps] == [3, 4, 5, 6]
        assert relative_error(resumed.weights, alone.weights) <= 1e-5


def test_a_killed_replica_leaves_a_whole_base(base, pair, alone):
    before = base_fingerprint(base.model)
    Run(base, pair, SMALL)
    (process,) = pair.process_ids

    def kill(record: StepRecord) -> None:
        if record.step == 2:
            os.kill(process, signal.SIGKILL)

    with pytest.raises(ReplicaError, match=r"replica 1 \(cpu\) was ended by SIGKILL"):
        Run(base, pair, SMALL, on_step=kill)
    assert not is_running(process)
    assert not torch.distributed.is_initialized()
    assert base_fingerprint(base.model) == before
    assert relative_error(Run(base, pair, SMALL).weights, alone.weights) <= 1e-5


@pytest.mark.slow
def test_a_replica_killed_within_a_pass_is_named(base, pair, monkeypatch):
    Run(base, pair, SMALL)
    (process,) = pair.process_ids
    forest_loss = loop.forest_loss

    def killing(base, micro_batch):
        os.kill(process, signal.SIGKILL)
        return forest_loss(base, micro_batch)

    monkeypatch.setattr(loop, "forest_loss", killing)
    with pytest.raises(ReplicaError, match=r"replica 1 \(cpu\) was ended by SIGKILL"):
        Run(base, pair, SMALL)
    assert not pair.process_ids


@pytest.mark.slow
def test_a_signal_ends_a_sharded_training_after_a_checkpoint(base, pair, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    signals.install()
    folder = CheckpointFolder(tmp_path, {"seed": 0}, pytest.fail)

    def interrupt(record: StepRecord) -> None:
        if record.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        with pytest.raises(SystemExit):
            Run(base, pair, SMALL, folder=folder, on_step=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    newest = folder.newest()
    assert newest is not None
    assert newest.progress.step == 2
    assert not pair.process_ids


@pytest.mark.slow
def test_too_little_memory_in_a_shard_says_what_to_set(base, monkeypatch):
    with (
        closing(failing(base, "never", monkeypatch, shard_base=True)) as replicas,
        pytest.raises(OutOfMemoryError, match=r"replica 1 .*micro_batch_tokens to 60"),
    ):
        Run(base, replicas, SMALL)


def test_connections_of_shards_are_bound_to_the_loopback_address(base, pair):
    Run(base, pair, SMALL)
    if not Path("/proc").exists():
        pytest.skip("needs Linux, to see which sockets a process has")
    for process in (os.getpid(), *pair.process_ids):
        assert listening_addresses(process) == {"127.0.0.1"}


def test_passes_of_weight_nothing_keep_a_process_in_step():
    class Three:
        def most(self, num_passes: int) -> int:
            return 3

    batch = rows().sequences
    own = list(cut(batch, 1 << 20, 0, forest=True))
    passes = list(in_step(own, Three(), forest=True))
    assert [micro_batch.counts for micro_batch in passes] == [True, False, False]


def test_a_program_with_a_group_of_its_own_cannot_shard(group, tmp_path):
    with pytest.raises(ModelError, match=r"has a torch\.distributed process group of its own"):
        ShardGroup(tmp_path / "meeting", 0, 1, "gloo", CPU, 60.0)


def test_a_model_without_a_list_of_layers_cannot_be_sharded(group):
    class Other(torch.nn.Linear):
        def get_decoder(self) -> Any:
            return self

    with pytest.raises(ModelError, match="has no list of decoder layers"):
        ShardedLayers(Other(2, 2), group, keep_whole=True)


def test_without_a_group_layers_are_whole(base):
    with sharded(base.model, None):
        assert type(base.model.get_decoder().layers[0]).__name__ == "LlamaDecoderLayer"


def test_quantised_weights_cannot_be_sharded(base):
    packed = dataclasses.replace(base, quantization="nf4")
    with pytest.raises(ModelError, match="weights are nf4, which torch cannot shard"):
        Replicas(packed, "", 2, shard_base=True)


def test_an_error_of_what_is_computed_is_no_lost_connection():
    assert is_connection_error(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed"))
    assert not is_connection_error(RuntimeError("shapes do not match"))
