"""A training step waits for its device once: what the host asks of tensors is counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from loracle.experiment.setup import TrainingSet
from loracle.forest.attention import triton_rows, uploading
from loracle.forest.trie import Sequences
from loracle.model import adapter
from loracle.training import loop
from loracle.training.checkpoint import Checkpoint
from loracle.training.loop import Following, train
from tests.generation.test_generate import tiny_base
from tests.training.test_loop import SETTINGS

aten = torch.ops.aten
# What has a result, or a size of one, that the host must know.
_WAITING = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
}
_READING = ("__bool__", "__float__", "__index__", "__int__", "cpu", "item", "tolist")


class Waiting(TorchDispatchMode):
    """Counts operations that a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in _WAITING or _has_mask(function, args):
            self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


def _has_mask(function: Any, args: Any) -> bool:
    if function not in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def counted(monkeypatch, backend: str, *, num_rows: int = 12, budget_tokens: int = 16) -> Counter:
    """The waits of three steps, by kind; every step has several micro-batches."""
    base = tiny_base("qwen2")
    base = dataclasses.replace(base, attention=backend)
    ids = [[5, 6, 7, 8 + row % 3, *range(20 + row, 26 + row)] for row in range(num_rows)]
    rows = TrainingSet(
        "rows",
        Sequences.of(ids, [[0.0] * 4 + [1.0] * 6 for _ in ids]),
        np.zeros(num_rows, np.int64),
    )
    settings = dataclasses.replace(
        SETTINGS, max_steps=3, batch_size=4, budget_tokens=budget_tokens, forest=True
    )
    optimizer = torch.optim.AdamW
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda *a, **options: optimizer(*a, **{**options, "fused": True})
    )
    counts: Counter[str] = Counter()
    for name in _READING:
        monkeypatch.setattr(torch.Tensor, name, _counting(name, counts))
    records: list[Any] = []
    with adapter.attached(base.model, adapter.lora_config({"r": 2}), 0) as adapted:
        # What is made once, before the steps, may read.
        train(base, adapted, rows, settings, Following(records.append, lambda event: None))
        counts.clear()
        with Waiting() as waiting:
            train(base, adapted, rows, settings, Following(records.append, lambda event: None))
    assert len(records) == 6
    return counts + waiting.counts


def _counting(name: str, counts: Counter[str]) -> Any:
    read = getattr(torch.Tensor, name)

    def counting(tensor, *arguments, **options):
        counts[name] += 1
        return read(tensor, *arguments, **options)

    return counting


@pytest.fixture
def triton_without_kernels(monkeypatch):
    """Everything that surrounds the kernels; their interpreter would read tensors."""

    def attend(query, key, value, kernel, scale):
        groups = query.shape[0] // value.shape[0]
        return (query + (key + value).repeat_interleave(groups, dim=0)).transpose(0, 1)

    monkeypatch.setattr(triton_rows, "attend", attend)


@pytest.mark.parametrize("backend", ["dense", "triton"])
def test_a_step_waits_once(backend, monkeypatch, triton_without_kernels):
    assert counted(monkeypatch, backend) == {"tolist": 3}


def test_a_wait_in_every_micro_batch_would_be_found(monkeypatch):
    forest_loss = loop.forest_loss

    def reading(base, micro_batch):
        loss = forest_loss(base, micro_batch)
        float(loss.detach())
        return loss

    monkeypatch.setattr(loop, "forest_loss", reading)
    assert counted(monkeypatch, "dense")["__float__"] > 3


def test_what_a_step_uploads_goes_by_pinned_memory(monkeypatch):
    """A copy from memory that is not pinned makes the host wait; all copies are by one function."""
    copied: list[tuple[torch.device, bool]] = []

    class OnGpu:
        type = "cuda"

    class Pinned(torch.Tensor):
        def to(self, *arguments, non_blocking=False, **options):
            copied.append((arguments[0], non_blocking))
            return self

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.as_subclass(Pinned))
    gpu = OnGpu()
    uploading.on_device(np.arange(3), gpu)
    assert copied == [(gpu, True)]


def test_the_optimizer_of_a_fused_training_resumes_on_its_device():
    """fused counts its steps where the weights are; a checkpoint's count goes there, too."""
    weight = torch.nn.Parameter(torch.ones(3, device="meta"))
    optimizer = torch.optim.AdamW([weight], fused=False)
    optimizer.defaults["fused"] = True
    values: dict[str, Any] = dict.fromkeys(Checkpoint.__dataclass_fields__)
    values |= {"adapter": {"w": torch.ones(3)}, "optimizer": {"w/step": torch.tensor(4.0)}}
    Checkpoint(**values).restore({"w": weight}, optimizer)
    assert optimizer.state[weight]["step"].device.type == "meta"
    optimizer.defaults["fused"] = False
    Checkpoint(**values).restore({"w": weight}, optimizer)
    assert optimizer.state[weight]["step"].device.type == "cpu"
