"""A row is never named as a near copy of itself."""

from __future__ import annotations

from pathlib import Path

from loracle.data.audit import audited, findings
from loracle.data.conversation import Conversation, Example, Message
from loracle.data.reading.dataset import read_examples

CASES = Path(__file__).parents[1] / "field_cases"

LINE = (
    "worker-{} finished the nightly export of table orders to the cold bucket in 4{} seconds "
    "without any error"
)


def example(number: int, *lines: str, answer: str = "x") -> Example:
    asked = "\n".join(("Which worker was slower?", *lines))
    messages = (Message("user", asked), Message("assistant", answer))
    return Example(f"{number}", Conversation(messages), (), "a.jsonl", number)


def kinds(*examples: Example) -> dict[str, list[list[int]]]:
    (dataset,) = audited([("a", examples)])
    return {
        found.kind: [[row.line for row in group] for group in found.groups]
        for found in findings(dataset)
    }


def test_two_like_lines_of_one_row_are_no_near_copy() -> None:
    (dataset,) = audited([("a", read_examples(CASES / "self_near_duplicate.jsonl"))])
    assert findings(dataset) == []


def test_rows_that_both_hold_two_like_lines_are_not_near_themselves() -> None:
    both = (LINE.format(3, 1), LINE.format(4, 3))
    found = kinds(example(1, *both, answer="a"), example(2, *both, answer="b"))
    assert "near_passages" not in found
    assert "near_rows" not in found


def test_like_lines_of_two_rows_are_still_named() -> None:
    found = kinds(example(1, LINE.format(3, 1)), example(2, LINE.format(4, 3)))
    assert found["near_passages"] == [[1, 2]]
    assert found["near_rows"] == [[1, 2]]
