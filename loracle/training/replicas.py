"""The processes that share in a training on several devices, as its own process sees them.

    with replicas.training(adapted, sequences, groups, settings) as team:
        own = team.begin(...)        weights to all, rows to each
        done = team.add_up(...)      gradients, losses and tokens from all

This process is replica 0: it has the optimizer and writes every file. The others are started by
the first training, load the base from where this one was loaded, and wait for the next training.
Commands and answers are lines of JSON in pipes (replica.py); tensors go by exchange.py. A training
that does not end well ends the others: the next one starts new ones.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loracle.errors import ModelError, ReplicaError, TrialError
from loracle.forest.trie import IntArray, Sequences
from loracle.model import adapter, liger_layers
from loracle.model.base import BaseModel
from loracle.model.quantization import NONE
from loracle.run_folder import signals
from loracle.run_folder.environment import num_cpus
from loracle.safety.storage_errors import writing
from loracle.training.budget import TokenBudget
from loracle.training.exchange import Exchange, FlatAdapter, Transport, transport_for
from loracle.training.micro_batches import Lockstep
from loracle.training.replica_process import ReplicaProcess
from loracle.training.sharding import ShardGroup, is_connection_error, sharded
from loracle.training.shares import shares_of
from loracle.training.team import PartDone

# A large model comes from a slow disk.
_LOAD_SECONDS = 3600.0
# Kernels may be compiled in the first step, and a step done again after memory ran out. Beyond
# that, the others may take this many times what this process took for its own part.
_PATIENCE_SECONDS, _PATIENCE_TIMES = 600.0, 10.0
_POLL_SECONDS = 0.1
# Between the end of a connection and that of the process behind it.
_DEATH_SECONDS = 2.0


class Replicas:
    """The other processes of trainings that share a step's rows.

    fingerprint: of the base; a replica that loads another one is refused.
    devices: of all replicas, this process first; None takes the base's, then the other GPUs.
    num_threads: torch's of all of them together; None takes as many as there are cores.
    shard_base: whether each holds a part of the base only (sharding.py).
    """

    def __init__(
        self,
        base: BaseModel,
        fingerprint: str,
        num_replicas: int,
        devices: Sequence[str] | None = None,
        num_threads: int | None = None,
        *,
        shard_base: bool = False,
    ) -> None:
        if shard_base and base.quantization != NONE:
            raise ModelError(
                f"training.shard_base: true, but the base's weights are {base.quantization}, which "
                "torch cannot shard; set model.quantization to none, or shard_base to false"
            )
        if base.source is None:
            raise ModelError(
                f"training.data_parallel: {num_replicas}, but the model was given in memory, so "
                "no other process can load it; set it to 1, or name the model's folder"
            )
        if base.source.form.device_map is not None:
            raise ModelError(
                f"training.data_parallel: {num_replicas}, but model.device_map spreads one model "
                "over all devices; remove one of the two"
            )
        self._source, self._fingerprint = base.source, fingerprint
        self._attention = base.attention
        found = devices if devices is not None else _devices(base.device, num_replicas)
        self._devices = [torch.device(device) for device in found]
        self._num_threads = num_threads
        self._model, self._device, self._shard_base = base.model, base.device, shard_base
        self._running: _Running | None = None

    @contextmanager
    def training(
        self, adapted: Any, sequences: Sequences, groups: IntArray, settings: Mapping[str, Any]
    ) -> Iterator[_Team]:
        """Share one training. settings: the fields of TrainingSettings.

        Raises:
            ReplicaError: a replica was lost.
            TrialError: a replica cannot load the base, or failed otherwise.
        """
        num_threads = _threads_of_each(len(self._devices), self._num_threads or num_cpus())
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        try:
            running = self._started(num_threads)
            with tempfile.TemporaryDirectory(prefix="training-", dir=running.folder) as folder:
                running.begin_training(Path(folder), adapted, sequences, settings)
            with sharded(self._model, running.shards):
                yield _Team(running, adapted, groups, forest=bool(settings["forest"]))
            running.tell_all(do="end")
        except BaseException:
            # Their state is unknown; and whoever stops the run must leave none behind.
            self.close()
            raise
        finally:
            torch.set_num_threads(before)

    def close(self) -> None:
        """End the processes. The next training starts new ones."""
        if self._running is not None:
            self._running.close()
            self._running = None

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that run now."""
        return self._running.process_ids if self._running is not None else []

    def _started(self, num_threads: int) -> _Running:
        if self._running is not None and not self._running.all_alive():
            self.close()
        if self._running is None:
            sharded_on = self._device if self._shard_base else None
            self._running = _Running(self._devices, num_threads, sharded_on)
            asked = {
                "source": asdict(self._source),
                "attention": self._attention,
                "liger": liger_layers.is_used(self._model.get_decoder()),
                "num_threads": num_threads,
            }
            self._running.load(asked, self._fingerprint)
        return self._running


def _devices(own: torch.device, num_replicas: int) -> list[str]:
    """Where each replica computes: on the CPU together, on GPUs one each."""
    if own.type == "cpu":
        return ["cpu"] * num_replicas
    num_devices = torch.cuda.device_count() if own.type == "cuda" else 1
    if num_devices < num_replicas:
        raise ModelError(
            f"training.data_parallel: {num_replicas}, but torch sees {num_devices} device(s) of "
            f"the kind {own.type}; set it to at most {num_devices}"
        )
    first = own.index or 0
    others = [index for index in range(num_devices) if index != first]
    return [f"{own.type}:{index}" for index in [first, *others][:num_replicas]]


def _threads_of_each(num_replicas: int, of_all: int) -> int:
    """torch's threads in each process, so that together they have no more than `of_all`."""
    return max(1, min(torch.get_num_threads(), of_all // num_replicas))


class _Running:
    """The replicas while they run, in a private folder that goes with them.

    sharded_on: this process' device, if the base is sharded.
    """

    def __init__(
        self,
        devices: Sequence[torch.device],
        num_threads: int,
        sharded_on: torch.device | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="loracle-replicas-"))
        self.num_replicas = len(devices)
        self._transport: Transport = transport_for(devices)
        self._exchange: Exchange | None = None
        self.shards: ShardGroup | None = None
        self._sharded_on = sharded_on
        self._devices = devices
        self._processes: list[ReplicaProcess] = []
        # Also where nobody closes it: at the end of the program.
        self._end = weakref.finalize(self, _end, self._processes, self.folder)
        for rank, device in enumerate(devices[1:], 1):
            self._processes.append(ReplicaProcess(rank, device, self.folder, num_threads))

    @property
    def process_ids(self) -> list[int]:
        return [process.process_id for process in self._processes]

    def all_alive(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def load(self, asked: Mapping[str, Any], fingerprint: str) -> None:
        """Load the base in all of them, and connect them with one another.

        asked: what replica.py's `load` takes, but for the device.
        """
        for process, device in zip(self._processes, self._devices[1:], strict=True):
            process.tell(do="load", device=str(device), **asked)
        folder = asked["source"]["folder_or_id"]
        for process in self._processes:
            if process.answer(_LOAD_SECONDS)["fingerprint"] != fingerprint:
                raise TrialError(
                    f"{process.name} loaded other weights from {folder} than this "
                    "process has: its files have changed, or its devices are of another kind; set "
                    "training.data_parallel to 1, or start over"
                )
        connection = {
            "meeting_file": str(self.folder / "meeting"),
            "num_replicas": self.num_replicas,
            "transport": self._transport,
            "patience_seconds": _PATIENCE_SECONDS,
        }
        meeting_file = self.folder / "meeting"
        for_shards = None if self._sharded_on is None else self.folder / "meeting-of-shards"
        for rank, process in enumerate(self._processes, 1):
            process.tell(
                do="connect",
                rank=rank,
                shards_meeting_file=for_shards and str(for_shards),
                **connection,
            )
        with self._naming_the_dead():
            own = (0, self.num_replicas, self._transport)
            self._exchange = Exchange(meeting_file, *own, _PATIENCE_SECONDS)
            if for_shards is not None:
                assert self._sharded_on is not None
                self.shards = ShardGroup(for_shards, *own, self._sharded_on, _PATIENCE_SECONDS)
        for process in self._processes:
            process.answer(_PATIENCE_SECONDS)

    def begin_training(
        self, folder: Path, adapted: Any, sequences: Sequences, settings: Mapping[str, Any]
    ) -> None:
        """Give all of them the adapter and the rows."""
        adapter.save(adapted, folder / "adapter")
        with writing(folder):
            for name, values in sequences._asdict().items():
                np.save(folder / f"{name}.npy", values)
        parameters = [[name, list(p.shape)] for name, p in adapter.trainable(adapted)]
        values = {"folder": str(folder), "settings": settings, "parameters": parameters}
        self.tell_all(do="train", **values)
        for process in self._processes:
            process.answer(_PATIENCE_SECONDS)

    def tell_all(self, **values: Any) -> None:
        for process in self._processes:
            process.tell(**values)

    def tell(self, rank: int, **values: Any) -> None:
        self._processes[rank - 1].tell(**values)

    def answers(self, own_seconds: float) -> Iterator[dict[str, Any]]:
        """What each says of the step under way. own_seconds: this process took for its part."""
        for process in self._processes:
            yield process.answer(_PATIENCE_SECONDS + _PATIENCE_TIMES * own_seconds)

    def copy_from_here(self, flat: Tensor) -> None:
        """Overwrite all buffers with this process'."""
        with self._naming_the_dead():
            self._connected.copy_from_first(flat, self._require_all)

    def sum_here(self, flat: Tensor) -> None:
        """Add all buffers up in this process'."""
        with self._naming_the_dead():
            self._connected.sum_at_first(flat, self._require_all)

    @property
    def _connected(self) -> Exchange:
        assert self._exchange is not None, "replicas are connected when they are loaded"
        self._exchange.patience_seconds = _PATIENCE_SECONDS
        return self._exchange

    def close(self) -> None:
        # First the processes: a connection to one that hangs would not end.
        self._end()
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        if self.shards is not None:
            self.shards.close()
            self.shards = None

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Where the base is sharded, a pass fails if another process is gone: say which."""
        if self.shards is None:
            yield
            return
        try:
            yield
        except RuntimeError as error:
            if not is_connection_error(error):
                raise
            with self._naming_the_dead():
                raise

    def _require_all(self) -> None:
        signals.stop_if_urgent()
        for process in self._processes:
            if not process.is_alive():
                process.raise_its_error()

    @contextmanager
    def _naming_the_dead(self) -> Iterator[None]:
        """A broken connection says nothing of whom it led to."""
        try:
            yield
        except RuntimeError as error:
            until = time.monotonic() + _DEATH_SECONDS
            while self.all_alive() and time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
            self._require_all()
            raise ReplicaError(
                f"the replicas of this training lost their connection ({error}); "
                "run the same command again to resume"
            ) from error


class _Team:
    """One training under way, with replicas."""

    @property
    def lockstep(self) -> Lockstep | None:
        return self._running.shards

    def computing(self) -> AbstractContextManager[None]:
        return self._running.computing()

    def __init__(self, running: _Running, adapted: Any, groups: IntArray, *, forest: bool) -> None:
        self._running, self._groups, self._forest = running, groups, forest
        self._flat = FlatAdapter(dict(adapter.trainable(adapted)))
        self._began = 0.0

    def begin(self, step: int, rows: IntArray, batch: Sequences, budget_tokens: int) -> IntArray:
        """Give every replica its rows, and this process' weights."""
        assert batch.weights is not None, "training needs loss weights"
        num_shares = self._running.num_replicas
        shares = shares_of(batch, self._groups[rows], num_shares, forest=self._forest)
        for rank, share in enumerate(shares[1:], 1):
            self._running.tell(
                rank,
                do="step",
                step=step,
                rows=rows[share].tolist(),
                total_weight=float(batch.weights.sum(dtype=np.float64)),
                budget_tokens=budget_tokens,
            )
        weights = self._flat.weights()
        self._running.copy_from_here(weights)
        self._began = time.perf_counter()
        own: IntArray = rows[shares[0]]
        return own

    def add_up(self, own: PartDone, step: int, budget: TokenBudget) -> PartDone:
        """Add the others' gradients to this process'. The smallest budget holds from now on."""
        loss, tokens_computed = float(own.loss), own.tokens_computed
        for answer in self._running.answers(time.perf_counter() - self._began):
            loss += answer["loss"]
            tokens_computed += answer["tokens_computed"]
            if answer["budget_tokens"] < budget.budget_tokens:
                budget.lower(step, answer["budget_tokens"])
        gradients = self._flat.gradients()
        self._running.sum_here(gradients)
        self._flat.set_gradients(gradients)
        return PartDone(torch.tensor(loss, dtype=torch.float64), tokens_computed)


def _end(processes: Sequence[ReplicaProcess], folder: Path) -> None:
    for process in processes:
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)
