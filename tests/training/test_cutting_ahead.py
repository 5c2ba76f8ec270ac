"""Where the host waits for its device anyway, the next step is cut into micro-batches before."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from loracle.model import adapter
from loracle.training import loop
from loracle.training.budget import MemoryEvent
from loracle.training.loop import Following, StepRecord, train
from tests.training.test_loop import SETTINGS, attached, fail_once, relative_error, rows, tiny_base


def trained(*, forest: bool, happened: list[str] | None = None, **changes: Any) -> torch.Tensor:
    """The adapter after three steps. happened: takes the ends of steps, and memory's events."""
    told = happened if happened is not None else []

    def on_step(record: StepRecord) -> None:
        told.append(f"step {record.step} done")

    def on_memory(event: MemoryEvent) -> None:
        told.append(f"{event.budget_tokens} tokens")

    base = tiny_base()
    settings = dataclasses.replace(SETTINGS, max_steps=3, forest=forest, **changes)
    adapted = attached(base, dropout=0.2)
    train(base, adapted, rows(), settings, Following(on_step, on_memory))
    return torch.cat([p.detach().flatten() for _, p in adapter.trainable(adapted)])


def asynchronous(monkeypatch) -> None:
    """Take this machine's processor for a device that the host waits for."""
    monkeypatch.setattr(loop, "is_asynchronous", lambda device: True)


def noting_cuts(monkeypatch, happened: list[str]) -> None:
    cut = loop.cut

    def noted(*arguments, **options):
        happened.append("cut")
        return cut(*arguments, **options)

    monkeypatch.setattr(loop, "cut", noted)


@pytest.mark.parametrize("forest", [True, False])
def test_a_step_that_was_cut_ahead_gives_the_same_bytes(monkeypatch, forest):
    expected = trained(forest=forest)
    asynchronous(monkeypatch)
    assert torch.equal(trained(forest=forest), expected)


def test_the_next_step_is_cut_before_the_wait_for_the_present_one(monkeypatch):
    happened: list[str] = []
    noting_cuts(monkeypatch, happened)
    asynchronous(monkeypatch)
    trained(forest=True, happened=happened)
    done = ["step 1 done", "step 2 done", "step 3 done"]
    assert happened == ["cut", "cut", done[0], "cut", done[1], done[2]]


def test_on_a_processor_every_step_is_cut_when_its_turn_comes(monkeypatch):
    happened: list[str] = []
    noting_cuts(monkeypatch, happened)
    trained(forest=True, happened=happened)
    assert happened == ["cut", "step 1 done", "cut", "step 2 done", "cut", "step 3 done"]


def test_a_step_that_does_not_fit_as_it_was_cut_is_cut_smaller(monkeypatch):
    expected = trained(forest=True, learning_rate=1e-3)
    happened: list[str] = []
    asynchronous(monkeypatch)
    # In the second step, whose micro-batches were made in the first.
    fail_once(monkeypatch, 2)
    found = trained(forest=True, happened=happened, learning_rate=1e-3)
    assert "200 tokens" in happened
    assert relative_error(found, expected) <= 1e-5
