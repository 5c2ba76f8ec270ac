"""A run folder at a URL: what is copied, in which order, and who may work there."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from loracle.errors import MissingExtraError, RunFolderError, StorageError
from loracle.files import write_atomically, write_json
from loracle.run_folder import local_copies, remote, remote_lock
from loracle.run_folder.local_copies import INDEX_NAME, LocalCopy, local_copy
from loracle.run_folder.mirror import Mirror
from loracle.run_folder.remote import RemoteFolder, url_of
from loracle.run_folder.remote_lock import REMOTE_LOCK_NAME, RemoteLock


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORACLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(remote_lock, "_STALE_SECONDS", 0.2)
    monkeypatch.setattr(remote_lock, "_LOOK_SECONDS", 0.02)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """A stand-in for S3 on this machine."""
    pytest.importorskip("s3fs", reason="the extra [remote] is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    name = f"run-{uuid.uuid4().hex}"
    if request.param == "s3":
        endpoint = request.getfixturevalue("s3_server")
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
        import s3fs

        s3fs.S3FileSystem().mkdir(f"bucket-{name}")
        yield f"s3://bucket-{name}/{name}"
    elif request.param == "memory":
        yield f"memory://{name}"
    else:
        yield f"file://{tmp_path}/there/{name}"


def opened(url: str, notes: SimpleQueue[str] | None = None) -> Mirror:
    return Mirror(url, notes or SimpleQueue(), lambda message: None)


def write_run(root: Path) -> None:
    """A folder that is enough of a run for the mirror."""
    write_json(root / "plan.json", {"version": 1})
    write_atomically(root / "trials" / "a--s0" / "adapter" / "weights", b"w" * 1000)
    write_json(root / "trials" / "a--s0" / "DONE", {"version": 2})


def test_a_path_with_a_protocol_is_a_url() -> None:
    assert url_of("s3://bucket/run") == "s3://bucket/run"
    assert url_of(Path("s3://bucket/run/")) == "s3://bucket/run"
    assert url_of(Path("file:///data/run")) == "file:///data/run"
    assert url_of("memory://run") == "memory://run"
    assert [url_of(name) for name in ("runs/demo", "/data/run", "a:b", "C:/run", None)] == [
        None
    ] * 5


def test_an_unknown_protocol_and_a_missing_package_are_named() -> None:
    with pytest.raises(RunFolderError, match=r"nosuch://a/b: .*give a folder"):
        RemoteFolder("nosuch://a/b")
    if shutil.which("gcsfs") is None:
        with pytest.raises(MissingExtraError, match=r"gs://bucket/run: .*gcs"):
            RemoteFolder("gs://bucket/run")


def test_what_a_run_writes_is_at_the_url_and_comes_back_elsewhere(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(url) as first:
        write_run(first.root)
        (first.root / ".lock").touch()
    there = RemoteFolder(url)
    assert set(there.sizes()) == {
        *("plan.json", "trials/a--s0/adapter/weights", "trials/a--s0/DONE", INDEX_NAME)
    }
    monkeypatch.setenv("LORACLE_CACHE", str(tmp_path / "another-machine"))
    root = local_copy(url)
    assert root != first.root
    assert (root / "trials/a--s0/adapter/weights").read_bytes() == b"w" * 1000


def test_only_what_changed_is_copied(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(url) as first:
        write_run(first.root)
    written: list[str] = []
    write = RemoteFolder.write

    def noted(self: RemoteFolder, name: str, content: bytes) -> None:
        written.append(name)
        write(self, name, content)

    monkeypatch.setattr(RemoteFolder, "write", noted)
    with opened(url) as again:
        write_json(again.root / "results.json", {})
    assert [name for name in written if name != REMOTE_LOCK_NAME] == ["results.json", INDEX_NAME]


def test_records_follow_the_files_they_list(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = RemoteFolder.write
    monkeypatch.setattr(
        RemoteFolder, "write", lambda s, n, c: (written.append(n), write(s, n, c))[1]
    )
    trial = "trials/a--s0"
    with opened(url) as running:
        for name in (
            *("DONE", "attempt.json", "checkpoint/step-2/state.json", "training.json"),
            *("checkpoint/step-2/optimizer.safetensors", "steps.jsonl", "predictions/test.jsonl"),
        ):
            write_atomically(running.root / trial / name, name)
        write_atomically(running.root / "MANIFEST.json", "{}")
        write_atomically(running.root / "plan.json", "{}")
        running.sync()
    order = [name for name in written if name != REMOTE_LOCK_NAME]
    assert order == [
        *("MANIFEST.json", "plan.json", f"{trial}/attempt.json"),
        *(f"{trial}/predictions/test.jsonl", f"{trial}/steps.jsonl"),
        f"{trial}/checkpoint/step-2/optimizer.safetensors",
        *(f"{trial}/checkpoint/step-2/state.json", f"{trial}/training.json", f"{trial}/DONE"),
        INDEX_NAME,
    ]


def test_a_trial_that_starts_over_leaves_nothing_of_its_last_attempt(url: str) -> None:
    with opened(url) as running:
        write_run(running.root)
        attempt = running.root / "trials" / "a--s0" / "attempt.json"
        predictions = attempt.parent / "predictions.jsonl"
        write_atomically(attempt, "first")
        write_atomically(predictions, "old")
        running.sync()
        write_atomically(attempt, "second")
        predictions.unlink()
        running.sync()
        assert "trials/a--s0/predictions.jsonl" not in RemoteFolder(url).sizes()
        assert "trials/a--s0/DONE" in RemoteFolder(url).sizes()


def test_two_processes_are_not_let_into_one_url(url: str) -> None:
    lock = RemoteLock(RemoteFolder(url), lambda message: None)
    lock.take()
    alive = {**(RemoteFolder(url).read_json(REMOTE_LOCK_NAME) or {}), "host": "node7"}
    told: list[str] = []

    def beat(message: str) -> None:
        told.append(message)
        RemoteFolder(url).write(REMOTE_LOCK_NAME, json.dumps({**alive, "beat": 1}).encode())

    RemoteFolder(url).write(REMOTE_LOCK_NAME, json.dumps(alive).encode())
    with pytest.raises(RunFolderError, match=r"in use by process \d+ on node7 since"):
        RemoteLock(RemoteFolder(url), beat).take()
    assert "node7" in told[0]


def test_a_lock_whose_holder_is_silent_is_taken_over(url: str) -> None:
    gone = {"host": "node7", "pid": 1, "since": "2026-01-01", "token": "old", "beat": 5}
    RemoteFolder(url).write(REMOTE_LOCK_NAME, json.dumps(gone).encode())
    with opened(url) as running:
        write_run(running.root)
    assert REMOTE_LOCK_NAME not in RemoteFolder(url).sizes()


def test_who_lost_the_lock_copies_nothing_more(url: str) -> None:
    def steal() -> None:
        other = {"host": "node7", "pid": 1, "since": "2026-01-01", "token": "other", "beat": 0}
        RemoteFolder(url).write(REMOTE_LOCK_NAME, json.dumps(other).encode())

    running = opened(url).__enter__()
    write_run(running.root)
    steal()
    with pytest.raises(StorageError, match="another process has taken the run over"):
        running.__exit__(None)
    assert set(RemoteFolder(url).sizes()) <= {REMOTE_LOCK_NAME, "plan.json", INDEX_NAME}


def failing(times: int) -> Callable[..., Any]:
    """A replacement of RemoteFolder's writing whose network is down for so many calls."""
    left = [times]
    pipe = remote.RemoteFolder.write

    def write(self: RemoteFolder, name: str, content: bytes) -> None:
        if name != REMOTE_LOCK_NAME and left[0]:
            left[0] -= 1
            raise self._error("written", ConnectionError("no route to host"))
        pipe(self, name, content)

    return write


def test_a_network_that_fails_for_a_while_costs_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteFolder, "write", failing(2))
    with opened(url) as running:
        write_run(running.root)
    assert "trials/a--s0/DONE" in RemoteFolder(url).sizes()


def test_what_could_not_be_copied_is_named_and_copied_by_the_next_start(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RemoteFolder.write
    monkeypatch.setattr(RemoteFolder, "write", failing(10**6))
    running = opened(url).__enter__()
    write_run(running.root)
    with pytest.raises(StorageError, match=r"no route to host.*loracle resume") as raised:
        running.__exit__(None)
    assert str(running.root) in str(raised.value)
    monkeypatch.setattr(RemoteFolder, "write", write)
    with opened(url):
        pass
    assert "trials/a--s0/DONE" in RemoteFolder(url).sizes()


@pytest.mark.parametrize("num_written", range(5))
def test_a_first_copy_that_is_broken_off_anywhere_can_be_continued_elsewhere(
    num_written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, written, write = f"memory://{uuid.uuid4().hex}", [0], RemoteFolder.write

    def broken_off(self: RemoteFolder, name: str, content: bytes) -> None:
        if name != REMOTE_LOCK_NAME:
            if written[0] == num_written:
                raise self._error("written", ConnectionError("gone"))
            written[0] += 1
        write(self, name, content)

    monkeypatch.setattr(RemoteFolder, "write", broken_off)
    first = opened(url).__enter__()
    write_json(first.root / "MANIFEST.json", {})
    write_json(first.root / "base" / "attempt.json", {})
    write_json(first.root / "check.json", {})
    write_json(first.root / "plan.json", {})
    with pytest.raises(StorageError, match="gone"):
        first.__exit__(None)
    monkeypatch.setattr(RemoteFolder, "write", write)
    monkeypatch.setenv("LORACLE_CACHE", str(tmp_path / "another-machine"))
    with opened(url) as other:
        assert len(list(other.root.rglob("*.json"))) == min(num_written, 4)


def test_work_that_another_machine_continued_replaces_the_copy_here(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(url) as first:
        write_run(first.root)
    here = str(tmp_path / "cache")
    monkeypatch.setenv("LORACLE_CACHE", str(tmp_path / "another-machine"))
    with opened(url) as other:
        write_json(other.root / "results.json", {"from": "there"})
        (other.root / "trials" / "a--s0" / "DONE").unlink()
    monkeypatch.setenv("LORACLE_CACHE", here)
    write_json(first.root / "results.json", {"from": "here"})
    notes: SimpleQueue[str] = SimpleQueue()
    with opened(url, notes) as again:
        assert json.loads((again.root / "results.json").read_text()) == {"from": "there"}
        assert not (again.root / "trials" / "a--s0" / "DONE").exists()
    note = notes.get_nowait()
    assert "was continued by another process" in note
    aside = Path(note.rpartition(" is in ")[2])
    assert json.loads((aside / "results.json").read_text()) == {"from": "here"}


def test_a_url_with_other_files_is_refused(url: str) -> None:
    RemoteFolder(url).write("photos/cat.jpg", b"x")
    with pytest.raises(RunFolderError, match=r"not a run folder, and is not empty .*cat\.jpg"):
        opened(url).__enter__()
    assert REMOTE_LOCK_NAME not in RemoteFolder(url).sizes()
    with pytest.raises(RunFolderError, match="is not a run folder"):
        local_copy(url)


def test_a_url_that_cannot_be_reached_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*arguments: Any, **settings: Any) -> Any:
        raise ConnectionError("no route to host")

    folder = RemoteFolder(url)
    for name in ("find", "cat_file", "pipe_file", "open"):
        monkeypatch.setattr(type(folder._fs), name, down)
    with pytest.raises(StorageError, match=r"cannot be .*no route to host.*check the network"):
        local_copy(url)


def test_a_copy_that_a_run_here_works_in_is_not_replaced(url: str) -> None:
    from loracle.run_folder.lock import FolderLock

    with opened(url) as running:
        write_run(running.root)
        running.sync()
        lock = FolderLock(running.root)
        lock.take()
        write_json(running.root / "results.json", {"newer": True})
        RemoteFolder(url).write(INDEX_NAME, json.dumps({"token": "another"}).encode())
        assert (local_copy(url) / "results.json").is_file()
        lock.release()


def test_a_file_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    copy = LocalCopy.of("memory://escaping")
    with pytest.raises(RunFolderError, match="has a file with the name"):
        local_copies._fetched(copy, RemoteFolder("memory://escaping"), "../../x", 1, {})
