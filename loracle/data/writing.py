"""Examples as rows of `messages`, the form that every other one can be turned into."""

from __future__ import annotations

from typing import Any

from loracle.data.conversation import Example


def row_of(example: Example) -> dict[str, Any]:
    """The example as a row that reads back as the same example."""
    row: dict[str, Any] = {
        "id": example.id,
        "messages": [
            {"role": message.role, "content": message.content}
            for message in example.conversation.messages
        ],
    }
    if example.answers:
        row["answers"] = list(example.answers)
    return row
