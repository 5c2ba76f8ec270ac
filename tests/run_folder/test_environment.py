from __future__ import annotations

import json

import pytest

from loracle.run_folder import environment as module
from loracle.run_folder.environment import environment
from loracle.safety.secrecy import arguments_without_secrets


def test_the_environment_names_versions_and_is_json() -> None:
    record = environment()
    assert record["packages"]["loracle"] == module._version("loracle")
    assert record["packages"]["torch"] is not None
    assert record["num_cpus"] >= 1
    assert json.loads(json.dumps(record)) == record


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert module._version("surely-no-such-package") is None


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("--set=model.token=abc", "--set=model.token=[hidden]"),
        ("HF_TOKEN=abc", "HF_TOKEN=[hidden]"),
        ("model.api_key=abc", "model.api_key=[hidden]"),
        ("hf_AbCdEfGhIjKlMnOpQrStUv", "[hidden]"),
        ("https://me:secret@host/x", "https://[hidden]@host/x"),
        ("generation.max_new_tokens=40", "generation.max_new_tokens=40"),
        ("training.max_tokens=1000", "training.max_tokens=1000"),
        ("data/token.jsonl", "data/token.jsonl"),
    ],
)
def test_secrets_on_the_command_line_are_not_recorded(argument: str, kept: str) -> None:
    assert arguments_without_secrets(["loracle", argument, "b"]) == ["loracle", kept, "b"]


def test_the_value_after_a_secret_option_is_not_recorded() -> None:
    kept = arguments_without_secrets(["--hub-token", "abc", "x"])
    assert kept == ["--hub-token", "[hidden]", "x"]
