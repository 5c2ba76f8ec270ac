"""Data of a hub, by its address: read through the same functions, against a stand-in hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import forked
from tests.data.hubs.conftest import Served, boxes, hub  # noqa: F401 - a fixture

SCRIPT = """
from training.pipeline_module import run_training_evaluation_pipeline
run_training_evaluation_pipeline(
    [("hf://org/boxes#train", "hf://org/boxes#test")],
    {model!r}, {configs!r}, "small", "results.json",
    training_args={{"num_train_epochs": 1}}, evaluation_generation_kwargs={{"max_new_tokens": 4}},
)
"""


@pytest.mark.long
def test_a_dataset_of_a_hub_is_trained_on_by_its_address(
    hub: Served,  # noqa: F811
    model_folder: Path,
    config_dir: Path,
) -> None:
    commit = boxes(hub.state.repo("dataset", "org/boxes"), "main")
    script = SCRIPT.format(model=str(model_folder), configs=str(config_dir))
    outcome = forked.run(script, folder=hub.user.home, environment=hub.user.environment)
    assert outcome.returncode == 0, outcome.stderr
    (entry,) = json.loads((hub.user.home / "results.json").read_text())["datasets"]
    assert entry["dataset"] == "boxes"
    assert entry["training"]["num_examples"] == 12
    assert entry["scores"]["num_examples"] == 6
    assert commit in (hub.user.home / "results_run" / "plan.json").read_text()
