"""The command line works with any standard streams, encodings and flags of Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loracle.run_folder import signals

ROWS = '{"prediction": "北京 · ≥ 5", "answers": ["北京"]}\n'


def started(
    arguments: list[str], flags: tuple[str, ...] = (), **settings: object
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **settings.pop("environment", {})}  # type: ignore[dict-item]
    command = [sys.executable, *flags, "-m", "loracle", *arguments]
    return subprocess.run(command, env=environment, check=False, **settings)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.jsonl"
    path.write_text(ROWS, encoding="utf-8")
    return path


# One interpreter for several command lines, in order: each runs in a fork of it, which has its
# streams as they were when it started.
SEVERAL = """
import json, os, sys
import loracle.cli, loracle.metrics.score_file

for arguments in json.loads(sys.argv[1]):
    if os.fork() == 0:
        sys.argv[1:] = arguments
        loracle.cli.main()
        sys.exit()
    sys.stdout.write(f"\\0{os.waitstatus_to_exitcode(os.wait()[1])}\\0")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_text_that_an_encoding_lacks_is_escaped(predictions: Path, encoding: str) -> None:
    command = ["score", str(predictions), "--language", "zh"]
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            SEVERAL,
            json.dumps([[*command, "--json"], command, [*command, "--help"]]),
        ],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
    )
    assert found.stderr == b""
    *texts, end = found.stdout.decode(encoding).split("\0")
    assert (texts[1::2], end) == (["0", "0", "0"], "")
    assert json.loads(texts[0])
    assert texts[2]
    assert texts[4]


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_streams_do_not_stop_a_command_or_reach_a_file(
    predictions: Path, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    rows = tmp_path / "rows.jsonl"

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    before: Callable[[], None] = close
    found = started(["score", str(predictions), "--per-row", str(rows)], preexec_fn=before)
    assert found.returncode == 0
    assert len(rows.read_text(encoding="utf-8").splitlines()) == 1
    assert json.loads(rows.read_text(encoding="utf-8"))["prediction"] == "北京 · ≥ 5"


def test_python_without_docstrings_is_refused_and_without_asserts_is_not(predictions: Path) -> None:
    refused = started(["score", str(predictions)], ("-OO",), capture_output=True)
    assert refused.returncode == 2
    assert b"-OO" in refused.stderr
    assert started(["score", str(predictions)], ("-O",), capture_output=True).returncode == 0


def stopped_by_hanging_up() -> None:
    with signals.held("the step"):
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.asked_signal() == signal.SIGHUP


def test_a_closed_terminal_stops_a_run_as_sigterm_does_unless_it_is_to_be_ignored() -> None:
    before = {number: signal.getsignal(number) for number in (1, 2, 15)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signals.install()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signals.install()
        with pytest.raises(signals.Stopped) as stopped:
            stopped_by_hanging_up()
        assert (stopped.value.code, stopped.value.at_once) == (129, False)
        # A process that is ending takes no further signal, so its cleaning up is not broken off.
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
