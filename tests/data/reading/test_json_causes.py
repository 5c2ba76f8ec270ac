"""What people write in place of JSON is named, and what is no text file at all."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from loracle.data.reading.names import likely_meant
from loracle.plan import file_problem
from tests.data.files import refused

ROW = '{"question": "q", "answer": "a"}'
COMMENT = "a comment, which JSON does not have; remove it"
COMMA = "a comma after the last item; remove it"
LINE_COMMA = "a comma at the end of the line; remove it, lines are not separated by commas"
QUOTES = "single quotes, as in Python; JSON has double quotes: write it with json.dumps"
WORD = "a Python word; JSON has null, true and false: write it with json.dumps"
SECOND = "a second object; write one object per line"


@pytest.mark.parametrize(
    ("content", "name", "line", "cause"),
    [
        (f"[{ROW},\n]", "a.json", 2, COMMA),
        ('[{"question": "q",}]', "a.json", 1, COMMA),
        ('[{"question": ["q",]}]', "a.json", 1, COMMA),
        ('{"question": "q",}\n', "a.jsonl", 1, COMMA),
        (f'{{"data": [{ROW},\n]}}', "a.json", 2, COMMA),
        (f"// mine\n[{ROW}]", "a.json", 1, COMMENT),
        (f"# mine\n[{ROW}]", "a.json", 1, COMMENT),
        (f"/* mine */ [{ROW}]", "a.json", 1, COMMENT),
        (f"[{ROW}, // first\n{ROW}]", "a.json", 1, COMMENT),
        (f"[{ROW}\n/* x */]", "a.json", 2, COMMENT),
        (f"{ROW}\n# a note\n{ROW}", "a.jsonl", 2, COMMENT),
        (f"{ROW} // a note\n", "a.jsonl", 1, COMMENT),
        (f"{ROW},\n{ROW},\n", "a.jsonl", 1, LINE_COMMA),
        (f"{ROW}{ROW}\n", "a.jsonl", 1, SECOND),
        (f"{ROW} {ROW}\n{ROW}", "a.jsonl", 1, SECOND),
        ("{'question': 'q', 'answer': 'a'}\n", "a.jsonl", 1, QUOTES),
        ("[{'question': 'q', 'answer': 'a'}]", "a.json", 1, QUOTES),
        ('{"question": "q", "answer": None}\n', "a.jsonl", 1, WORD),
        ('[{"question": "q", "ok": True}]', "a.json", 1, WORD),
        (
            f"[{ROW}]\n[{ROW}]",
            "a.json",
            2,
            "several lists in sequence; join them into one",
        ),
    ],
)
def test_the_cause_stands_in_the_message(content: str, name: str, line: int, cause: str) -> None:
    first = refused(content, name)[0]
    assert first.startswith(f"{name}:{line}: bad JSON")
    assert cause in first


def test_objects_over_several_lines_are_recognised() -> None:
    pretty = '{\n "question": "q",\n "answer": "a"\n}\n'
    (problem,) = refused(pretty * 2, "a.json")
    assert problem.startswith(
        "a.json:1: found a sequence of JSON objects, each over several lines; write one "
    )
    (problem,) = refused(f"{pretty.rstrip()},\n{pretty}", "a.json")
    assert "a sequence of JSON objects" in problem


def tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        info = tarfile.TarInfo("train.jsonl")
        info.size = len(ROW)
        archive.addfile(info, io.BytesIO(ROW.encode()))
    return sink.getvalue()


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.jsonl"), ROW)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.jsonl", tar(), "is a tar archive; unpack it"),
        ("a.tar.gz", gzip.compress(tar(), mtime=0), "is a tar archive; unpack it"),
        ("a.jsonl.gz", gzip.compress(tar(), mtime=0), "is a tar archive; unpack it"),
        ("a.jsonl.zst", bytes(pa.Codec("zstd").compress(tar(), asbytes=True)), "is a tar archive"),
        ("a.jsonl.gz", gzip.compress(zipped(), mtime=0), "is a zip archive"),
        (
            "a.jsonl.gz",
            gzip.compress(gzip.compress(ROW.encode(), mtime=0), mtime=0),
            "is compressed twice",
        ),
        (
            "a.parquet.gz",
            gzip.compress(b"PAR1 and more", mtime=0),
            "is a Parquet file that is compressed",
        ),
        ("a.pkl", pickle.dumps([1]), "is a pickle, which is not read because it can run code"),
        ("a.json", pickle.dumps([1], protocol=2), "is a pickle"),
        ("a.pkl", pickle.dumps([1], protocol=0), "is a pickle"),
        ("a.pkl.gz", gzip.compress(pickle.dumps([1]), mtime=0), "is a pickle"),
        ("a.jsonl", b"<!DOCTYPE html><html>", "is a web page"),
        ("a.npy", b"\x93NUMPY\x01\0", "is a numpy array"),
    ],
)
def test_what_is_no_table_is_refused_by_what_it_is(name: str, content: bytes, what: str) -> None:
    (problem,) = refused(content, name)
    assert problem.startswith(f"{name} {what}")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("qestion", "question"),
        ("Question", "question"),
        ("anwser", "answer"),
        ("mesages", "messages"),
        ("promt", "prompt"),
        ("text", None),
        ("title", None),
        ("topic", None),
        ("content", None),
        ("response", None),
        ("id", None),
    ],
)
def test_a_name_is_only_guessed_where_that_is_plausible(written: str, meant: str | None) -> None:
    known = ("question", "answer", "messages", "prompt", "context", "tools", "output", "options")
    assert likely_meant(written, known) == meant


def test_a_missing_file_is_not_guessed_by_its_ending() -> None:
    Path("test.jsonl").touch()
    assert file_problem("weather.jsonl") == "there is no file weather.jsonl; check the path"
    assert file_problem("tset.jsonl") == "there is no file tset.jsonl; did you mean test.jsonl?"
