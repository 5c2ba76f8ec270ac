"""What the audit finds, as plain data: every class here has the JSON form that `to_dict` gives.

    {"kind": "passage", "similarity": 1.0, "text": "The Panthers defense gave up ...",
     "train": [{"id": "clean-1", "file": "clean.json", "line": 2}, ...],
     "evaluation": [{"id": "eval-9", "file": "eval.json", "line": 130}, ...]}

results.json and the report show these; nothing here holds a row's whole text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loracle.data.conversation import Example

EXCERPT_CHARACTERS = 80

LeakKind = Literal[
    "same_row", "same_prompt", "near_row", "passage", "near_passage", "same_question", "answer"
]
LEAK_MEANINGS: dict[LeakKind, str] = {
    "same_row": "the same prompt and answer",
    "same_prompt": "the same prompt with a different answer",
    "near_row": "nearly the same row",
    "passage": "the same passage",
    "near_passage": "nearly the same passage",
    "same_question": "the same long question and answer with another passage",
    "answer": "an evaluation answer that appears in a training question",
}
"""Every kind of leak, strongest first, in words."""

FindingKind = Literal[
    "exact_duplicates",
    "duplicates",
    "near_rows",
    "near_passages",
    "conflicting_answers",
    "short_answers",
    "not_in_passage",
]
FINDING_MEANINGS: dict[FindingKind, str] = {
    "exact_duplicates": "exact duplicates of rows",
    "duplicates": "rows repeated except for case, spaces or punctuation",
    "near_rows": "rows that are nearly the same",
    "near_passages": "passages that are nearly the same",
    "conflicting_answers": "one question, several answers",
    "short_answers": "answers that are empty or absurdly short",
    "not_in_passage": "answers that do not appear in the passage, in a set where most do",
}
"""What can be wrong within one dataset, in words."""


@dataclass(frozen=True, slots=True)
class RowReference:
    """A row, by its id and its place on disk."""

    id: str
    file: str
    line: int

    @classmethod
    def of(cls, example: Example) -> RowReference:
        return cls(example.id, example.file, example.line)

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Leak:
    """Training rows and evaluation rows that share something.

    similarity: exact Jaccard of character n-grams; 1 where the two are equal.
    text: the beginning of what is shared, as the training set has it.
    """

    kind: LeakKind
    similarity: float
    train: tuple[RowReference, ...]
    evaluation: tuple[RowReference, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Leakage:
    """What a candidate knows of one evaluation set.

    leaked_ids and clean_ids: the evaluation set's ids, taken apart; all of them are in one of the
    two. The clean ones are the subset to score for a number that leakage does not touch.
    num_untried_pairs: like texts in very large clusters that were not compared one by one.
    """

    candidate: str
    evaluation: str
    leaks: tuple[Leak, ...]
    leaked_ids: tuple[str, ...]
    clean_ids: tuple[str, ...]
    num_untried_pairs: int

    @property
    def leaked_share(self) -> float:
        num = len(self.leaked_ids) + len(self.clean_ids)
        return len(self.leaked_ids) / num if num else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "leaked_share": self.leaked_share}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something within one dataset that its owner should look at.

    groups: rows that belong together (copies of one row, answers to one question); a finding about
    single rows has one row a group. num_rows: rows concerned: of copies all but the first.
    """

    kind: FindingKind
    num_rows: int
    groups: tuple[tuple[RowReference, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Extractiveness:
    """How many answers stand in their passage, of the rows that have one."""

    num_with_passage: int
    num_in_passage: int

    @property
    def share(self) -> float | None:
        return self.num_in_passage / self.num_with_passage if self.num_with_passage else None


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 2 * EXCERPT_CHARACTERS].split())
    return line if len(line) <= EXCERPT_CHARACTERS else f"{line[: EXCERPT_CHARACTERS - 1]}…"


def references(examples: Sequence[Example], rows: Sequence[int]) -> tuple[RowReference, ...]:
    """The rows of these indices."""
    return tuple(RowReference.of(examples[row]) for row in rows)
