"""Run Loracle and a peer in turns, and write down what came out.

A peer is a process that computes only between a command and its answer (peers/channel.py), so the
two sides never share the cores. Every figure worth quoting is a ratio within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEER_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


class Peer:
    """A peer process. `ask` sends one command and waits for its answer."""

    def __init__(self, script: str, *arguments: object) -> None:
        command = [PEER_PYTHON, ROOT / "benchmarks" / "peers" / script, *arguments]
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.ready = self._read()

    def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """With --name, the result file's."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--name", help="of the file under benchmarks/results, without .json")
    return parser


def ratio(peer_seconds: list[float], our_seconds: list[float]) -> dict[str, Any]:
    """Turn by turn peer over ours, and the median."""
    turns = [peer / ours for peer, ours in zip(peer_seconds, our_seconds, strict=True)]
    return {
        "median": round(statistics.median(turns), 2),
        "turns": [round(turn, 2) for turn in turns],
        "peer_seconds": [round(s, 2) for s in peer_seconds],
        "our_seconds": [round(s, 2) for s in our_seconds],
    }


def write_result(name: str | None, benchmark: str, figures: dict[str, Any]) -> None:
    """Print the figures, and write them with what they were measured on."""
    packages = {package: version(package) for package in ("torch", "transformers", "peft", "numpy")}
    result = {
        "benchmark": benchmark,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "packages": packages,
        **figures,
    }
    text = json.dumps(result, indent=2)
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name or benchmark}.json").write_text(text + "\n")
