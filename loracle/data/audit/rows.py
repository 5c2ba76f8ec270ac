"""A dataset as the audit compares it: every row's question, passage and answers, normalised.

    [Example] --facts.py, chunk by chunk--> AuditedSet

A passage's unit of comparison is the line: a row may hold two paragraphs of which another has one.
Lines that are an instruction (they stand in most rows, or beside ever other passages) are no
passage, and neither are short ones unless a passage is made of short lines alone.

Nothing is held of a row but numbers, some 100 bytes: texts are compared by 64 bits of their hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from loracle.data.audit.facts import MIN_PASSAGE_WEIGHT, Facts, combined, facts_of, unpacked_facts
from loracle.data.audit.groups import I32, I64, U64, Groups
from loracle.data.audit.texts import PackedTexts, TextStore, TextView, text_hash
from loracle.data.conversation import Example
from loracle.data.following import Reached, tell
from loracle.data.stored import StoredExamples
from loracle.data.workers import ALONE, Workers

INSTRUCTION_SHARE = 0.5
MIN_INSTRUCTION_ROWS = 10
"""A line in more than this share of the rows, and in this many, is an instruction."""
MIN_COMPANIONS = 20
"""A line that stands beside this many different passages is one too."""

_CHUNK_ROWS = 1024


class AuditedRows(NamedTuple):
    """The rows of a set: the columns of Facts, texts by their numbers in the store.

    reference_offsets, line_offsets: (N + 1,), where a row's own begin in references and lines.
    """

    prompts: U64
    questions: U64
    question_texts: I32
    replies: U64
    reply_lengths: I32
    reference_offsets: I32
    references: U64
    shortest_references: I32
    line_offsets: I32
    lines: I32
    line_keys: U64
    stands: np.ndarray[tuple[int], np.dtype[np.bool_]]
    says: np.ndarray[tuple[int], np.dtype[np.bool_]]

    @classmethod
    def joined(cls, parts: Sequence[AuditedRows]) -> AuditedRows:
        """The rows of several, one after the other."""
        columns: list[Any] = []
        for name, values in zip(cls._fields, zip(*parts, strict=True), strict=True):
            if name.endswith("_offsets"):
                sizes = np.concatenate([np.diff(offsets) for offsets in values])
                columns.append(_offsets(sizes))
            else:
                columns.append(np.concatenate(values))
        return cls(*columns)

    def references_of(self, row: int) -> frozenset[int]:
        """The hashes of what counts as a row's answer."""
        start, stop = self.reference_offsets[row], self.reference_offsets[row + 1]
        return frozenset(self.references[start:stop].tolist())


@dataclass(frozen=True)
class AuditedSet:
    """A dataset's rows.

    texts: the store of its texts, shared with the sets that it is compared with.
    unit_offsets, units: the passage units of every row, without instructions, as numbers of texts.
    """

    name: str
    examples: Sequence[Example]
    rows: AuditedRows
    texts: TextStore
    unit_offsets: I32
    units: I32

    @classmethod
    def union(cls, name: str, sets: Sequence[AuditedSet]) -> AuditedSet:
        """The rows of several sets that were prepared together, one set after the other."""
        return cls(
            name,
            [example for one in sets for example in one.examples],
            AuditedRows.joined([one.rows for one in sets]),
            sets[0].texts,
            _offsets(np.concatenate([np.diff(one.unit_offsets) for one in sets])),
            np.concatenate([one.units for one in sets]),
        )

    def forget(self) -> None:
        """Give up what was computed to look for near copies; it is computed again if needed."""
        for view in (self.unit_texts, self.lone_questions):
            view.memo.clear()

    @property
    def num_rows(self) -> int:
        return len(self.rows.prompts)

    @cached_property
    def has_passage(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether a row has passage units."""
        return np.diff(self.unit_offsets) > 0

    def units_of(self, row: int) -> list[int]:
        """The numbers of a row's passage units."""
        found: list[int] = self.units[self.unit_offsets[row] : self.unit_offsets[row + 1]].tolist()
        return found

    @cached_property
    def rows_of_unit(self) -> Groups:
        """The rows that hold each passage unit."""
        owners = np.repeat(np.arange(self.num_rows), np.diff(self.unit_offsets))
        return Groups.of(self.texts.hashes(self.units), owners)

    @cached_property
    def unit_texts(self) -> TextView:
        """The passage units in the order of `rows_of_unit`."""
        return TextView(self.texts, self.units[self.rows_of_unit.firsts].astype(np.int64))

    @cached_property
    def rows_of_prompt(self) -> Groups:
        """The rows that ask the same, to the normalised letter."""
        return Groups.of(self.rows.prompts, np.arange(self.num_rows))

    @cached_property
    def rows_without_passage(self) -> Groups:
        """By question: the rows whose question stands alone."""
        alone = np.flatnonzero(~self.has_passage & (self.rows.questions != 0))
        return Groups.of(self.rows.questions[alone], alone)

    @cached_property
    def lone_questions(self) -> TextView:
        """The questions in the order of `rows_without_passage`."""
        return self.questions_of(self.rows_without_passage)

    @cached_property
    def rows_of_question(self) -> Groups:
        """The rows that ask each question, whatever the passage."""
        asking = np.flatnonzero(self.rows.questions)
        return Groups.of(self.rows.questions[asking], asking)

    def questions_of(self, groups: Groups) -> TextView:
        """The questions of groups of rows that ask the same."""
        firsts = groups.rows[groups.offsets[:-1]]
        return TextView(self.texts, self.rows.question_texts[firsts].astype(np.int64))


def audited(
    named: Iterable[tuple[str, Sequence[Example]]], workers: Workers = ALONE
) -> list[AuditedSet]:
    """Prepare datasets that are compared with each other: an instruction of one is one in all."""
    chosen = list(named)
    stored = [examples for _, examples in chosen if isinstance(examples, StoredExamples)]
    texts = TextStore(workers, sum(examples.data_bytes for examples in stored))
    prepared = [(name, examples, _rows(name, examples, texts)) for name, examples in chosen]
    instructions = np.unique(
        np.concatenate([np.empty(0, np.uint64), *(_instructions(r, texts) for _, _, r in prepared)])
    )
    return [
        AuditedSet(name, examples, rows, texts, *_units(rows, texts, instructions))
        for name, examples, rows in prepared
    ]


def _rows(name: str, examples: Sequence[Example], texts: TextStore) -> AuditedRows:
    """The facts of all rows, chunk by chunk."""
    parts = []
    for facts in _facts(name, examples, texts.workers):
        base = texts.add(facts.texts)
        parts.append(
            AuditedRows(
                facts.prompts,
                facts.questions,
                np.where(facts.question_texts < 0, -1, facts.question_texts + np.int32(base)),
                facts.replies,
                facts.reply_lengths,
                _offsets(facts.num_references),
                facts.references,
                facts.shortest_references,
                _offsets(facts.num_lines),
                facts.lines + np.int32(base),
                facts.line_keys,
                facts.stands,
                facts.says,
            )
        )
    return AuditedRows.joined(parts or [_no_rows()])


def _facts(name: str, examples: Sequence[Example], workers: Workers) -> Iterator[Facts]:
    if not isinstance(examples, StoredExamples):
        return map(facts_of, _chunks(examples))
    tell(Reached("comparing", name, len(examples), 0, 0))
    digests = examples.digests
    return examples.mapped(facts_of, workers) if digests is None else map(unpacked_facts, digests)


def _no_rows() -> AuditedRows:
    facts = facts_of([])
    columns = {**facts._asdict(), "reference_offsets": _offsets(facts.num_references)}
    columns["line_offsets"] = _offsets(facts.num_lines)
    return AuditedRows(**{name: columns[name] for name in AuditedRows._fields})


def _chunks(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    rows = iter(examples)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield chunk


def _offsets(sizes: Any) -> I32:
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)


def _instructions(rows: AuditedRows, texts: TextStore) -> U64:
    """The lines that are no passage, by hash: in most rows, or beside ever other passages."""
    num_rows = len(rows.prompts)
    hashes = texts.hashes(rows.lines)
    distinct, counts = np.unique(hashes, return_counts=True)
    frequent = distinct[counts >= min(MIN_COMPANIONS, MIN_INSTRUCTION_ROWS + 1)]
    if not len(frequent):
        return frequent
    owners = np.repeat(np.arange(num_rows), np.diff(rows.line_offsets))
    at = np.minimum(np.searchsorted(frequent, hashes), len(frequent) - 1)
    chosen = np.flatnonzero(frequent[at] == hashes)
    chosen = chosen[_is_first_in_row(hashes[chosen], owners[chosen])]
    chosen = chosen[np.argsort(at[chosen], kind="stable")]
    cuts = np.searchsorted(at[chosen], np.arange(len(frequent) + 1))
    most = max(MIN_INSTRUCTION_ROWS, INSTRUCTION_SHARE * num_rows)
    is_instruction = [
        stop - start > most or _has_companions(int(line), owners[chosen[start:stop]], rows, texts)
        for line, start, stop in zip(frequent, cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
    ]
    found: U64 = frequent[np.array(is_instruction, np.bool_)]
    return found


def _has_companions(line: int, holders: I64, rows: AuditedRows, texts: TextStore) -> bool:
    """Whether a line stands beside MIN_COMPANIONS different passages."""
    if len(holders) < MIN_COMPANIONS:
        return False
    # Rows with the same lines have the same companions.
    _, firsts = np.unique(rows.line_keys[holders], return_index=True)
    if len(firsts) < MIN_COMPANIONS:
        return False
    companions: set[int] = set()
    for row in holders[firsts].tolist():
        lines = rows.lines[rows.line_offsets[row] : rows.line_offsets[row + 1]]
        companions.add(combined(h for h in texts.hashes(lines).tolist() if h != line))
        if len(companions) >= MIN_COMPANIONS:
            return True
    return False


def _units(rows: AuditedRows, texts: TextStore, instructions: U64) -> tuple[I32, I32]:
    """The passage units of every row: offsets, and numbers of texts."""
    sizes = np.diff(rows.line_offsets)
    owners = np.repeat(np.arange(len(sizes)), sizes)
    hashes, weights = texts.hashes(rows.lines), texts.weights(rows.lines)
    own = np.isin(hashes, instructions, invert=True)
    long = own & (weights >= MIN_PASSAGE_WEIGHT)
    places = np.flatnonzero(long)
    # A line that a row has twice is one unit.
    places = places[_is_first_in_row(hashes[places], owners[places])]
    has_long = np.zeros(len(sizes), np.bool_)
    has_long[owners[places]] = True
    short = np.flatnonzero(own & ~has_long[owners])
    # Joined by spaces: each line counts one more, but for the first.
    joined_weights = np.bincount(owners[short], weights[short] + 1.0, len(sizes)) - 1
    enough = joined_weights >= MIN_PASSAGE_WEIGHT
    short = short[enough[owners[short]]]
    unit_owners = np.concatenate((owners[places], np.unique(owners[short])))
    units = np.concatenate((rows.lines[places], _joined(rows.lines[short], owners[short], texts)))
    order = np.argsort(unit_owners, kind="stable")
    return _offsets(np.bincount(unit_owners, minlength=len(sizes))), units[order].astype(np.int32)


def _is_first_in_row(hashes: U64, owners: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of lines in the order of their rows: whether each is the row's first one with its hash."""
    order = np.argsort(hashes, kind="stable")
    by_hash, of_row = hashes[order], owners[order]
    is_first = np.ones(len(hashes), np.bool_)
    is_first[order[1:]] = (by_hash[1:] != by_hash[:-1]) | (of_row[1:] != of_row[:-1])
    return is_first


def _joined(lines: I32, owners: I64, texts: TextStore) -> I32:
    """One text for each row that is made of its lines, added to the texts."""
    starts = np.flatnonzero(np.concatenate(([True], owners[1:] != owners[:-1]))[: len(owners)])
    numbers: dict[tuple[int, ...], int] = {}
    hashes = texts.hashes(lines).tolist()
    stops = [*starts[1:].tolist(), len(lines)]
    keys = [tuple(hashes[a:b]) for a, b in zip(starts.tolist(), stops, strict=False)]
    first_of: dict[tuple[int, ...], int] = {}
    for key, start in zip(keys, starts.tolist(), strict=True):
        first_of.setdefault(key, start)
    ids, at = np.unique(lines, return_inverse=True)
    for chosen in _batches(list(first_of.items())):
        needed = np.unique(np.concatenate([at[start : start + len(key)] for key, start in chosen]))
        known: dict[int, str] = {}
        for places, found in texts.blocks(ids[needed].astype(np.int64)):
            known.update(zip(needed[places].tolist(), found, strict=True))
        joined = [
            " ".join(known[n] for n in at[start : start + len(key)].tolist())
            for key, start in chosen
        ]
        base = texts.add(PackedTexts.of(joined, [text_hash(text) for text in joined]))
        numbers.update({key: base + n for n, (key, _) in enumerate(chosen)})
    return np.array([numbers[key] for key in keys], np.int32)


def _batches(
    items: Sequence[tuple[tuple[int, ...], int]],
) -> Iterator[Sequence[tuple[tuple[int, ...], int]]]:
    return (items[start : start + _CHUNK_ROWS] for start in range(0, len(items), _CHUNK_ROWS))
