"""Canaries: passwords and access tokens put everywhere, and found nowhere afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loracle import cli
from loracle.errors import PlanError
from loracle.plan import load_plan
from loracle.safety.secrecy import without_secrets
from tests.small_run import SETTINGS, make_world

CANARIES = (
    "hf_CanaryCanaryCanary123",
    "canary-password-1",
    "canary-password-2",
    "canary-api-key-3",
    "canary-option-4",
)
VARIABLES = {
    "HF_TOKEN": CANARIES[0],
    "MLFLOW_TRACKING_URI": f"http://user:{CANARIES[1]}@localhost:1/x",
    "HTTPS_PROXY": f"http://user:{CANARIES[2]}@localhost:1",
    "SOME_API_KEY": CANARIES[3],
}


class LeakyView:
    """A client that puts what it knows into its error, as some do."""

    name = "leaky"

    def hear(self, kind: str, fields: object) -> None:
        raise RuntimeError(" ".join(VARIABLES.values()))

    def close(self) -> None:
        """Nothing is open."""


def test_no_secret_reaches_a_log_a_record_a_page_or_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(tmp_path / "world")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("loracle.experiment.run.listen", lambda *_: [LeakyView()])

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot reach {VARIABLES['MLFLOW_TRACKING_URI']}?token={CANARIES[4]}")

    monkeypatch.setattr("loracle.experiment.attempt.run_trial", failing)
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    files = [str(world.root / name) for name in ("a.jsonl", "b.jsonl")]
    command = ["run", *files, "--eval", str(world.root / "test.jsonl"), "--out", str(world.run)]
    command += ["--model", str(world.model), *settings]
    monkeypatch.setattr(sys, "argv", ["loracle", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    shown = capsys.readouterr()
    for canary in CANARIES:
        assert canary not in shown.out
        assert canary not in shown.err
        for path in world.run.rglob("*"):
            if path.is_file():
                assert canary.encode() not in path.read_bytes(), path
    log = (world.run / "pipeline.log").read_text()
    assert "leaky failed" in log
    assert "[hidden]" in log


def test_a_plan_with_a_secret_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    files = [tmp_path / "a.jsonl"]
    address = f"https://me:{CANARIES[1]}@host/model"
    refused = []
    for override in (f"model.name={address}", f"model.chat_template_kwargs.from={address}"):
        with pytest.raises(PlanError) as caught:
            load_plan(candidates=files, evaluations=files, overrides=[override])
        refused.append(str(caught.value))
        assert CANARIES[1] not in refused[-1]
    assert "only hf:// and ms:// addresses are supported" in refused[0]
    assert "model.chat_template_kwargs.from: found" in refused[1]
    assert "holds a password or an access token" in refused[1]


@pytest.mark.parametrize(
    "text",
    ["hf://gpt2@main", "hf://org/name:config@1.0", "say user@host", "token: a lot of words"],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text
