"""A whole run from a hub: model and data by their ids, frozen at their commits, then offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.data.hubs.conftest import GITATTRIBUTES, Served, boxes, jsonl

SHORT = [
    f"--set={setting}"
    for setting in (
        "training.epochs=1",
        "training.batch_size=8",
        "generation.max_new_tokens=4",
        "evaluation.0.split=test",
    )
]
TINY = ("--model", "org/tiny")
RUN = ("run", "hf://org/boxes", "--eval", "hf://org/boxes", *TINY, *SHORT)


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny.save_model(tmp_path_factory.mktemp("tiny"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def plan_of(run: Path) -> Any:
    return json.loads((run / "plan.json").read_text())["plan"]


@pytest.mark.long
def test_a_run_from_a_hub_is_frozen_at_its_commits_and_repeats_offline(
    hub: Served, model_files: dict[str, bytes]
) -> None:
    model = hub.state.repo("model", "org/tiny").commit({**GITATTRIBUTES, **model_files}, "main")
    repo = hub.state.repo("dataset", "org/boxes")
    commit = boxes(repo, "main")
    home = hub.user.home

    online = hub.user.run(*RUN, "--out", "online")
    # What is on the hub now is not what the first run read.
    repo.commit({**repo.commits[commit], "train.jsonl": jsonl(50, 70)}, "main")
    again = hub.user.run(*RUN, "--out", "online")
    num_asked = len(hub.state.asked)
    offline = hub.user.run(*RUN, "--out", "offline", sockets=False, HF_HUB_OFFLINE="1")

    assert online.returncode == 0, online.stderr
    plan = plan_of(home / "online")
    assert plan["model"]["commit"] == model
    [candidate] = plan["candidates"]
    assert candidate["path"] == "hf://org/boxes"
    assert (candidate["commit"], candidate["split"], candidate["config"]) == (
        commit,
        "train",
        "default",
    )
    assert candidate["files"] == ["train.jsonl"]
    assert plan["evaluation"][0]["split"] == "test"
    results = json.loads((home / "online/results.json").read_text())
    assert results["model"]["revision"] == model
    assert [row["num_examples"] for row in results["rows"]] == [0, 12]

    assert again.returncode == 0, again.stderr
    assert plan_of(home / "online") == plan

    assert offline.returncode == 0, offline.stderr
    assert len(hub.state.asked) == num_asked
    assert plan_of(home / "offline") == plan
    for name in ("trials/boxes--s0/adapter/adapter_model.safetensors", "base/scores/boxes.jsonl"):
        assert (home / "offline" / name).read_bytes() == (home / "online" / name).read_bytes()


FAULTS = {
    "an evaluation among several splits": (
        ["hf://org/boxes", "--eval", "hf://org/boxes", *TINY],
        "evaluation.0: hf://org/boxes: has the splits train, test, and none was chosen",
    ),
    "no such split": (
        ["hf://org/boxes", "--eval", "hf://org/boxes", "--set", "evaluation.0.split=tset", *TINY],
        "has no split tset; it has train, test; did you mean test?",
    ),
    "rows that cannot be used": (
        ["hf://org/broken", "--eval", "hf://org/boxes/test.jsonl", *TINY],
        ":data/train.jsonl:2: the file ends inside this row",
    ),
    "a model that is nowhere": (
        ["hf://org/boxes", "--eval", "hf://org/boxes/test.jsonl", "--model", "org/none"],
        "no public model with this name",
    ),
}


@pytest.mark.long
def test_what_is_wrong_ends_the_run_before_training(
    hub: Served, model_files: dict[str, bytes]
) -> None:
    hub.state.repo("model", "org/tiny").commit({**GITATTRIBUTES, **model_files}, "main")
    boxes(hub.state.repo("dataset", "org/boxes"), "main")
    broken = hub.state.repo("dataset", "org/broken").commit(
        {**GITATTRIBUTES, "data/train.jsonl": jsonl(0, 1) + b"{\n"}, "main"
    )

    outs = [f"out-{number}" for number in range(len(FAULTS))]
    outcomes = hub.user.run_several(
        [
            ["run", *arguments, "--out", out]
            for out, (arguments, _) in zip(outs, FAULTS.values(), strict=True)
        ]
    )

    for out, fault, outcome in zip(outs, FAULTS, outcomes, strict=True):
        assert outcome.returncode == 2, fault
        messages = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
        [message] = [line for line in messages if FAULTS[fault][1] in line]
        if fault == "rows that cannot be used":
            assert f"org/broken@{broken[:12]}:data/train.jsonl:2" in message
            assert "no candidate can be used for training" in messages[0]
            assert not (hub.user.home / out / "trials").exists()
        else:
            assert messages == [message], fault
            assert not (hub.user.home / out).exists(), fault
