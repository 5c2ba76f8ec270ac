"""Data files for tests, written to the current folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loracle.data.reading.dataset import Dataset, read_dataset
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def turn(role: object, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


def row(question: str = "Who won?", reply: str = "The Broncos", **more: object) -> dict[str, Any]:
    """A good row in `messages` form."""
    return {"messages": [turn("user", question), turn("assistant", reply)], **more}


def lines(*rows: object) -> str:
    return "".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in rows)


def written(content: str | bytes, name: str = "rows.jsonl") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def read(content: str | bytes, name: str = "rows.jsonl", **options: Any) -> Dataset:
    """What a file with this content holds, drops and all."""
    return read_dataset(written(content, name), ReadOptions(**options))


def read_rows(*rows: object, **options: Any) -> Dataset:
    return read(lines(*rows), **options)


def refused(content: str | bytes, name: str = "rows.jsonl", **options: Any) -> tuple[str, ...]:
    """The problems of a file that may not lose a row."""
    with pytest.raises(DataError) as caught:
        read_dataset(written(content, name), ReadOptions(**options), strict=True)
    return caught.value.problems


def turns(dataset: Dataset, index: int = 0) -> list[tuple[str, str]]:
    messages = dataset.examples[index].conversation.messages
    return [(message.role, message.content) for message in messages]
