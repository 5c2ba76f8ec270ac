"""A run that is stopped at any moment and resumed equals one that never was: byte for byte.

Real child processes, real signals. The default suite has a kill of every kind; --slow has every
signal at every moment, and more at random ones.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loracle.files import UNFINISHED_PREFIX, cache_folder

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKPOINT_EVERY = 2
SETTINGS = {
    "training.epochs": 2,
    "training.batch_size": 4,
    "training.learning_rate": 0.01,
    "training.micro_batch_tokens": 200,
    "training.checkpoint_every": CHECKPOINT_EVERY,
    "lora.dropout": 0.2,
    "generation.max_new_tokens": 6,
    "generation.batch_size": 4,
}
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
MOMENTS = [
    "loading",
    "counting what layers keep",
    "first step",
    "mid-step",
    "a checkpoint is written",
    "a checkpoint was written",
    "between epochs",
    "the adapter is saved",
    "the training is recorded",
    "checkpoints are removed",
    "answering",
    "predictions are written",
    "scoring",
    "report writing",
]
SHORT = [
    ("mid-step", signal.SIGKILL),
    ("a checkpoint is written", signal.SIGKILL),
    ("predictions are written", signal.SIGKILL),
    ("mid-step", signal.SIGTERM),
    ("answering", signal.SIGINT),
]


class Ended(NamedTuple):
    """How a child ended: its exit code, negative for a signal that it did not survive."""

    code: int
    left_running: bool


def cache_with_kernels(folder: Path) -> Path:
    """A cache folder of a test's own, in which nothing has to be compiled."""
    folder.mkdir(parents=True)
    kernels = cache_folder() / "native"
    kernels.mkdir(parents=True, exist_ok=True)
    (folder / "native").symlink_to(kernels)
    return folder


class Children:
    """Runs `loracle` in child processes, through killing.py."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, cache_with_kernels(folder / "cache")
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.experiment.killing"],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "LORACLE_CACHE": str(self.cache)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        out: str,
        number: int = 0,
        *,
        moment: str | None = None,
        delay: float | None = None,
        log: str | None = None,
        beat_seconds: float | None = None,
    ) -> Ended:
        """Run the experiment into the folder or URL `out`, or resume it there.

        log: the output's file, without its ending; None: as `out`.
        """
        settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
        asked = {
            "arguments": [
                *("run", "a.jsonl", "b.jsonl", "--eval", "test.jsonl", "--model", "model"),
                *("--out", out, *settings),
            ],
            "folder": str(self.folder),
            "log": str(self.folder / f"{log or out}.log"),
            "moment": moment,
            "delay": delay,
            "signal": number,
            "beat_seconds": beat_seconds,
        }
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps(asked) + "\n")
        self._program.stdin.flush()
        return Ended(**json.loads(self._program.stdout.readline()))

    def shown(self, out: str) -> str:
        return (self.folder / f"{out}.log").read_text()

    def close(self) -> None:
        assert self._program.stdin is not None
        self._program.stdin.close()
        self._program.wait(60)


def made(root: Path) -> dict[str, Any]:
    """What a run made, by file: bytes, or values without times."""
    found: dict[str, Any] = {"results.json": results_of(root)}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if any(part in name for part in ("/adapter/", "/predictions/", "/scores/")):
            found[name] = path.read_bytes()
        elif path.name == "steps.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{**row, "seconds": None} for row in rows]
    return found


def results_of(root: Path) -> Any:
    def without_times(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: without_times(inner)
                for key, inner in value.items()
                if key not in ("run", "created") and not key.endswith("seconds")
            }
        return [without_times(inner) for inner in value] if isinstance(value, list) else value

    return without_times(json.loads((root / "results.json").read_text()))


def num_repeated_steps(root: Path) -> dict[str, int]:
    """By trial, how many steps were done more than once."""
    events = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    done = Counter((e["trial"], e["step"]) for e in events if e["event"] == "step")
    repeated: Counter[str] = Counter()
    for (trial, _), times in done.items():
        repeated[trial] += times - 1
    return dict(repeated)


def require_same(children: Children, out: str, undisturbed: dict[str, Any]) -> None:
    root = children.folder / out
    ended = children.run(out)
    assert ended == Ended(0, False), children.shown(out)
    found = made(root)
    assert found.keys() == undisturbed.keys()
    assert [name for name in found if found[name] != undisturbed[name]] == []
    assert not list(root.rglob(f"{UNFINISHED_PREFIX}*"))
    assert not list(root.rglob("checkpoint"))
    assert "Traceback" not in children.shown(out)


def stop_and_resume(
    children: Children, undisturbed: dict[str, Any], moment: str, number: signal.Signals
) -> None:
    out = f"{moment} {number.name}".replace(" ", "-")
    ended = children.run(out, number, moment=moment)
    assert ended == Ended(CODES[number], False), children.shown(out)
    require_same(children, out, undisturbed)
    most = CHECKPOINT_EVERY if number == signal.SIGKILL else 0
    assert all(times <= most for times in num_repeated_steps(children.folder / out).values())


@pytest.mark.long
@pytest.mark.parametrize(("moment", "number"), SHORT)
def test_a_run_stopped_and_resumed_equals_an_undisturbed_one(children, undisturbed, moment, number):
    stop_and_resume(children, undisturbed, moment, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_any_signal_at_any_moment_loses_nothing(children, undisturbed, moment, number):
    if (moment, number) not in SHORT:
        stop_and_resume(children, undisturbed, moment, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("seed", range(22))
def test_signals_at_random_times_lose_nothing(children, undisturbed, number, seed):
    generator = random.Random(f"{number} {seed}")
    out = f"random-{number}-{seed}"
    while True:
        ended = children.run(out, number, delay=generator.uniform(0.1, 4.0))
        assert ended in (Ended(CODES[number], False), Ended(0, False)), children.shown(out)
        if ended.code == 0 or generator.random() < 0.5:
            break
    require_same(children, out, undisturbed)
