"""A dataset as the audit compares it: every row's question, passage and answers, normalised.

A passage's unit of comparison is the line: a row may hold two paragraphs of which another has one.
Lines that are an instruction (they stand in most rows, or beside ever other passages) are no
passage, and neither are short ones unless a passage is made of short lines alone.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from loracle.data.audit.normalizing import normalized, weight
from loracle.data.conversation import Example, Message
from loracle.data.prompt_parts import parts_of

MIN_PASSAGE_WEIGHT = 80
"""A passage says at least as much as this many letters."""

INSTRUCTION_SHARE = 0.5
MIN_INSTRUCTION_ROWS = 10
"""A line in more than this share of the rows, and in this many, is an instruction."""
MIN_COMPANIONS = 20
"""A line that stands beside this many different passages is one too."""


class AuditedRow(NamedTuple):
    """One row, normalised.

    prompt: hash of all that stands before the answer. lines: the long and short lines of its
    passage, instructions included. references: what counts as its answer.
    """

    prompt: int
    question: str
    lines: tuple[str, ...]
    reply: str
    references: frozenset[str]
    question_first: bool


@dataclass(frozen=True)
class AuditedSet:
    """A dataset's rows. units[i]: the passage units of row i, without instructions."""

    name: str
    examples: Sequence[Example]
    rows: Sequence[AuditedRow]
    units: Sequence[tuple[str, ...]]

    @classmethod
    def union(cls, name: str, sets: Sequence[AuditedSet]) -> AuditedSet:
        """The rows of several sets that were prepared together, one set after the other."""
        return cls(
            name,
            [example for one in sets for example in one.examples],
            [row for one in sets for row in one.rows],
            [units for one in sets for units in one.units],
        )

    @cached_property
    def rows_of_unit(self) -> dict[str, list[int]]:
        """The rows that hold each passage unit."""
        found: dict[str, list[int]] = defaultdict(list)
        for row, units in enumerate(self.units):
            for unit in units:
                found[unit].append(row)
        return dict(found)

    @cached_property
    def rows_of_prompt(self) -> dict[int, list[int]]:
        """The rows that ask the same, to the normalised letter."""
        found: dict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(self.rows):
            found[row.prompt].append(index)
        return dict(found)

    @cached_property
    def rows_without_passage(self) -> dict[str, list[int]]:
        """By question: the rows whose question stands alone."""
        found: dict[str, list[int]] = defaultdict(list)
        for index, (row, units) in enumerate(zip(self.rows, self.units, strict=True)):
            if not units and row.question:
                found[row.question].append(index)
        return dict(found)


def audited(named: Iterable[tuple[str, Sequence[Example]]]) -> list[AuditedSet]:
    """Prepare datasets that are compared with each other: an instruction of one is one in all."""
    prepared = [(name, examples, _rows(examples)) for name, examples in named]
    instructions = {line for _, _, rows in prepared for line in _instructions(rows)}
    units = _Units(instructions)
    return [
        AuditedSet(name, examples, rows, [units.of(row.lines) for row in rows])
        for name, examples, rows in prepared
    ]


def _rows(examples: Sequence[Example]) -> list[AuditedRow]:
    known: dict[str, str] = {}

    def clean(line: str) -> str:
        found = known.get(line)
        if found is None:
            found = known[line] = normalized(line)
        return found

    rows = []
    for example in examples:
        parts = parts_of(example)
        turns = example.conversation.prompt.messages
        prompt = [(m.role, _calls(m), *map(clean, m.content.split("\n"))) for m in turns]
        last = next(m for m in reversed(example.conversation.messages) if m.role == "assistant")
        reply = " ".join(filter(None, (normalized(last.content), _calls(last))))
        rows.append(
            AuditedRow(
                prompt=hash(tuple((role, *filter(None, parts)) for role, *parts in prompt)),
                question=" ".join(filter(None, map(clean, parts.question.split("\n")))),
                lines=tuple(filter(None, map(clean, parts.passages))),
                reply=reply,
                references=frozenset(map(normalized, example.answers)) or frozenset([reply]),
                question_first=parts.question_first,
            )
        )
    return rows


def _calls(message: Message) -> str:
    """A turn's tool calls as text; "" where it has none."""
    return "".join(f"{call.name}{json.dumps(call.arguments)}" for call in message.tool_calls)


def _instructions(rows: Sequence[AuditedRow]) -> set[str]:
    """The lines that are no passage: in most rows, or beside ever other passages."""
    times: Counter[str] = Counter()
    companions: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        distinct = set(row.lines)
        times.update(distinct)
        for line in distinct:
            if len(companions[line]) < MIN_COMPANIONS:
                companions[line].add(hash(tuple(other for other in row.lines if other != line)))
    most = max(MIN_INSTRUCTION_ROWS, INSTRUCTION_SHARE * len(rows))
    return {
        line for line, num in times.items() if num > most or len(companions[line]) >= MIN_COMPANIONS
    }


class _Units:
    """Passage units by a row's lines; most rows share theirs with others."""

    def __init__(self, instructions: set[str]) -> None:
        self._instructions = instructions
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def of(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        found = self._known.get(lines)
        if found is None:
            found = self._known[lines] = self._make(lines)
        return found

    def _make(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        own = [line for line in lines if line not in self._instructions]
        long = tuple(dict.fromkeys(line for line in own if weight(line) >= MIN_PASSAGE_WEIGHT))
        if long:
            return long
        joined = " ".join(own)
        return (joined,) if weight(joined) >= MIN_PASSAGE_WEIGHT else ()
