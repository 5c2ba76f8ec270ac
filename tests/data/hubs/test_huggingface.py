"""The Hugging Face hub: its own client against a stand-in server, and then without any server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.data.hubs.conftest import GITATTRIBUTES, Served, boxes, configured, jsonl
from tests.data.hubs.served import TOKEN


@pytest.mark.long
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
    "hf://org/boxen": "Hugging Face has no public dataset with this name; check the name",
    "hf://org/two@v9": "has no revision v9; it has main, v1",
    f"hf://org/two@{'0' * 40}": "has no revision 000000",
    "hf://org/two:shard": "has no configuration shard; it has english, shards; did you mean "
    "hf://org/two:shards?",
    "hf://org/two/en/first.json": "has no file en/first.json; did you mean en/first.jsonl?",
    "hf://org/two/x/../../y": "leaves the repository; remove the ..",
    "s3://org/two": "only hf:// and ms:// addresses are supported",
    "hf://org/a--b": "is not a valid repository name",
    "hf://org/three": "has several configurations; name one, such as hf://org/three:de: de, fr",
    "hf://org/pictures": "no layout that the `datasets` library recognizes",
    "hf://org/script": "is produced by a script, script.py, which Loracle does not run; use the "
    "hub's own conversion, hf://org/script@refs/convert/parquet",
    "hf://org/bad-card": "no layout that the `datasets` library recognizes",
    "org/words": "has no weights in a format that transformers loads",
    "org/no-model": "Hugging Face has no public model with this name",
    ".": "is on this machine; name a plan",
}


def test_each_fault_is_one_message_with_what_to_do_and_exit_code_2(hub: Served) -> None:
    repo = hub.state.repo("dataset", "org/two")
    repo.tags["v1"] = configured(repo, "main")
    configs = "{config_name: de, data_files: a.jsonl}, {config_name: fr, data_files: b.jsonl}"
    three = f"---\nconfigs: [{configs}]\n---\n"
    others = {
        "org/three": {"README.md": three.encode(), "a.jsonl": jsonl(0, 1), "b.jsonl": jsonl(1, 2)},
        "org/pictures": {"a.xyz": b"?"},
        "org/script": {"script.py": b"raise SystemExit"},
        "org/bad-card": {"README.md": b"---\nconfigs: {a: [}\n---\n", "a.jsonl": jsonl(0, 1)},
    }
    for name, files in others.items():
        hub.state.repo("dataset", name).commit({**GITATTRIBUTES, **files}, "main")
    hub.state.repo("model", "org/words").commit({"README.md": b"", "model.gguf": b"GGUF"}, "main")

    outcome = hub.user.run("fetch", *FAULTS)

    assert outcome.returncode == 2
    assert "Traceback" not in outcome.stderr
    messages = errors_of(outcome)
    assert len(messages) == len(FAULTS), outcome.stderr
    for message, (target, expected) in zip(messages, FAULTS.items(), strict=True):
        assert expected in message, target


WEIGHTS = bytes(range(256)) * 40


def small_model(hub: Served, name: str, weights: bytes = WEIGHTS) -> str:
    files = {
        "config.json": b"{}",
        "model.safetensors": weights,
        "pytorch_model.bin": b"the same weights again",
        "model.gguf": b"and again",
        "original/params.json": b"{}",
        "modeling_own.py": b"raise SystemExit",
    }
    return hub.state.repo("model", name).commit({**GITATTRIBUTES, **files}, "main")


def fetched_files(outcome: subprocess.CompletedProcess[str]) -> dict[str, bytes]:
    folder = Path(outcome.stdout.split()[-1])
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def errors_of(outcome: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]


def test_of_a_model_only_what_is_loaded_is_fetched(hub: Served) -> None:
    small_model(hub, "org/small")
    outcome = hub.user.run("fetch", "org/small")
    assert outcome.returncode == 0, outcome.stderr
    assert set(fetched_files(outcome)) == {"config.json", "model.safetensors"}


def test_a_gated_repository_says_where_to_ask_and_opens_to_a_token(hub: Served) -> None:
    small_model(hub, "org/gated")
    hub.state.repo("model", "org/gated").gated = True

    without = hub.user.run("fetch", "org/gated")
    refused = hub.user.run("fetch", "org/gated", HF_TOKEN="of-someone-else")
    allowed = hub.user.run("fetch", "org/gated", HF_TOKEN=TOKEN)

    [message] = errors_of(without)
    assert without.returncode == 2
    assert f"is gated; accept its conditions at {hub.url}/org/gated, then set HF_TOKEN" in message
    [message] = errors_of(refused)
    assert refused.returncode == 2
    assert "the current token has no access; request access at" in message
    assert allowed.returncode == 0, allowed.stderr


def test_a_private_repository_is_asked_for_with_the_token_of_the_environment(hub: Served) -> None:
    boxes(hub.state.repo("dataset", "org/private"), "main")
    hub.state.repo("dataset", "org/private").private = True
    with_login = hub.user.home / "hf"
    with_login.mkdir()

    [unknown] = errors_of(hub.user.run("fetch", "hf://org/private"))
    [other] = errors_of(hub.user.run("fetch", "hf://org/private", HF_TOKEN="of-someone-else"))
    [expired] = errors_of(hub.user.run("fetch", "hf://org/private", HF_TOKEN="expired"))
    (with_login / "token").write_text(TOKEN)
    logged_in = hub.user.run("fetch", "hf://org/private")

    assert "if it is private, set HF_TOKEN or run `hf auth login`" in unknown
    assert "no dataset with this name that the current token may read" in other
    assert "rejected the token; renew HF_TOKEN" in expired
    assert logged_in.returncode == 0, logged_in.stderr


def test_a_token_never_follows_a_redirect_to_another_host(hub: Served) -> None:
    small_model(hub, "org/small")
    assert hub.user.run("fetch", "org/small", HF_TOKEN=TOKEN).returncode == 0
    elsewhere = [asked for asked in hub.state.asked if asked.path.startswith("/cdn/")]
    assert elsewhere
    assert all(asked.authorization is None for asked in elsewhere)
    assert any(asked.authorization for asked in hub.state.asked)


def test_a_renamed_repository_is_found_under_its_old_name(hub: Served) -> None:
    boxes(hub.state.repo("dataset", "org/boxes"), "main")
    hub.state.moved["org/crates"] = "org/boxes"
    outcome = hub.user.run("fetch", "hf://org/crates")
    assert outcome.returncode == 0, outcome.stderr
    assert fetched_files(outcome)["train.jsonl"] == jsonl(0, 12)


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub: Served) -> None:
    # The library writes in pieces of 10 MiB, and loses less than one of them.
    piece = 10 * 2**20
    weights = WEIGHTS * (2 * piece // len(WEIGHTS) + 2)
    small_model(hub, "org/small", weights)
    hub.state.drops["model.safetensors"] = [piece + 1000, piece + 10]

    outcome = hub.user.run("fetch", "org/small")

    assert outcome.returncode == 0, outcome.stderr
    assert fetched_files(outcome)["model.safetensors"] == weights
    ranges = [a.range for a in hub.state.asked if a.method == "GET" and "/cdn/" in a.path]
    assert ranges == [None, f"bytes={piece}-", f"bytes={2 * piece}-"]


@pytest.mark.long
def test_a_download_that_never_arrives_keeps_what_is_complete(hub: Served) -> None:
    small_model(hub, "org/small")
    hub.state.drops["model.safetensors"] = [0] * 6

    broken = hub.user.run("fetch", "org/small")
    again = hub.user.run("fetch", "org/small")

    [message] = errors_of(broken)
    assert broken.returncode == 2
    assert "the download of" in message
    assert "run the command again: complete files are kept" in message
    assert again.returncode == 0, again.stderr
    assert set(fetched_files(again)) == {"config.json", "model.safetensors"}
    config = [a for a in hub.state.asked if a.method == "GET" and a.path.endswith("/config.json")]
    assert len(config) == 1


def test_a_hub_that_is_out_of_order_is_named_with_its_answer(hub: Served) -> None:
    expected = {
        503: "Hugging Face answered 503 Service Unavailable; try again later",
        429: "too many requests",
        403: "requires a token for this",
    }
    for status, words in expected.items():
        hub.state.failing = status
        outcome = hub.user.run("fetch", "org/small")
        [message] = errors_of(outcome)
        assert outcome.returncode == 2
        assert words in message


def test_without_network_what_was_never_fetched_is_an_error_with_a_way_out(hub: Served) -> None:
    nowhere = "http://127.0.0.1:9"
    outcome = hub.user.run("fetch", "org/small", HF_ENDPOINT=nowhere)
    [message] = errors_of(outcome)
    assert outcome.returncode == 2
    assert f"{nowhere} cannot be reached" in message
    assert "HF_ENDPOINT" in message


def test_without_network_what_was_fetched_is_used_and_that_is_said(hub: Served) -> None:
    boxes(hub.state.repo("dataset", "org/boxes"), "main")
    online = hub.user.run("fetch", "hf://org/boxes")
    outcome = hub.user.run("fetch", "hf://org/boxes", HF_ENDPOINT="http://127.0.0.1:9")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == online.stdout
    assert "Could not reach the Hub" in outcome.stderr


def test_offline_what_was_never_fetched_is_named_without_a_socket(hub: Served) -> None:
    configured(hub.state.repo("dataset", "org/two"), "main")
    hub.user.run("fetch", "hf://org/two:english")
    targets = ("hf://org/two:shards", "hf://org/boxes", "hf://org/two@v2", "org/small")

    outcome = hub.user.run("fetch", *targets, sockets=False, HF_HUB_OFFLINE="1")

    assert outcome.returncode == 2
    shards, dataset, revision, model = errors_of(outcome)
    for message in (shards, dataset, revision, model):
        assert "offline (HF_HUB_OFFLINE is set)" in message
        assert "once with network" in message
    assert "has no shards/train-00000-of-00002.parquet, shards/train-00001" in shards
    assert "run `loracle fetch hf://org/boxes`" in dataset
    assert "has no revision v2" in revision
    assert "run `loracle fetch org/small`" in model


def test_a_commit_that_was_fetched_is_not_asked_for_again(hub: Served) -> None:
    commit = boxes(hub.state.repo("dataset", "org/boxes"), "main")
    hub.user.run("fetch", "hf://org/boxes")
    num_asked = len(hub.state.asked)
    assert hub.user.run("fetch", f"hf://org/boxes@{commit}").returncode == 0
    assert len(hub.state.asked) == num_asked


def test_files_of_a_dataset_are_named_by_path_pattern_or_folder(hub: Served) -> None:
    configured(hub.state.repo("dataset", "org/two"), "main")
    taken = {"en/second.jsonl": 1, "shards/*00000*": 1, "en": 2}
    for pattern, expected in taken.items():
        outcome = hub.user.run("fetch", f"hf://org/two@main/{pattern}")
        assert f"  {expected} file" in outcome.stdout, outcome.stderr
