"""benchmarks/gpu.py in small, on a CPU: every part gives its figures, and a part that cannot leaves
the others as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forked

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
PARTS = [
    "correctness",
    "training-0.5b",
    "training-7b",
    "answering-7b",
    "fitting-7b",
    "job-0.5b",
    "kernels",
]
# What a CPU has no backward for, and says so.
EXPECTED = ("FlexAttention does not support backward on CPU",)

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="--tiny is for a CPU")


def tiny(out: Path, *options: str, **environment: str) -> dict[str, Any]:
    command = [sys.executable, PROGRAM, "--tiny", "--out", out, *options]
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    written: dict[str, Any] = json.loads(out.read_text())
    assert json.loads(done.stdout) == written
    return written


def cases_of(part: str, folder: Path) -> dict[str, Any]:
    """What the process of a part writes, without the program that starts it."""
    arguments = ("--tiny", "--part", part)
    done = forked.run(forked.script(PROGRAM), *arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case": ')]
    return {line["case"]: line["found"] for line in lines}


def errors(cases: dict[str, Any]) -> dict[str, str]:
    found = {name: case["error"] for name, case in cases.items() if "error" in case}
    return {name: error for name, error in found.items() if not any(e in error for e in EXPECTED)}


@pytest.fixture(scope="module")
def correctness(tmp_path_factory) -> dict[str, Any]:
    return tiny(tmp_path_factory.mktemp("gpu") / "gpu.json", "--only", "correctness")


@pytest.mark.long
@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_the_interpreted_kernels_are_held_against_the_definition(correctness):
    cases = correctness["parts"]["correctness"]["cases"]
    assert max(cases["attention/triton/fp32/head64/window0"].values()) <= 1e-5
    assert cases["self-test/triton/fp32"]["passed"]
    answers = cases["answers/triton/fp32"]
    assert answers["same"] == answers["of"] > 0


@pytest.mark.long
def test_it_says_what_it_ran_on_and_what_is_missing(correctness):
    assert correctness["packages"]["torch"]
    assert "bitsandbytes" in correctness["packages"]
    assert correctness["tiny"] is True
    part = correctness["parts"]["correctness"]
    assert (part["status"], part["cases"]["device"]) == ("done", "cpu")
    assert not errors(part["cases"])


def test_all_ways_to_train_learn_the_same(tmp_path):
    cases = cases_of("training-7b", tmp_path)
    for words in ("sharing", "separate"):
        ways = {
            name.rpartition("/")[2]: case for name, case in cases.items() if f"/{words}/" in name
        }
        assert set(ways) == {"loracle", "peft_padded", "peft_packed"}
        losses = [case["loss"] for case in ways.values()]
        assert max(losses) - min(losses) <= 1e-3
        assert all(case["row_tokens_per_second"] > 0 for case in ways.values())
    shared, plain = cases["batch4/sharing/loracle"], cases["batch4/sharing/peft_packed"]
    assert shared["computed"] < 0.6 * plain["computed"]


def test_all_ways_to_answer_give_their_figures(tmp_path):
    cases = cases_of("answering-7b", tmp_path)
    assert not errors({name: c for name, c in cases.items() if isinstance(c, dict)})
    for words in ("sharing", "separate"):
        for way in ("loracle", "generate", "continuous_batching"):
            assert cases[f"{words}/{way}"]["rows_per_second"] > 0


@pytest.mark.slow
def test_every_part_gives_its_figures(tmp_path):
    result = tiny(tmp_path / "gpu.json")
    assert list(result["parts"]) == PARTS
    for name, part in result["parts"].items():
        assert part["status"] == "done", name
        assert not errors(part["cases"]), name
        assert len(part["cases"]) > 1
    assert result["parts"]["job-0.5b"]["cases"]["job"]["failures"] == 0


def test_a_part_that_crashes_leaves_its_error_and_the_next_part_runs(tmp_path):
    """As a kernel that spoils the device would: the process is gone."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('the driver is gone')\n")
    options = ("--only", "training-7b", "kernels")
    result = tiny(tmp_path / "gpu.json", *options, PYTHONPATH=str(tmp_path))
    assert list(result["parts"]) == ["training-7b", "kernels"]
    for part in result["parts"].values():
        assert part["status"] == "failed with status 1"
        assert "the driver is gone" in part["errors"]


def test_a_part_that_hangs_is_ended(tmp_path):
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(3600)\n")
    options = ("--only", "kernels", "--seconds", "20")
    result = tiny(tmp_path / "gpu.json", *options, PYTHONPATH=str(tmp_path))
    assert result["parts"]["kernels"]["status"] == "ended: out of time"


def test_without_time_nothing_begins(tmp_path):
    result = tiny(tmp_path / "gpu.json", "--only", "kernels", "--seconds", "0.001")
    assert result["parts"]["kernels"] == {"status": "no time left"}


def test_without_a_gpu_it_says_so(tmp_path):
    command = [sys.executable, str(PROGRAM), "--only", "kernels", "--out", str(tmp_path / "g.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    part = json.loads(done.stdout)["parts"]["kernels"]
    assert part["status"] == "failed with status 1"
    assert "no CUDA device here; --tiny runs on a CPU" in part["errors"]
