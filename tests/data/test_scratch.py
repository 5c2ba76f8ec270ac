"""A full or missing folder for temporary files is told with its name, the need and the way out."""

from __future__ import annotations

import errno
import json
import tempfile
from pathlib import Path

import pytest

from loracle.data import scratch, workers
from loracle.data.reading import dataset
from loracle.data.scratch import ScratchFile
from loracle.data_check.datasets import check_files
from loracle.errors import StorageError


def test_what_was_appended_is_read_at_its_position() -> None:
    file = ScratchFile(0)
    file.append(b"abc", b"de")
    assert file.read(1, 3) == b"bcd"
    file.append(b"f")
    assert file.read(4, 10) == b"ef"


def test_a_full_disk_is_told_with_folder_need_and_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("the system has no device that is always full")
    full = Path("/dev/full").open("w+b", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda _: full)
    with pytest.raises(StorageError) as refused:
        ScratchFile(250_000_000).append(b"x")
    text = str(refused.value)
    assert text.startswith(f"the folder for temporary files, {tempfile.gettempdir()}, is full (")
    assert "a check of large data needs about 1.0 GB there" in text
    assert "set TMPDIR=FOLDER to a folder on a larger disk, and run the same command again" in text


def test_a_folder_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scratch, "MAX_BYTES_IN_MEMORY", 4)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StorageError, match=r"temporary files, .*gone, cannot be used: .*No such"):
        ScratchFile(0).append(b"more than four")


def test_no_folder_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(scratch, "MAX_BYTES_IN_MEMORY", 4)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    with pytest.raises(StorageError, match=r"there is no folder for temporary files .* set TMPDIR"):
        ScratchFile(0).append(b"more than four")


def write(path: Path, num: int) -> str:
    rows = [
        {"context": f"{n} " + "of the river and the stone " * 5, "question": f"{n}?", "answer": "a"}
        for n in range(num)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_whichever_write_of_a_check_fails_first_the_check_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = write(tmp_path / "train.jsonl", 60), write(tmp_path / "test.jsonl", 20)
    monkeypatch.setattr(dataset, "MIN_STORED_BYTES", 0)
    monkeypatch.setattr(workers, "num_cores", lambda: 1)
    left = [1000]
    append = tempfile.SpooledTemporaryFile.write

    def failing(self: tempfile.SpooledTemporaryFile[bytes], content: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(self, content)

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", failing)
    assert not check_files([train], [test]).errors
    num_writes = 1000 - left[0]
    assert num_writes >= 8
    for number in range(num_writes):
        left[0] = number
        try:
            problems = [
                problem.message
                for report in check_files([train], [test]).reports
                for problem in report.problems
            ]
        except StorageError as error:
            problems = list(error.problems)
        told = [text for text in problems if "temporary files" in text]
        assert told, f"write {number}"
        assert all("is full" in text for text in told)
