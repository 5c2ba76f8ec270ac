"""The contents of a dataset, counted: every row read is kept or dropped, and each dropped row is
listed.

889 read = 886 kept + 3 dropped (too_long 3) · 5 shortened · 18,340 supervised tokens

Every row read is kept, dropped, or held out for the evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from loracle.data.conversation import Example
from loracle.data.faults import Reason
from loracle.data.reading.dataset import Drop
from loracle.data.rendering.renderer import OverlongRow, Rendered, RenderedPrompt
from loracle.data.scripts import script_shares
from loracle.data.stored import measures_of

Unit = Literal["tokens", "characters"]

TOO_LONG = "too long"
"""Why a row was dropped or shortened for its length."""
UNASKED = "nothing to compare"
"""Why a held-out row is not used as a question."""


@dataclass(frozen=True, slots=True)
class RowNote:
    """What happened to one row. id: None if reading failed before the id. reason: the same words
    for all such rows. detail: this row's own fault. by_policy: the user asked for it, as with
    `unanswerable: drop`, and nothing is wrong with the row."""

    id: str | None
    file: str
    line: int
    reason: str
    detail: str
    by_policy: bool = False

    @classmethod
    def of_drop(cls, drop: Drop) -> RowNote:
        """A row that the reader could not use, or was told not to use."""
        fault = drop.faults[0]
        return cls(None, drop.file, drop.line, str(fault.reason), fault.text, drop.by_policy)

    @classmethod
    def of_unasked(cls, example: Example) -> RowNote:
        """A held-out row that cannot be used as a question: it has no final text to compare
        with."""
        detail = "ends with a tool call without text, and a call cannot be compared"
        if not example.has_reference:
            detail = "ends with a reply that is excluded from the loss and so is not a reference"
        return cls(example.id, example.file, example.line, UNASKED, detail, by_policy=True)

    @classmethod
    def of_no_reference(cls, example: Example) -> RowNote:
        """A row of an evaluation set whose only reference is excluded from the loss."""
        detail = "the last reply is excluded from the loss, so it is not a reference answer"
        advice = "add answers, or leave the row out"
        return cls(example.id, example.file, example.line, str(Reason.MARK), f"{detail}; {advice}")

    @classmethod
    def of(cls, row: OverlongRow) -> RowNote:
        example = row.example
        return cls(example.id, example.file, example.line, TOO_LONG, row.reason)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of the kept rows: total, percentiles and the longest, in `unit`."""

    unit: Unit
    total: int
    p50: int
    p90: int
    p99: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int] | npt.NDArray[np.int32], unit: Unit) -> Lengths:
        if not len(lengths):
            return cls(unit, 0, 0, 0, 0, 0)
        p50, p90, p99 = np.percentile(lengths, [50, 90, 99], method="inverted_cdf").tolist()
        return cls(unit, int(np.sum(lengths)), int(p50), int(p90), int(p99), int(np.max(lengths)))


@dataclass(frozen=True, slots=True)
class Accounting:
    """What happened to every row, and how much the kept ones contain.

    num_held_out: rows of a candidate that are used for evaluation instead of training (see
    holdout.py).
    supervised: tokens that carry loss in one pass over the rows (without a tokenizer: characters
    of the assistant turns). For an evaluation set it is the references' length.
    scripts, languages: shares, over a sample (see scripts.py).
    """

    num_read: int
    num_kept: int
    num_held_out: int
    dropped: tuple[RowNote, ...]
    shortened: tuple[RowNote, ...]
    lengths: Lengths
    supervised: int
    scripts: dict[str, float]
    languages: dict[str, float]

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        """How many rows were dropped for each reason, most frequent first."""
        return dict(Counter(note.reason for note in self.dropped).most_common())

    @property
    def lost_share(self) -> float:
        """The share of rows dropped because something is wrong with them, not by policy."""
        num_lost = sum(not note.by_policy for note in self.dropped)
        return num_lost / self.num_read if self.num_read else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "dropped_by_reason": self.dropped_by_reason,
            "lost_share": self.lost_share,
        }


def account(
    examples: Sequence[Example],
    rows: Sequence[Rendered] | Sequence[RenderedPrompt] | None,
    *,
    dropped: Sequence[RowNote],
    shortened: Sequence[RowNote],
    languages: Mapping[str, float],
    num_held_out: int = 0,
) -> Accounting:
    """Count the kept examples; `rows` are the same examples rendered, None without a tokenizer.

    languages: of the examples (see scripts.py).
    """
    lengths: Sequence[int] | npt.NDArray[np.int32]
    if rows is None:
        measures = measures_of(examples)
        lengths, supervised = measures.characters, int(measures.supervised.sum())
    else:
        lengths = [len(row.token_ids) for row in rows]
        supervised = sum(
            row.num_supervised_tokens
            if isinstance(row, Rendered)
            else max(map(len, row.reference_ids))
            for row in rows
        )
    return Accounting(
        num_read=len(examples) + len(dropped) + num_held_out,
        num_kept=len(examples),
        num_held_out=num_held_out,
        dropped=tuple(dropped),
        shortened=tuple(shortened),
        lengths=Lengths.of(lengths, "characters" if rows is None else "tokens"),
        supervised=supervised,
        scripts=script_shares(examples),
        languages=dict(languages),
    )
