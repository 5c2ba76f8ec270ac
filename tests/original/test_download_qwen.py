"""The model's download, as a script that a user runs, against both stand-in hubs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import forked
from tests.data.hubs.conftest import Served, hub, modelscope  # noqa: F401 - fixtures
from training.download_qwen import MODEL

SCRIPT = Path(__file__).resolve().parents[2] / "training/download_qwen.py"
WEIGHTS = bytes(range(256)) * 40


def publish(served: Served, branch: str) -> str:
    files = {"README.md": b"# Qwen", "config.json": b"{}", "tokenizer.json": b"{}",
             "model-00001-of-00002.safetensors": WEIGHTS, "model-00002-of-00002.safetensors": b"2",
             "model.safetensors.index.json": b"{}", "figures/1.png": b"PNG"}  # fmt: skip
    return served.state.repo("model", MODEL).commit(files, branch)


def download(served: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run(
        forked.script(SCRIPT),
        *arguments,
        folder=served.user.home,
        environment=served.user.environment,
    )


@pytest.mark.long
@pytest.mark.parametrize("name", ["hub", "modelscope"])
def test_the_model_lies_in_its_folder_and_a_broken_download_goes_on(
    name: str, request: pytest.FixtureRequest
) -> None:
    served: Served = request.getfixturevalue(name)
    choice = "huggingface" if name == "hub" else "modelscope"
    commit = publish(served, "main" if name == "hub" else "master")
    folder = served.user.home / "models/Qwen2.5-7B-Instruct-1M"
    lost = "model-00002-of-00002.safetensors"

    first = download(served, "--hub", choice)
    (folder / lost).unlink()
    served.state.asked.clear()
    second = download(served, "--hub", choice)

    for outcome in (first, second):
        assert outcome.returncode == 0, outcome.stderr
        assert f"{MODEL}@{commit}: 5 files, 10.2 kB, in models/Qwen2.5-7B" in outcome.stdout
        assert f"--model {folder}" in outcome.stdout
    assert (folder / "model-00001-of-00002.safetensors").read_bytes() == WEIGHTS
    assert not (folder / "figures").exists()
    again = [asked.path for asked in served.state.asked if asked.method == "GET"]
    assert any(lost in path for path in again)
    assert not any("00001-of" in path for path in again)


def test_a_damaged_file_is_downloaded_again(hub: Served) -> None:  # noqa: F811
    publish(hub, "main")
    folder = hub.user.home / "models/Qwen2.5-7B-Instruct-1M"
    assert download(hub).returncode == 0
    weights = folder / "model-00001-of-00002.safetensors"
    sums = (folder / "SHA256SUMS").read_text()
    assert weights.name in sums
    # As long as before, so that its size says nothing.
    weights.write_bytes(bytes(len(WEIGHTS)))
    again = download(hub)
    assert again.returncode == 0, again.stderr
    assert f"{weights.name} is damaged; downloading it again" in again.stderr
    assert weights.read_bytes() == WEIGHTS
    assert (folder / "SHA256SUMS").read_text() == sums


@pytest.mark.parametrize("name", ["hub", "modelscope"])
def test_a_file_that_was_cut_is_downloaded_again(name: str, request: pytest.FixtureRequest) -> None:
    served: Served = request.getfixturevalue(name)
    choice = ("--hub", "huggingface" if name == "hub" else "modelscope")
    publish(served, "main" if name == "hub" else "master")
    folder = served.user.home / "models/Qwen2.5-7B-Instruct-1M"
    assert download(served, *choice).returncode == 0
    weights = folder / "model-00001-of-00002.safetensors"
    os.truncate(weights, 100)
    # A sum file that is no longer one says nothing of the others.
    (folder / "SHA256SUMS").write_bytes(b"" if name == "hub" else b"\xff\xfe")
    again = download(served, *choice)
    assert again.returncode == 0, again.stderr
    assert weights.read_bytes() == WEIGHTS
    assert weights.name in (folder / "SHA256SUMS").read_text()


def test_a_mirror_is_asked_in_place_of_the_hub(hub: Served) -> None:  # noqa: F811
    outcome = download(hub, "--mirror", "http://127.0.0.1:9")
    assert outcome.returncode == 2
    assert "127.0.0.1:9" in outcome.stderr


def test_a_model_that_is_not_there_is_a_message_and_exit_code_2(
    hub: Served,  # noqa: F811
) -> None:
    outcome = download(hub, "--folder", "somewhere")
    assert outcome.returncode == 2
    assert f"error: model hf://{MODEL}: Hugging Face has no public model" in outcome.stderr
    assert not (hub.user.home / "somewhere").exists()
