"""A large file read in blocks by several processes gives what reading it row by row gives."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loracle.data.audit.facts import packed_facts
from loracle.data.following import Reached, following
from loracle.data.reading import dataset, pooled
from loracle.data.reading.dataset import Dataset, read_dataset
from loracle.data.reading.options import ReadOptions
from loracle.data.stored import StoredExamples
from loracle.data.workers import ALONE, Processes, Workers
from loracle.data_check import datasets as check_datasets
from loracle.data_check.datasets import check_files
from loracle.errors import DataError
from tests.data.files import lines, row

WORDS = [
    "river",
    "stone",
    "copper",
    "trade",
    "market",
    "bridge",
    "winter",
    "council",
    "harbour",
    "treaty",
    "河流",
    "条约",
    "市场",
]


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2) as found:
        yield found


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that a small file has many borders."""
    monkeypatch.setattr(pooled, "BLOCK_BYTES", 700)


def question(number: int, generator: random.Random, **more: object) -> dict[str, Any]:
    passage = " ".join(generator.choices(WORDS, k=40))
    return {
        "context": passage,
        "question": f"What was number {number}?",
        "answer": passage[:12],
        **more,
    }


def mixed_rows() -> list[dict[str, Any]]:
    """Rows with copies, near copies and contradictions far from what they copy."""
    generator = random.Random(3)
    rows = [question(number, generator) for number in range(40)]
    copies = [
        rows[0],
        {**rows[1], "question": "what was NUMBER 1"},
        {**rows[2], "context": f"{rows[2]['context']} and more"},
        {**rows[3], "answer": "another answer"},
        {**rows[4], "extra": "a column of its own"},
        {"context": "", "question": "Where is it?", "answer": "..."},
    ]
    return [*rows, *copies]


MIXED = lines(*mixed_rows())
BROKEN = MIXED.replace('"question": "What was number 7?"', '"question": "What').replace(
    '"answer"', '"answer": "twice", "answer"', 1
)
CONTENTS: dict[str, bytes] = {
    "rows with copies": MIXED.encode(),
    "bad lines": BROKEN.encode(),
    "a byte-order mark": b"\xef\xbb\xbf" + MIXED.encode(),
    "line ends of Windows": MIXED.replace("\n", "\r\n").encode(),
    "UTF-16": MIXED.encode("utf-16"),
    "a gz file": gzip.compress(BROKEN.encode(), mtime=0),
    "no line end at the end": MIXED.rstrip("\n").encode(),
    "a file cut inside its last row": MIXED.encode()[:-30],
    "blank lines": MIXED.replace("\n", "\n\n").encode() + b"\n\n \n",
    "bytes that are no UTF-8": MIXED.encode().replace("条约".encode(), b"\xff\xfe", 3),
    "a row larger than a block": lines({**mixed_rows()[0], "question": "why " * 900}).encode()
    + MIXED.encode(),
    "ids": lines(*({**one, "id": f"q{n}"} for n, one in enumerate(mixed_rows()))).encode(),
    "some ids, one no text": lines(
        *(
            {**one, "id": [n] if n == 9 else n} if n % 2 else one
            for n, one in enumerate(mixed_rows())
        )
    ).encode(),
    "ids that repeat": lines(
        *({**one, "id": n % 30} for n, one in enumerate(mixed_rows()))
    ).encode(),
    "ids like those that are made": lines(
        *({**one, "id": "rows-30"} if n == 2 else one for n, one in enumerate(mixed_rows()))
    ).encode(),
    "turns": lines(*(row(f"Question {n}? " * 9, f"Reply {n}") for n in range(40))).encode(),
}


def read(path: str, workers: Workers, *, in_blocks: bool, monkeypatch: Any) -> Dataset:
    monkeypatch.setattr(dataset, "MIN_STORED_BYTES", 0 if in_blocks else 1 << 40)
    return read_dataset(path, ReadOptions(), workers=workers, digest=packed_facts)


@pytest.mark.parametrize("name", CONTENTS)
def test_blocks_and_processes_change_nothing_that_is_read(
    name: str, processes: Processes, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rows.jsonl").write_bytes(CONTENTS[name])
    expected = read("rows.jsonl", ALONE, in_blocks=False, monkeypatch=monkeypatch)
    for workers in (ALONE, processes):
        found = read("rows.jsonl", workers, in_blocks=True, monkeypatch=monkeypatch)
        assert isinstance(found.examples, StoredExamples)
        assert list(found.examples) == expected.examples
        assert replace(found, examples=[]) == replace(expected, examples=[])
        assert found.description == expected.description


@pytest.mark.parametrize(
    "name", ["rows with copies", "bad lines", "a gz file", "some ids, one no text"]
)
def test_the_check_finds_the_same_in_blocks(
    name: str, processes: Processes, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rows.jsonl").write_bytes(CONTENTS[name])
    generator = random.Random(5)
    rows = mixed_rows()
    leaked = [rows[3], {**rows[20], "context": f"{rows[20]['context']} indeed"}]
    asked = [*leaked, *(question(100 + n, generator) for n in range(8))]
    Path("test.jsonl").write_text(lines(*asked), encoding="utf-8")

    def checked(workers: Workers, min_bytes: int) -> str:
        monkeypatch.setattr(dataset, "MIN_STORED_BYTES", min_bytes)
        monkeypatch.setattr(check_datasets, "beside", lambda: nullcontext(workers))
        return json.dumps(check_files(["rows.jsonl"], ["test.jsonl"]).to_dict())

    expected = checked(ALONE, 1 << 40)
    assert '"near_passage"' in expected
    assert '"conflicting_answers"' in expected
    assert checked(ALONE, 0) == expected
    assert checked(processes, 0) == expected


REFUSED = {
    "rows of two forms": (MIXED + lines(row())).encode(),
    "a column that would be lost": lines(
        *({**one, "options": ["a", "b"]} if n == 30 else one for n, one in enumerate(mixed_rows()))
    ).encode(),
    "one object over many lines": json.dumps(mixed_rows()[0], indent=2).encode(),
    "no row of a known form": lines(*({"x": n} for n in range(200))).encode(),
    "nothing": b"\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_says_the_same_in_blocks(
    name: str, processes: Processes, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rows.jsonl").write_bytes(REFUSED[name])

    def problems(workers: Workers, *, in_blocks: bool) -> Any:
        try:
            found = read("rows.jsonl", workers, in_blocks=in_blocks, monkeypatch=monkeypatch)
        except DataError as error:
            return error.problems
        return list(found.examples), found.drops

    expected = problems(ALONE, in_blocks=False)
    assert problems(ALONE, in_blocks=True) == expected
    assert problems(processes, in_blocks=True) == expected


def test_a_folder_of_files_is_read_in_their_order(
    processes: Processes, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = mixed_rows()
    Path("data").mkdir()
    Path("data/a.jsonl").write_text(lines(*rows[:20]), encoding="utf-8")
    Path("data/b.jsonl").write_text(lines(*rows[20:]), encoding="utf-8")
    expected = read("data", ALONE, in_blocks=False, monkeypatch=monkeypatch)
    found = read("data", processes, in_blocks=True, monkeypatch=monkeypatch)
    assert list(found.examples) == expected.examples
    assert found.container == expected.container


def test_a_large_list_in_json_is_kept_on_disk_too(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("rows.json").write_text(json.dumps(mixed_rows()), encoding="utf-8")
    expected = read("rows.json", ALONE, in_blocks=False, monkeypatch=monkeypatch)
    found = read("rows.json", ALONE, in_blocks=True, monkeypatch=monkeypatch)
    assert isinstance(found.examples, StoredExamples)
    assert list(found.examples) == expected.examples


def test_whoever_follows_is_told_how_far_the_reading_is(
    processes: Processes, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rows.jsonl").write_bytes(CONTENTS["rows with copies"])
    told: list[Reached] = []
    with following(told.append):
        read("rows.jsonl", processes, in_blocks=True, monkeypatch=monkeypatch)
    size = len(CONTENTS["rows with copies"])
    assert (told[-1].num_rows, told[-1].done, told[-1].total) == (46, size, size)
    assert [one.done for one in told] == sorted({one.done for one in told})
