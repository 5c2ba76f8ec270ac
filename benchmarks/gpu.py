"""Everything that only a GPU can say of Loracle: one call, under ten minutes, one JSON file.

    python benchmarks/gpu.py [--out FILE.json] [--seconds 570] [--only PART ...]
    python benchmarks/gpu.py --tiny           small sizes on a CPU, to see that the program works

It needs torch, transformers, peft and Loracle itself; what else is missing (triton, bitsandbytes)
is named in the file, the rest runs. Weights are random, made on the device in the shapes of
Qwen2.5-7B and -0.5B; rows are random tokens in the lengths of gpu_rows.json.

Every part is a process of its own with its own share of the time: a part that crashes, hangs or
spoils the device leaves its figures so far, its error, and the others as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("loracle", "torch", "transformers", "peft", "triton", "bitsandbytes", "liger-kernel")
_STARTING_SECONDS = 15
"""What has to be left when a part begins: it imports torch and makes a model first."""


class Part(NamedTuple):
    """seconds: the share of the whole time, which is 570 seconds unless said otherwise."""

    name: str
    seconds: float


# The first are the ones that the others stand on.
PARTS = (
    Part("correctness", 110),
    Part("training-0.5b", 60),
    Part("training-7b", 100),
    Part("answering-7b", 90),
    Part("fitting-7b", 80),
    Part("job-0.5b", 60),
    Part("kernels", 70),
)


def main() -> None:
    arguments = parsed_arguments()
    if arguments.tiny:
        # Before triton is imported: without a GPU its kernels are interpreted.
        os.environ.setdefault("TRITON_INTERPRET", "1")
    if arguments.part:
        measure_part(arguments.part, arguments.tiny, time.monotonic() + arguments.seconds)
        return
    result: dict[str, Any] = {
        "benchmark": "gpu",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "tiny": arguments.tiny,
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "packages": {name: installed(name) for name in PACKAGES},
        "parts": {},
    }
    deadline = time.monotonic() + arguments.seconds
    scale = arguments.seconds / sum(part.seconds for part in PARTS)
    for part in PARTS:
        if arguments.only and part.name not in arguments.only:
            continue
        result["parts"][part.name] = started(part, arguments, scale, deadline)
        write(arguments.out, result)
        print(f"{part.name}: {json.dumps(result['parts'][part.name])}", file=sys.stderr)
    print(json.dumps(result, indent=2))


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--seconds", type=float, help="of the whole; 570, an hour if tiny")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--only", nargs="*", choices=[part.name for part in PARTS])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (3600 if arguments.tiny else 570)
    return arguments


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


def started(
    part: Part, arguments: argparse.Namespace, scale: float, deadline: float
) -> dict[str, Any]:
    """Run a part in a process of its own, and read what it wrote until it ended or was ended."""
    seconds = min(part.seconds * scale, deadline - time.monotonic())
    if (seconds < _STARTING_SECONDS and not arguments.tiny) or seconds < 1:
        return {"status": "no time left"}
    command = [sys.executable, __file__, "--part", part.name, "--seconds", str(seconds)]
    command += ["--tiny"] if arguments.tiny else []
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    status = "done"
    try:
        # A case that hangs is ended a little after its time.
        output, errors = process.communicate(timeout=seconds * 1.1 + 5)
    except subprocess.TimeoutExpired:
        # With whatever it started, which would hold the card's memory.
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        status = "ended: out of time"
    if process.returncode and status == "done":
        status = f"failed with status {process.returncode}"
    found: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - began, 1)}
    if status != "done":
        found["errors"] = errors[-2000:]
    return {**found, "cases": dict(_lines(output))}


def _lines(output: str) -> Iterator[tuple[str, Any]]:
    for line in output.splitlines():
        if line.startswith('{"case": '):
            entry = json.loads(line)
            yield entry["case"], entry["found"]


def measure_part(name: str, is_tiny: bool, deadline: float) -> None:
    """In the part's own process: a line of JSON for every case."""
    import torch
    from gpu_parts.measuring import Bench

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not is_tiny:
        raise SystemExit("no CUDA device here; --tiny runs on a CPU")
    bench = Bench(device, is_tiny)
    say("device", torch.cuda.get_device_name() if device.type == "cuda" else "cpu")
    for case in cases_of(name)(bench):
        if time.monotonic() > deadline:
            say(case.name, {"skipped": "no time left"})
            continue
        try:
            say(case.name, case.measure())
        except Exception as error:  # noqa: BLE001
            # The next case has its own chance; what went wrong is in the file.
            say(case.name, {"error": f"{type(error).__name__}: {error}"[:1000]})


def say(case: str, found: Any) -> None:
    print(json.dumps({"case": case, "found": found}), flush=True)


def cases_of(name: str) -> Callable[[Any], Iterator[Any]]:
    from gpu_parts import answering, correctness, fitting, job, kernels, training

    return {
        "correctness": correctness.cases,
        "training-0.5b": lambda bench: training.cases(bench, "qwen2.5-0.5b"),
        "training-7b": lambda bench: training.cases(bench, "qwen2.5-7b"),
        "answering-7b": lambda bench: answering.cases(bench, "qwen2.5-7b"),
        "fitting-7b": lambda bench: fitting.cases(bench, "qwen2.5-7b"),
        "job-0.5b": lambda bench: job.cases(bench, "qwen2.5-0.5b"),
        "kernels": kernels.cases,
    }[name]


if __name__ == "__main__":
    main()
