from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loracle.errors import RunFolderError
from loracle.files import (
    JsonLinesWriter,
    json_object_at,
    read_json,
    read_json_lines,
    write_atomically,
    write_json,
)

# Whole files


def test_json_is_written_readably_in_the_given_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"z": "噪声", "a": [1]})
    assert path.read_text(encoding="utf-8") == '{\n  "z": "噪声",\n  "a": [\n    1\n  ]\n}\n'


def test_half_a_surrogate_pair_survives_writing_and_reading(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"prediction": "\ud83d 好"})
    assert read_json(tmp_path / "a.json") == {"prediction": "\ud83d 好"}


def test_not_a_number_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert read_json(path) == 1


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    write_atomically(path, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_whoever_reads_during_a_write_sees_the_whole_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_atomically(path, "old content")
    with path.open() as reader:
        write_atomically(path, "new")
        assert reader.read() == "old content"
    assert path.read_text() == "new"


def test_the_longest_possible_file_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_missing_and_a_damaged_json_file_are_named_with_their_path(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"a\.json cannot be read: No such file"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a":')
    with pytest.raises(RunFolderError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


# Rows


def test_a_row_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "test.jsonl"
    with JsonLinesWriter(path) as writer:
        writer.write({"id": "q1", "prediction": "line\u2028separator\nand 中文"})
        assert read_json_lines(path).rows == [
            {"id": "q1", "prediction": "line\u2028separator\nand 中文"}
        ]
        writer.write({"id": "q2"})
    assert [row["id"] for row in read_json_lines(path).rows] == ["q1", "q2"]


def test_a_writer_starts_anew_unless_it_resumes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for number, resume in ((1, False), (2, False), (3, True)):
        with JsonLinesWriter(path, resume=resume) as writer:
            writer.write({"number": number})
            assert writer.torn_end is None
    assert [row["number"] for row in read_json_lines(path).rows] == [2, 3]


def test_a_torn_last_row_is_an_error_unless_allowed_and_then_handed_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": 1}\n{"b": "中'.encode()[:-1])
    with pytest.raises(RunFolderError, match=r"a\.jsonl:2: the last row is incomplete"):
        read_json_lines(path)
    rows, torn_end = read_json_lines(path, allow_torn_end=True)
    assert rows == [{"a": 1}]
    assert torn_end is not None
    assert torn_end.startswith('{"b": "')


def test_damage_before_the_last_row_is_never_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"b": \n{"c": 3}\n')
    with pytest.raises(RunFolderError, match=r"a\.jsonl:2: not a JSON object"):
        read_json_lines(path, allow_torn_end=True)


@pytest.mark.parametrize(
    ("content", "torn_end", "values"),
    [
        ('{"a": 1}\n{"a": ', '{"a": ', [1, 9]),
        ('{"a": 1}\n{"a": 2}', None, [1, 2, 9]),
        ('{"a"', '{"a"', [9]),
        ("", None, [9]),
    ],
)
def test_resuming_after_a_kill_continues_on_a_whole_line(
    tmp_path: Path, content: str, torn_end: str | None, values: list[int]
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(content)
    with JsonLinesWriter(path, resume=True) as writer:
        assert writer.torn_end == torn_end
        writer.write({"a": 9})
    assert [row["a"] for row in read_json_lines(path).rows] == values


# Kills


KILLED = """
import os, sys
from pathlib import Path
from loracle.files import write_atomically
real = os.fsync
os.fsync = lambda descriptor: os._exit(9)
write_atomically(Path(sys.argv[1]), "new content")
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    outcome = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert outcome.returncode == 9
    assert path.read_text() == "old"


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_file_without_a_whole_object_counts_as_an_empty_one(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    assert json_object_at(path) == {}
    write_json(path, {"status": "done"})
    assert json_object_at(path) == {"status": "done"}
