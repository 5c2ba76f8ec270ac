"""ModelScope: its own library against a stand-in server, and then without any server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.data.hubs.conftest import Served, boxes, configured, jsonl
from tests.data.hubs.served import TOKEN

WEIGHTS = bytes(range(256)) * 40


def small_model(hub: Served, name: str) -> str:
    files = {"config.json": b"{}", "model.safetensors": WEIGHTS, "README.md": b"# Small"}
    return hub.state.repo("model", name).commit(files, "master")


def errors_of(outcome: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]


def folder_of(outcome: subprocess.CompletedProcess[str]) -> Path:
    return Path(outcome.stdout.split()[-1])


def test_a_dataset_and_a_model_are_fetched_and_there_without_a_socket(modelscope: Served) -> None:
    dataset = configured(modelscope.state.repo("dataset", "org/two"), "master")
    model = small_model(modelscope, "org/small")
    command = ("fetch", "ms://org/two:english", "org/small", "--hub", "modelscope")

    online = modelscope.user.run(*command)
    num_asked = len(modelscope.state.asked)
    offline = modelscope.user.run(*command, sockets=False, HF_HUB_OFFLINE="1")

    assert online.returncode == 0, online.stderr
    first, second = online.stdout.splitlines()
    assert first.startswith(f"org/two@{dataset}  2 files")
    assert second.startswith(f"org/small@{model}  2 files")
    assert (folder_of(online) / "model.safetensors").read_bytes() == WEIGHTS
    assert offline.returncode == 0, offline.stderr
    assert offline.stdout == online.stdout
    assert len(modelscope.state.asked) == num_asked


def test_the_commit_of_a_branch_is_that_of_its_newest_file(modelscope: Served) -> None:
    repo = modelscope.state.repo("dataset", "org/boxes")
    old = boxes(repo, "master")
    repo.tags["v1"] = old
    files = {**repo.commits[old], "train.jsonl": jsonl(0, 20)}
    new = repo.commit(files, "master")

    outcome = modelscope.user.run(
        "fetch", "ms://org/boxes", "ms://org/boxes@v1", f"ms://org/boxes@{old}"
    )

    assert outcome.returncode == 0, outcome.stderr
    assert [line.split()[0] for line in outcome.stdout.splitlines()] == [
        f"org/boxes@{new}",
        f"org/boxes@{old}",
        f"org/boxes@{old}",
    ]
    first, second, _ = (Path(line.split()[-1]) for line in outcome.stdout.splitlines())
    assert (first / "train.jsonl").read_bytes() == jsonl(0, 20)
    assert (second / "train.jsonl").read_bytes() == jsonl(0, 12)


def test_a_branch_whose_last_commit_only_removed_files_is_not_taken_for_another(
    modelscope: Served,
) -> None:
    repo = modelscope.state.repo("dataset", "org/boxes")
    first = boxes(repo, "master")
    left = {path: repo.commits[first][path] for path in ("README.md", "train.jsonl")}
    last = repo.commit(left, "master")

    outcome = modelscope.user.run("fetch", "ms://org/boxes", f"ms://org/boxes@{last}")

    assert outcome.returncode == 2
    [message] = errors_of(outcome)
    assert "does not say which commit master is; name the commit itself" in message
    assert outcome.stdout.startswith(f"org/boxes@{last}  1 file,")


def test_each_fault_is_one_message_with_what_to_do_and_exit_code_2(modelscope: Served) -> None:
    repo = modelscope.state.repo("dataset", "org/two")
    repo.tags["v1"] = configured(repo, "master")
    boxes(modelscope.state.repo("dataset", "org/gated"), "master")
    modelscope.state.repo("dataset", "org/gated").gated = True
    faults = {
        "ms://org/boxen": "ModelScope has no public dataset with this name; check the name",
        "ms://org/two@main": "has no revision main; it has v1, master",
        "ms://org/two:shard": "did you mean ms://org/two:shards?",
        "ms://org/gated": "set MODELSCOPE_API_TOKEN or run `modelscope login`",
        "org/none": "ModelScope has no public model with this name",
    }

    outcome = modelscope.user.run("fetch", *faults, "--hub", "modelscope")
    allowed = modelscope.user.run("fetch", "ms://org/gated", MODELSCOPE_API_TOKEN=TOKEN)

    assert outcome.returncode == 2
    assert "Traceback" not in outcome.stderr
    for message, (target, expected) in zip(errors_of(outcome), faults.items(), strict=True):
        assert expected in message, target
    assert allowed.returncode == 0, allowed.stderr


@pytest.mark.long
def test_offline_and_without_network_what_was_never_fetched_is_an_error(modelscope: Served) -> None:
    boxes(modelscope.state.repo("dataset", "org/boxes"), "master")
    assert modelscope.user.run("fetch", "ms://org/boxes").returncode == 0
    nowhere = {"MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
    targets = ("ms://org/boxes", "ms://org/boxes@v2", "org/small", "--hub", "modelscope")

    offline = modelscope.user.run("fetch", *targets, sockets=False, HF_HUB_OFFLINE="1")
    cut_off = modelscope.user.run("fetch", "ms://org/boxes", **nowhere)

    assert offline.returncode == 2
    dataset, model = errors_of(offline)
    assert "has no revision v2; run `loracle fetch ms://org/boxes` once" in dataset
    assert "run `loracle fetch org/small --hub modelscope` once" in model
    assert cut_off.returncode == 0, cut_off.stderr
    assert "ModelScope cannot be reached" in cut_off.stderr
    assert "fetched before" in cut_off.stderr


def test_a_download_that_breaks_off_goes_on_where_it_stopped(modelscope: Served) -> None:
    small_model(modelscope, "org/small")
    modelscope.state.drops["model.safetensors"] = [1000]

    outcome = modelscope.user.run("fetch", "org/small", "--hub", "modelscope")

    assert outcome.returncode == 0, outcome.stderr
    assert (folder_of(outcome) / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [a.range for a in modelscope.state.asked if "FilePath=model.safetensors" in a.path]
    assert len(ranges) == 2


def test_what_modelscopes_own_tools_fetched_is_taken_over(modelscope: Served) -> None:
    commit = small_model(modelscope, "org/small")
    branch = modelscope.user.home / "ms/models/org--small/snapshots/master"
    branch.mkdir(parents=True)
    (branch / "model.safetensors").write_bytes(WEIGHTS)
    (branch / "config.json").write_bytes(b"[]")

    outcome = modelscope.user.run("fetch", "org/small", "--hub", "modelscope")

    assert outcome.returncode == 0, outcome.stderr
    fetched = folder_of(outcome)
    assert fetched.name == commit
    assert (fetched / "model.safetensors").samefile(branch / "model.safetensors")
    assert (fetched / "config.json").read_bytes() == b"{}"
    assert not [a for a in modelscope.state.asked if "FilePath=model.safetensors" in a.path]


def test_without_the_library_the_message_says_what_to_install(modelscope: Served) -> None:
    # An empty module path entry before the others, with a package of this name that fails.
    blocked = modelscope.user.home / "blocked"
    blocked.mkdir()
    (blocked / "modelscope_hub.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join([str(blocked), modelscope.user.environment["PYTHONPATH"]])

    outcome = modelscope.user.run("fetch", "ms://org/boxes", PYTHONPATH=path)

    assert outcome.returncode == 2
    assert "pip install 'loracle[modelscope]'" in outcome.stderr
    assert "Traceback" not in outcome.stderr
