"""Every write of a run folder fails once: a named error or a clean recovery, and the next run has
the same numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.small_run import make_world

HERE = Path(__file__).parent
# A prime, so that the sample meets all kinds of calls.
SAMPLE_STEP = 23


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler, to let the system's own calls fail")
    library = tmp_path_factory.mktemp("shim") / "failing_writes.so"
    source = str(HERE / "failing_writes.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), source, "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return library


def faults(shim: Path, root: Path, step: int, *error: str) -> Any:
    # A layer or three: the files are the same.
    make_world(root, num_layers=1)
    environment = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.experiment.fault_child", str(root), str(step)]
    command += error
    found = subprocess.run(
        command,
        env=environment,
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.long
def test_a_sample_of_failing_writes_is_named_and_mended(shim: Path, tmp_path: Path) -> None:
    found = faults(shim, tmp_path / "world", SAMPLE_STEP)
    assert found["num_calls"] > 100
    assert sum(found["endings"].values()) >= 5
    assert found["problems"] == []


@pytest.mark.slow  # minutes each: every call that writes
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EACCES"])
def test_every_failing_write_is_named_and_mended(shim: Path, tmp_path: Path, error: str) -> None:
    found = faults(shim, tmp_path / "world", 1, error)
    assert found["problems"] == []
    assert sum(found["endings"].values()) == found["num_calls"] > 300
