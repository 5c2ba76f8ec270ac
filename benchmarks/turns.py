"""Run Loracle and a peer in turns, and write down what came out.

A peer is a process that computes only between a command and its answer (peers/channel.py), so the
two sides never share the cores. Every figure worth quoting is a ratio within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from header import ROOT, Start, adopt_orphans, header

RESULTS = ROOT / "benchmarks" / "results"
PEER_PYTHON = Path(
    os.environ.get("LORACLE_PEER_PYTHON", ROOT / ".venv-peers" / "bin" / "python")
)  # fmt: skip

_SHOWN_LINES = 15

# Every benchmark imports this module before it works.
adopt_orphans()
_STARTED = Start.now()


class UnequalSidesError(RuntimeError):
    """The two sides did not do the same work: their ratio would say nothing."""


class Peer:
    """A peer process. `ask` sends one command and waits for its answer."""

    def __init__(self, script: str, *arguments: object) -> None:
        command = [PEER_PYTHON, ROOT / "benchmarks" / "peers" / script, *arguments]
        # Told only where the peer fails: progress bars and warnings otherwise.
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
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
            status = self._process.wait()
            self._said.seek(0)
            last = "".join(self._said.readlines()[-_SHOWN_LINES:])
            raise RuntimeError(f"the peer ended with status {status}; its last words:\n{last}")
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


def add_dtype(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """--dtype, the precision of both sides; auto is what the processor multiplies natively."""
    parser.add_argument(
        "--dtype",
        default=default,
        choices=["auto", "float32", "bfloat16"],
        help=f"of both sides; auto: what the processor multiplies natively (default: {default})",
    )


def precision(dtype: str) -> str:
    """The name of the precision that --dtype asks for on this processor."""
    import torch

    from loracle.model.base import chosen_dtype

    return str(chosen_dtype(dtype, torch.device("cpu"))).removeprefix("torch.")


def ratio(peer_seconds: list[float], our_seconds: list[float]) -> dict[str, Any]:
    """Turn by turn peer over ours, and the median."""
    turns = [peer / ours for peer, ours in zip(peer_seconds, our_seconds, strict=True)]
    return {
        "median": round(statistics.median(turns), 2),
        "turns": [round(turn, 2) for turn in turns],
        "peer_seconds": [round(s, 2) for s in peer_seconds],
        "our_seconds": [round(s, 2) for s in our_seconds],
    }


def over_floor(our_seconds: list[float], floor_seconds: list[float]) -> dict[str, Any]:
    """Turn by turn our time over that of the bare matrix products, and the median."""
    turns = [ours / floor for ours, floor in zip(our_seconds, floor_seconds, strict=True)]
    return {
        "median": round(statistics.median(turns), 2),
        "turns": [round(turn, 2) for turn in turns],
        "floor_seconds": [round(s, 2) for s in floor_seconds],
    }


def write_result(
    name: str | None, benchmark: str, figures: dict[str, Any], dtype: str = "none"
) -> None:
    """Print the figures, and write them with what they were measured on.

    dtype: the precision of both sides; none if nothing was multiplied.
    """
    result = {**header(benchmark, dtype, _STARTED), **figures}
    text = json.dumps(result, indent=2)
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name or benchmark}.json").write_text(text + "\n")
