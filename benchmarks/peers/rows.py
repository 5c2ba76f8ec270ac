"""The rows of a benchmark: JSON lists or JSONL, {"messages": [...]} or {"question", "answer"}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Message = dict[str, str]


def read_rows(path: Path, num_rows: int | None = None) -> list[list[Message]]:
    """The conversations of `path` in file order, the first `num_rows` where that is given."""
    text = path.read_text(encoding="utf-8")
    records: list[dict[str, Any]] = (
        [json.loads(line) for line in text.splitlines() if line.strip()]
        if path.suffix == ".jsonl"
        else json.loads(text)
    )
    return [_messages(record) for record in records[:num_rows]]


def _messages(record: dict[str, Any]) -> list[Message]:
    if "messages" in record:
        return list(record["messages"])
    return [
        {"role": "user", "content": record["question"]},
        {"role": "assistant", "content": record["answer"]},
    ]


def prompt_of(messages: list[Message]) -> list[Message]:
    """Everything up to the last turn, which is the assistant's answer."""
    assert messages[-1]["role"] == "assistant", "a benchmark row ends with the assistant's turn"
    return messages[:-1]
