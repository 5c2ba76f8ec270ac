"""A replica: a process that computes its part of every step of a training it is told of.

    python -m loracle.training.replica     started by replicas.py, and by nobody else

It reads one command a line from standard input and answers with one line on standard output:

    {"do": "load", "source": ..., "device": ...}      {"fingerprint": ...}
    {"do": "connect", "meeting_file": ..., "rank": 1} {"connected": true}
    {"do": "train", "folder": ..., "settings": ...}   {"ready": true}
    {"do": "step", "step": 0, "rows": [...], ...}     {"loss": ..., "tokens_computed": ...}
    {"do": "end"}

Weights come and gradients go by torch.distributed (exchange.py). It writes no file of the run, and
ends when its parent does, whatever it is at.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from loracle.errors import LoracleError, ModelError, ReplicaError
from loracle.forest.attention.backends import AttentionBackend
from loracle.forest.trie import IntArray, Sequences
from loracle.model import adapter, liger_layers
from loracle.model.base import (
    BaseModel,
    base_fingerprint,
    load_base,
    load_tokenizer,
)
from loracle.model.loaded_form import BaseSource, LoadedForm
from loracle.training.budget import TokenBudget
from loracle.training.exchange import Exchange, FlatAdapter
from loracle.training.loop import TrainingSettings, step_gradient
from loracle.training.micro_batches import take
from loracle.training.mode import training_mode
from loracle.training.saving import BY_COST
from loracle.training.sharding import ShardedLayers, ShardGroup
from loracle.training.team import Part

_LOOKS_SECONDS = 0.5
_REMOVALS, _PAUSE_SECONDS = 5, 0.1


class _Channel:
    """Commands in, answers out."""

    def __init__(self) -> None:
        # What libraries print goes to the log; answers alone go to the parent.
        self._answers: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def commands(self) -> Iterator[dict[str, Any]]:
        for line in sys.stdin:
            yield json.loads(line)

    def answer(self, **values: Any) -> None:
        self._answers.write(json.dumps(values) + "\n")
        self._answers.flush()


class _Replica:
    """What a replica has loaded, and whom it is connected with."""

    def __init__(self, channel: _Channel, parent: int) -> None:
        self._channel, self._parent = channel, parent
        self._base: BaseModel | None = None
        self._exchange: Exchange | None = None
        self._shards: ShardGroup | None = None

    def load(
        self,
        source: Mapping[str, Any],
        device: str,
        attention: AttentionBackend | None,
        liger: bool,
        num_threads: int,
    ) -> None:
        torch.set_num_threads(num_threads)
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        loaded = _loaded(BaseSource(**source), device)
        self._base = dataclasses.replace(loaded, attention=attention)
        if liger:
            liger_layers.use(loaded.model.get_decoder())
        self._channel.answer(fingerprint=base_fingerprint(self._base.model))

    def connect(self, shards_meeting_file: str | None, **values: Any) -> None:
        values["meeting_file"] = Path(values["meeting_file"])
        self._exchange = Exchange(**values)
        if shards_meeting_file is not None:
            assert self._base is not None, "a base is loaded before it is sharded"
            values["meeting_file"] = Path(shards_meeting_file)
            self._shards = ShardGroup(device=self._base.device, **values)
            # It answers nothing, so that it needs the whole base no more.
            ShardedLayers(self._base.model, self._shards, keep_whole=False)
        self._channel.answer(connected=True)

    def train(
        self,
        commands: Iterator[dict[str, Any]],
        folder: str,
        settings: Mapping[str, Any],
        parameters: list[list[Any]],
    ) -> None:
        """Share in one training, until its end."""
        base, exchange = self._base, self._exchange
        assert base is not None, "a base is loaded before it is trained on"
        assert exchange is not None, "replicas are connected before they train"
        sequences, plain = _read_sequences(Path(folder)), _settings(settings)
        adapted = adapter.load(base.model, Path(folder) / "adapter", trainable=True)
        try:
            _require_same(adapted, parameters)
            mode = training_mode(
                base,
                adapted,
                forest=plain.forest,
                gradient_checkpointing=plain.gradient_checkpointing,
            )
            with mode:
                self._channel.answer(ready=True)
                training = _Training(
                    base, adapted, sequences, plain, exchange, self._channel, self._parent,
                    self._shards,
                )  # fmt: skip
                for command in commands:
                    if command.pop("do") == "end":
                        break
                    training.step(**command)
        finally:
            adapter.detach(adapted)


@dataclasses.dataclass(frozen=True)
class _Training:
    base: BaseModel
    adapted: Any
    sequences: Sequences
    settings: TrainingSettings
    exchange: Exchange
    channel: _Channel
    parent: int
    shards: ShardGroup | None

    def step(self, step: int, rows: list[int], total_weight: float, budget_tokens: int) -> None:
        """Take the weights, compute the rows, give the gradient."""
        flat = FlatAdapter(dict(adapter.trainable(self.adapted)))
        weights = flat.weights()
        self.exchange.copy_from_first(weights, self._require_parent)
        flat.set_weights(weights)
        own: IntArray = np.array(rows, np.int64)
        budget = TokenBudget(budget_tokens, lambda event: None)
        part = Part(take(self.sequences, own), total_weight)
        done = step_gradient(
            self.base, self.adapted, part, step, self.settings, budget, self.shards
        )
        self.channel.answer(
            loss=float(done.loss),
            tokens_computed=done.tokens_computed,
            budget_tokens=budget.budget_tokens,
        )
        self.exchange.sum_at_first(flat.gradients(), self._require_parent)

    def _require_parent(self) -> None:
        if os.getppid() != self.parent:
            raise ReplicaError("the process that trains is gone")


def _loaded(source: BaseSource, device: str) -> BaseModel:
    form = LoadedForm(*source.form)._replace(device=device)
    folder = source.folder_or_id
    tokenizer = load_tokenizer(folder, None, form.trust_remote_code)
    return load_base(source.name, folder, tokenizer, form)


def _read_sequences(folder: Path) -> Sequences:
    """Mapped: a step reads its own rows only."""
    parts = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in Sequences._fields)
    return Sequences(*parts)


def _settings(values: Mapping[str, Any]) -> TrainingSettings:
    """From JSON. When checkpoints are written is none of a replica's business."""
    changed = {"betas": tuple(values["betas"]), "checkpoint_every": BY_COST}
    return TrainingSettings(**{**values, **changed})


def _require_same(adapted: Any, parameters: list[list[Any]]) -> None:
    found = [[name, list(parameter.shape)] for name, parameter in adapter.trainable(adapted)]
    if found != parameters:
        raise ModelError(
            "the adapter has other weights to train when it is loaded from its files than when it "
            "was attached; this kind (lora) can be trained with training.data_parallel: 1 only"
        )


def _remove(folder: Path) -> None:
    """Remove the replicas' folder, also if torch writes to its meeting file meanwhile."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_PAUSE_SECONDS)


def _end_with(parent: int, folder: Path) -> None:
    """End, whatever the main thread is at, once the parent is gone; what it left goes, too."""
    while os.getppid() == parent:
        time.sleep(_LOOKS_SECONDS)
    _remove(folder)
    os._exit(1)


def main() -> None:
    """Serve until the parent closes the pipe or is gone."""
    parent, folder = int(sys.argv[1]), Path(sys.argv[2])
    # They are the parent's to answer: a terminal sends them to all of its processes.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()
    channel = _Channel()
    replica = _Replica(channel, parent)
    commands = channel.commands()
    try:
        for command in commands:
            what = command.pop("do")
            if what == "load":
                replica.load(**command)
            elif what == "connect":
                replica.connect(**command)
            else:
                replica.train(commands, **command)
    # Whatever it is, it is the parent's to say.
    except Exception as error:  # noqa: BLE001
        known = isinstance(error, LoracleError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        try:
            channel.answer(error=text, kind=type(error).__name__)
        except OSError:
            # Nobody listens any more.
            _remove(folder)
        # A parent that is ending loses the connection first, and its end of the pipe after that.
        for _ in range(_REMOVALS):
            if os.getppid() != parent:
                _remove(folder)
                break
            time.sleep(_PAUSE_SECONDS)
        sys.exit(1)
    # The pipe's end is the parent's.
    _remove(folder)


if __name__ == "__main__":
    main()
