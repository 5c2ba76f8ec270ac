"""An evaluation set taken from the candidates themselves, if no other is given.

    {candidate: [Example]} --row_groups--> groups --drawn_groups--> Holdout

Groups are those of `splitting`, over the rows of all candidates together: a held-out passage is
removed from every candidate that has it, nearly or exactly, so none is evaluated on what it was
trained on.
Each candidate gives about the same share of its rows. A prompt shared by several rows is one
question, and any of their answers counts, since it is not known which is right.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loracle.data.audit.findings import RowReference
from loracle.data.audit.normalizing import normalized
from loracle.data.audit.rows import AuditedSet, audited
from loracle.data.conversation import Example
from loracle.data.converting import row_of
from loracle.data.splitting import drawn_groups, row_groups
from loracle.errors import DataError
from loracle.plan import HeldOutFile
from loracle.text import counted

HELD_OUT_FILE = "holdout.jsonl"
"""The questions in a run folder: rows of messages, to be given as `--eval` to another run."""


@dataclass(frozen=True)
class HeldQuestion:
    """One question, and the rows that contain it. example: the question; its references are the
    answers of all rows. rows: by candidate."""

    example: Example
    rows: Mapping[str, tuple[RowReference, ...]]
    is_contested: bool
    """Whether the candidates that contain it disagree about the answer."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.example.id,
            "is_contested": self.is_contested,
            "rows": {
                name: [{"id": row.id, "file": row.file, "line": row.line} for row in rows]
                for name, rows in self.rows.items()
            },
        }


@dataclass(frozen=True)
class Holdout:
    """What was held out, and what is left for training.

    kept: the rows left, by candidate. num_held_out: the rows taken from each. unasked: those
    that end with a tool call, which cannot be compared with text, or with a reply that is excluded
    from the loss.
    """

    share: float
    seed: int
    num_groups: int
    num_held_groups: int
    kept: Mapping[str, list[Example]]
    num_held_out: Mapping[str, int]
    questions: Sequence[HeldQuestion]
    unasked: Sequence[Example]
    num_known: int = 0
    """Rows asked whose passage is trained on all the same: it is too short to count, or all rows
    share it."""

    @property
    def num_contested(self) -> int:
        return sum(question.is_contested for question in self.questions)

    @property
    def description(self) -> str:
        """The composition in words: "88 questions in 26 groups ..., held out of a (89 rows)"."""
        parts = ", ".join(
            f"{name} ({counted(num, 'row')})" for name, num in self.num_held_out.items()
        )
        return (
            f"{counted(len(self.questions), 'question')} in {self.num_held_groups:,} of "
            f"{self.num_groups:,} groups that share a passage, held out of {parts}"
        )

    @property
    def content(self) -> bytes:
        """The questions as JSONL."""
        rows = (json.dumps(row_of(q.example), ensure_ascii=False) for q in self.questions)
        return "".join(f"{row}\n" for row in rows).encode()

    @property
    def file(self) -> HeldOutFile:
        """The content hash in the frozen plan."""
        content = self.content
        return HeldOutFile(HELD_OUT_FILE, hashlib.sha256(content).hexdigest(), len(content))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: every row that was held out is in one of the lists."""
        return {
            "share": self.share,
            "seed": self.seed,
            "num_groups": self.num_groups,
            "num_held_groups": self.num_held_groups,
            "num_held_out": dict(self.num_held_out),
            "num_contested": self.num_contested,
            "num_known": self.num_known,
            "questions": [question.to_dict() for question in self.questions],
            "unasked": [
                {"id": example.id, "file": example.file, "line": example.line}
                for example in self.unasked
            ],
        }


def hold_out(candidates: Mapping[str, Sequence[Example]], share: float, seed: int) -> Holdout:
    """Hold out about `share` of every candidate's rows, by groups that share a passage.

    The same candidates, share and seed give the same holdout.

    Raises:
        DataError: there would be no questions, or a candidate would have no row left.
    """
    sets = audited(candidates.items())
    groups = row_groups(AuditedSet.union("all candidates", sets))
    owners = np.repeat(np.arange(len(sets)), [len(one.examples) for one in sets])
    num_groups = int(groups.max()) + 1 if len(groups) else 0
    counts = np.zeros((num_groups, len(sets)), np.int64)
    np.add.at(counts, (groups, owners), 1)
    held = drawn_groups(counts, share, seed)
    num_held_out = counts[held].sum(axis=0)
    _require_both_sides(sets, share, counts, num_held_out)
    kept: dict[str, list[Example]] = {one.name: [] for one in sets}
    asked: dict[str, list[_HeldRow]] = defaultdict(list)
    unasked = []
    rows = ((one.name, example) for one in sets for example in one.examples)
    for (name, example), group in zip(rows, groups.tolist(), strict=True):
        if not held[group]:
            kept[name].append(example)
        elif not example.has_reference or not any(map(str.strip, example.references)):
            unasked.append(example)
        else:
            asked[_prompt_key(example)].append(_HeldRow(name, example, group))
    if not asked:
        raise DataError(
            "holdout: every held-out row ends with a tool call without text, and a call "
            "cannot be compared; name an evaluation set, --eval FILE"
        )
    return Holdout(
        share,
        seed,
        num_groups,
        int(held.sum()),
        kept,
        {one.name: int(num) for one, num in zip(sets, num_held_out, strict=True)},
        [_question(rows) for rows in asked.values()],
        unasked,
        _num_known(kept, asked),
    )


def hold_out_least(
    candidates: Mapping[str, Sequence[Example]], shares: Sequence[float], seed: int
) -> Holdout:
    """Hold rows out by the first of the shares that leaves rows on both sides.

    A passage of few rows may be more than a small share of them.

    Raises:
        DataError: as `hold_out` does with the last share.
    """
    for share in shares[:-1]:
        with suppress(DataError):
            return hold_out(candidates, share, seed)
    return hold_out(candidates, shares[-1], seed)


def rule_in_words(held: Mapping[str, Any]) -> str:
    """What is kept apart, and what was found not to be. held: a Holdout's `to_dict`."""
    known = f"{held['num_known']} of the rows asked are about a passage that is trained on as well "
    known += "(it is too short to count, or all rows share it)"
    return (
        "rows that share a passage, or ask the same, stay together: "
        f"{held['num_held_groups']} of {held['num_groups']} such groups are asked; "
        + (known if held["num_known"] else "no passage asked about is trained on")
    )


def _num_known(
    kept: Mapping[str, Sequence[Example]], asked: Mapping[str, Sequence[_HeldRow]]
) -> int:
    trained = {row.context for rows in kept.values() for row in rows if row.context is not None}
    return sum(row.example.context in trained for rows in asked.values() for row in rows)


@dataclass(frozen=True, slots=True)
class _HeldRow:
    candidate: str
    example: Example
    group: int


def _require_both_sides(
    sets: Sequence[AuditedSet], share: float, counts: Any, num_held_out: Any
) -> None:
    sizes = counts.sum(axis=1)
    problems = [
        f"holdout: no row of {one.name} would be left for training: all of its "
        f"{counted(len(one.examples), 'row')} share passages with rows that are held out; choose "
        "another "
        "share or seed (--set holdout.seed=1), or name an evaluation set, --eval FILE"
        for one, num in zip(sets, num_held_out, strict=True)
        if len(one.examples) and num == len(one.examples)
    ]
    if not num_held_out.sum():
        largest = int(sizes.max()) if len(sizes) else 0
        problems.append(
            f"holdout: cannot hold out {share:.0%} of {counted(int(sizes.sum()), 'row')} by "
            "passage: "
            f"found {counted(len(sizes), 'group')} of rows that share one, the largest of "
            f"{counted(largest, 'row')}; choose another share, or name an evaluation set, --eval "
            "FILE"
        )
    if problems:
        raise DataError(problems)


def _prompt_key(example: Example) -> str:
    """The exact prompt, including tools."""
    prompt = example.conversation.prompt
    turns = [message.as_json() for message in prompt.messages]
    return json.dumps([turns, list(prompt.tools)], sort_keys=True)


def _question(rows: Sequence[_HeldRow]) -> HeldQuestion:
    """The first row's prompt with the answers of all rows, under an id that names its candidate.

    Its group is the one it was held out with: questions of one group are not independent.
    """
    first = rows[0]
    by_candidate: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_candidate[row.candidate].append(row.example)
    answers = [{normalized(a) for a in _answers(examples)} for examples in by_candidate.values()]
    example = replace(
        first.example,
        id=f"{first.candidate}:{first.example.id}",
        answers=tuple(dict.fromkeys(_answers(row.example for row in rows))),
        group=f"{first.group}",
    )
    return HeldQuestion(
        example,
        {name: tuple(map(RowReference.of, examples)) for name, examples in by_candidate.items()},
        is_contested=not set.intersection(*answers),
    )


def _answers(examples: Iterable[Example]) -> list[str]:
    return [a for example in examples for a in example.references if a.strip()]
