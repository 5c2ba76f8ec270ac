"""Work by processes beside this one: in order, without torch, and with none of them left behind."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loracle.data.reading.pooled import read_block
from loracle.data.workers import ALONE, Processes, num_cores

LOADED = "sorted({'torch', 'transformers', 'datasets'} & {*__import__('sys').modules})"
PID = "__import__('os').getpid()"


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pids: list[int]) -> bool:
    until = time.monotonic() + 60
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(is_running, pids))


def test_results_come_in_the_order_of_the_tasks() -> None:
    with Processes(2) as workers:
        assert list(workers.map(math.sqrt, range(50))) == [*map(math.sqrt, range(50))]
        assert workers.begin(math.sqrt, 9)() == 3
    assert list(ALONE.map(math.sqrt, [4])) == [2]


def test_an_error_in_a_process_is_raised_here() -> None:
    with Processes(2) as workers, pytest.raises(ValueError, match="math domain error"):
        list(workers.map(math.sqrt, [1, -1, 4]))


def test_a_process_that_was_killed_costs_no_result() -> None:
    with Processes(2) as workers:
        [pid, *_] = {*workers.map(eval, [PID] * 8)}
        os.kill(pid, 9)
        assert list(workers.map(math.sqrt, range(20))) == [*map(math.sqrt, range(20))]


ALONE_PROGRAM = f"""
import os
from loracle.data.workers import Processes
with Processes(1) as workers:
    tasks = [{PID!r}, "__import__({read_block.__module__!r})", {LOADED!r}]
    pid, _, loaded = workers.map(eval, tasks)
print(pid != os.getpid(), loaded)
"""


def test_the_processes_load_no_torch() -> None:
    # In a program of its own: what a process cannot do is done in the one that asked.
    done = subprocess.run(
        [sys.executable, "-c", ALONE_PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True []\n"


def test_no_process_is_left_when_they_are_closed_and_work_goes_on_here() -> None:
    with Processes(2) as workers:
        pids = [*{*workers.map(eval, [PID] * 8)}]
    assert wait_until_gone(pids)
    assert list(workers.map(math.sqrt, [16])) == [4]


PARENT = """
import time
from loracle.data.workers import Processes
workers = Processes(2)
print(*{*workers.map(eval, ["__import__('os').getpid()"] * 8)}, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("number", [2, 9])
def test_no_process_outlives_a_parent_that_is_interrupted_or_killed(number: int) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    pids = [int(part) for part in parent.stdout.readline().split()]
    assert pids
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    assert wait_until_gone(pids)


def test_a_program_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import math\nfrom loracle.data.workers import Processes\nprint('once')\n"
        "with Processes(2) as workers:\n    print(list(workers.map(math.sqrt, [1, 4])))\n"
    )
    found = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert found.stdout.split("\n") == ["once", "[1.0, 2.0]", ""]


def test_there_is_a_core() -> None:
    assert num_cores() >= 1
