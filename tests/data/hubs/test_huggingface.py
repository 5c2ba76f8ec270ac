"""The Hugging Face hub: its own client against a stand-in server, and then without any server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.hubs.conftest import Served, boxes, configured


def test_a_dataset_is_fetched_and_its_commit_is_shown(hub: Served) -> None:
    commit = boxes(hub.state.repo("dataset", "org/boxes"), "main")

    outcome = hub.user.run("fetch", "hf://org/boxes")

    assert outcome.returncode == 0, outcome.stderr
    assert f"org/boxes@{commit}  2 files" in outcome.stdout
    assert "fetching hf://org/boxes@" in outcome.stderr
    folder = Path(outcome.stdout.split()[-1])
    files = hub.state.repo("dataset", "org/boxes").commits[commit]
    for name in ("train.jsonl", "test.jsonl"):
        assert (folder / name).read_bytes() == files[name]


def test_what_was_fetched_is_there_without_a_socket(hub: Served) -> None:
    boxes(hub.state.repo("dataset", "org/boxes"), "main")
    online = hub.user.run("fetch", "hf://org/boxes")
    num_asked = len(hub.state.asked)

    offline = hub.user.run("fetch", "hf://org/boxes", sockets=False, HF_HUB_OFFLINE="1")

    assert offline.returncode == 0, offline.stderr
    assert offline.stdout == online.stdout
    assert len(hub.state.asked) == num_asked


def test_the_socket_guard_ends_a_command_that_goes_online(hub: Served) -> None:
    boxes(hub.state.repo("dataset", "org/boxes"), "main")
    outcome = hub.user.run("fetch", "hf://org/boxes", sockets=False)
    assert outcome.returncode != 0
    assert "a socket was used" in outcome.stderr


def test_only_the_files_of_the_configuration_are_fetched(hub: Served) -> None:
    configured(hub.state.repo("dataset", "org/two"), "main")

    outcome = hub.user.run("fetch", "hf://org/two:shards")

    assert outcome.returncode == 0, outcome.stderr
    folder = Path(outcome.stdout.split()[-1])
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found - {".gitattributes", "README.md"} == {
        "shards/train-00000-of-00002.parquet",
        "shards/train-00001-of-00002.parquet",
    }


FAULTS = {
    "no such repository": ("hf://org/boxen", "no public dataset of this name"),
    "no such revision": ("hf://org/two@v9", "has no revision v9; it has main, v1"),
    "no such commit": (f"hf://org/two@{'0' * 40}", "has no revision 000000"),
    "no such configuration": ("hf://org/two:shard", "did you mean hf://org/two:shards?"),
    "no such file": ("hf://org/two/en/first.json", "did you mean en/first.jsonl?"),
    "not a location": ("hf://org/two/x/../../y", "leaves the repository"),
    "another scheme": ("s3://org/two", "only hf:// and ms:// are read"),
    "not a name": ("hf://org/a--b", "is no name of a repository"),
    "a model's weights are missing": ("org/words", "has no weights as transformers loads them"),
    "no such model": ("org/no-model", "no public model of this name"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_message_and_exit_code_2(hub: Served, fault: str) -> None:
    target, expected = FAULTS[fault]
    repo = hub.state.repo("dataset", "org/two")
    repo.tags["v1"] = configured(repo, "main")
    hub.state.repo("model", "org/words").commit({"README.md": b"", "model.gguf": b"GGUF"}, "main")

    outcome = hub.user.run("fetch", target)

    assert outcome.returncode == 2
    assert expected in outcome.stderr
    [message] = [line for line in outcome.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in outcome.stderr
    assert message
