"""Disk and memory that will not do are named before the work, with figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loracle.errors import StorageError
from loracle.experiment import space
from loracle.model import adapter
from loracle.model.memory import FreeMemory
from tests import tiny
from tests.small_run import make_world


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_an_adapter_is_estimated_as_large_as_it_is(targets: object) -> None:
    config = adapter.lora_config({"r": 4, "alpha": 8, "target_modules": targets})
    estimated = space.adapter_parameters(tiny.model(), config)
    adapted = adapter.attach(tiny.model(), config, seed=0)
    found = sum(parameter.numel() for _, parameter in adapter.trainable(adapted))
    assert found <= estimated <= 1.2 * found


def test_a_disk_that_holds_no_trial_is_named_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path / "world")
    monkeypatch.setattr(space, "free_bytes", lambda _: 2000)
    with pytest.raises(StorageError, match=r"has 2.0 kB free, and a trial needs about \d") as full:
        world.start()
    assert full.value.is_passing
    assert not (world.run / "trials").exists()


def test_what_will_not_do_for_all_trials_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path / "world")
    config = adapter.lora_config(world.plan().lora.model_dump())
    one = 28 * space.adapter_parameters(tiny.model(), config) + 4 * 1048
    monkeypatch.setattr(space, "free_bytes", lambda _: one + 1000)
    monkeypatch.setattr(space, "free_memory", lambda _: FreeMemory(1000, "memory"))
    assert world.start()["num_failed"] == 0
    events = (world.run / "events.jsonl").read_text().splitlines()
    warnings = [row["message"] for row in map(json.loads, events) if row["event"] == "warning"]
    assert any("3 remaining trials will take about" in message for message in warnings)
    assert any("only 1.0 kB of memory is free" in message for message in warnings)
