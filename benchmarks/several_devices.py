"""Eight trials on two workers of one core each, against one process of one core.

    .venv/bin/python benchmarks/several_devices.py ROWS.json QUESTIONS.json [--rounds 1]

ROWS.json: rows that share passages, as XQuAD's. Both sides are whole runs of `loracle run`, in
turns, on the embedded model: their loading, their data check and their report count. Every
adapter and every answer of the two is compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from turns import add_dtype, argument_parser, precision, ratio, write_result

NUM_TRIALS = 8


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--steps", type=int, default=4, help="for every one of the eight trainings")
    parser.add_argument("--questions", type=int, default=24, help="that each adapter answers")
    parser.add_argument("--rounds", type=int, default=1, help="turns of both sides")
    parser.add_argument("--devices", type=int, default=2)
    add_dtype(parser)
    arguments = parser.parse_args()
    alone: list[float] = []
    shared: list[float] = []
    differing = 0
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            plan = plan_file(folder, arguments)
            alone.append(run(plan, folder / "alone", 1))
            shared.append(run(plan, folder / "shared", arguments.devices))
            differing += num_differing(folder / "alone", folder / "shared")
        print(f"round {number}: {alone[-1]:.1f} s and {shared[-1]:.1f} s")
    write_result(
        arguments.name,
        "several_devices",
        {
            "rows_file": arguments.rows.name,
            "trials": NUM_TRIALS,
            "steps": arguments.steps,
            "devices": arguments.devices,
            "threads_each": 1,
            "alone_over_shared": ratio(alone, shared),
            "shared_over_alone": [round(s / a, 3) for a, s in zip(alone, shared, strict=True)],
            "differing_files": differing,
        },
        precision(arguments.dtype),
    )


def plan_file(folder: Path, arguments: Any) -> Path:
    """A plan of one candidate and eight seeds: eight trials of equal length."""
    questions = json.loads(arguments.evaluation.read_text())[: arguments.questions]
    evaluation = folder / "evaluation.json"
    evaluation.write_text(json.dumps(questions))
    plan = {
        "candidates": [str(arguments.rows.resolve())],
        "evaluation": [str(evaluation)],
        "model": {"name": "embedded", "device": "cpu", "dtype": arguments.dtype},
        "seeds": list(range(NUM_TRIALS)),
        "training": {"max_steps": arguments.steps, "batch_size": 64},
        "generation": {"drafts": "references"},
    }
    path = folder / "plan.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(plan))
    return path


def run(plan: Path, out: Path, num_devices: int) -> float:
    """Seconds of one whole run, one core a worker."""
    command = [
        sys.executable, "-m", "loracle", "run", "--plan", str(plan), "--out", str(out), "--quiet",
        "--devices", str(num_devices), "--set", "ray.cpus_per_trial=1",
    ]  # fmt: skip
    began = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def num_differing(one: Path, other: Path) -> int:
    """How many adapters and prediction files differ by a byte, or are missing on one side."""
    names = {
        path.relative_to(root)
        for root in (one, other)
        for pattern in ("*.safetensors", "predictions*")
        for path in (root / "trials").rglob(pattern)
    }
    return sum(digest(one / name) != digest(other / name) for name in names)


def digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


if __name__ == "__main__":
    main()
