"""Work by processes beside this one: in order, without torch, and with none of them left behind."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import loracle
from loracle.data import workers as workers_module
from loracle.data.audit.facts import packed_facts
from loracle.data.reading import dataset, pooled
from loracle.data.reading.pooled import read_block
from loracle.data.reading.text_files import Line
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


def test_the_processes_do_the_work_and_not_the_one_that_asks(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Loracle may have been found through a folder that is no longer the current one.
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    with Processes(2) as workers:
        pids = [*workers.map(eval, [PID] * 40)]
        begun = workers.begin(eval, PID)()
    assert os.getpid() not in {*pids, begun}
    assert caplog.records == []


def test_the_blocks_of_a_large_file_are_read_by_the_processes(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.jsonl"
    rows = [{"question": f"What is {n}?", "answer": str(n)} for n in range(3000)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setattr(dataset, "MIN_STORED_BYTES", 0)
    monkeypatch.setattr(pooled, "BLOCK_BYTES", 10_000)
    here: list[int] = []
    monkeypatch.setattr(pooled, "_lines", spied(pooled._lines, here))
    with Processes(2) as workers:
        read = dataset.read_dataset(path, workers=workers, digest=packed_facts)
    assert len(read.examples) == 3000
    # The first block tells the form, and is read before there are several readers.
    assert len(here) == 1
    assert caplog.records == []


def spied(function: Callable[[pooled.Block], Iterator[Line]], calls: list[int]) -> Any:
    def spy(block: pooled.Block) -> Iterator[Line]:
        calls.append(block.line)
        return function(block)

    return spy


def test_a_process_that_was_killed_costs_no_result_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Processes(2) as workers:
        [pid, *_] = {*workers.map(eval, [PID] * 8)}
        assert pid != os.getpid()
        os.kill(pid, 9)
        assert list(workers.map(math.sqrt, range(20))) == [*map(math.sqrt, range(20))]
        # Long enough for every process to have been asked.
        list(workers.map(time.sleep, [0.05] * 20))
    [record] = caplog.records
    assert "data check was ended by SIGKILL. Its work is done by the main" in record.getMessage()


def test_a_process_that_cannot_begin_is_told_with_its_last_words(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "_START", "raise SystemExit('no room')")
    with Processes(1) as workers:
        assert list(workers.map(math.sqrt, [4, 9])) == [2, 3]
    assert "data check ended with status 1: no room. Its" in caplog.records[0].getMessage()


def test_an_interpreter_that_cannot_be_started_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with Processes(1) as workers:
        assert list(workers.map(math.sqrt, [4, 9])) == [2, 3]
    [record] = caplog.records
    assert "cannot be started: [Errno 2] No such file or directory" in record.getMessage()


def test_another_loracle_is_not_worked_with(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loracle, "__file__", "/elsewhere/loracle/__init__.py")
    with Processes(1) as workers:
        assert list(workers.map(math.sqrt, [4])) == [2]
    assert "found another Loracle, " in caplog.records[0].getMessage()


def test_a_process_that_did_a_single_piece_ends_with_it() -> None:
    with Processes(1) as workers:
        [first] = workers.map(eval, [PID])
        assert workers.begin(eval, PID)() == first
        [second] = workers.map(eval, [PID])
        assert second not in (first, os.getpid())
        assert wait_until_gone([first])


def test_a_result_that_cannot_be_sent_is_an_error_and_ends_no_process() -> None:
    with Processes(1) as workers:
        with pytest.raises(TypeError, match="module cannot be packed"):
            list(workers.map(eval, ["__import__('math')"]))
        assert list(workers.map(eval, [PID])) != [os.getpid()]


def test_what_a_process_says_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with Processes(1) as workers:
        list(workers.map(eval, ["print('seen')", "__import__('sys').stdout.flush()"]))
    assert [record.getMessage() for record in caplog.records] == [
        "a process of the data check said: seen"
    ]


ALONE_PROGRAM = f"""
import os
from loracle.data.workers import Processes
with Processes(1) as workers:
    tasks = [{PID!r}, "__import__({read_block.__module__!r}).__name__", {LOADED!r}]
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
