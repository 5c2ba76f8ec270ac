"""A run's workers may write into its folder, and nobody else's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loracle.errors import RunFolderError
from loracle.executors import leases
from loracle.executors.event_files import EventFile, EventTail
from loracle.executors.leases import EXIT_WITHOUT_LEASE, Leases, end_former_workers, workers_folder

WORKER = """
import sys, time
from pathlib import Path
from loracle.executors.leases import HeldLease
held = HeldLease(Path(sys.argv[1]), "w", lambda number: print("asked", number, flush=True))
print("holds", flush=True)
time.sleep(60)
"""


@pytest.fixture
def worker(tmp_path: Path):
    Leases(tmp_path).give("w")
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait()


def test_a_worker_of_an_earlier_driver_ends_before_the_next_one_begins(tmp_path, worker):
    end_former_workers(tmp_path)
    assert worker.wait(10) == EXIT_WITHOUT_LEASE
    assert not workers_folder(tmp_path).exists()


def test_a_worker_that_was_killed_is_not_waited_for(tmp_path, worker, monkeypatch):
    worker.kill()
    worker.wait()
    monkeypatch.setattr(leases.time, "sleep", lambda _: pytest.fail("waited for it"))
    assert Leases(tmp_path).take_back("w")


def test_a_worker_that_does_not_end_is_named(tmp_path, worker, monkeypatch):
    worker.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(leases, "_PATIENCE_SECONDS", 0.3)
    with pytest.raises(RunFolderError, match="is in use by the worker w of an earlier start"):
        end_former_workers(tmp_path)
    worker.send_signal(signal.SIGCONT)


def test_workers_are_asked_to_stop_by_the_signals_number(tmp_path, worker):
    Leases(tmp_path).ask_to_stop(signal.SIGTERM)
    assert worker.stdout.readline() == f"asked {int(signal.SIGTERM)}\n"


def test_a_process_without_a_lease_does_not_start(tmp_path):
    with pytest.raises(RunFolderError, match="this worker is not one of the run's"):
        leases.HeldLease(tmp_path, "stranger", lambda _: None)


def test_a_run_without_workers_has_nothing_to_end(tmp_path):
    end_former_workers(tmp_path)


def test_events_are_read_once_and_only_whole(tmp_path):
    path = tmp_path / "w.jsonl"
    tail = EventTail(path)
    assert list(tail.read()) == []
    written = EventFile(path)
    written.show("warning", {"message": "one"}, "")
    assert [event.fields["message"] for event in tail.read()] == ["one"]
    with path.open("ab") as file:
        file.write(b'{"event": "warning", "fie')
    assert list(tail.read()) == []
    with path.open("ab") as file:
        file.write(b'lds": {"message": "two"}}\n')
    assert [event.fields["message"] for event in tail.read()] == ["two"]
