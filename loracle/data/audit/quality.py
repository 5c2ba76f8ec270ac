"""What is doubtful within one dataset: copies, contradictions, answers that are none."""

from __future__ import annotations

import statistics
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from loracle.data.audit.containment import contains
from loracle.data.audit.findings import (
    Extractiveness,
    Finding,
    FindingKind,
    RowReference,
    references,
)
from loracle.data.audit.leakage import (
    MIN_OPEN_QUESTION_WEIGHT,
    PASSAGE_THRESHOLD,
    QUESTION_THRESHOLD,
)
from loracle.data.audit.near import near_pairs
from loracle.data.audit.normalizing import weight
from loracle.data.audit.rows import AuditedSet
from loracle.data.conversation import Example

EXTRACTIVE_SHARE = 0.8
MIN_EXTRACTIVE_ROWS = 10
"""A set is extractive where this share of the answers stands in the passage, of so many rows."""

SHORT_SHARE = 0.02
"""An answer this short, relative to the median one, is absurdly short: 4 letters among 200."""

_SAYING = ("L", "N", "S")
"""Unicode categories of which an answer has at least one character: letters, numbers, symbols."""


def findings(dataset: AuditedSet) -> list[Finding]:
    """Everything doubtful in a dataset, in the order of FINDING_MEANINGS."""
    exact, normalised = _duplicates(dataset)
    near_units = near_pairs(list(dataset.rows_of_unit), PASSAGE_THRESHOLD)
    units = list(dataset.rows_of_unit)
    pairs = [(units[pair.left], units[pair.right]) for pair in near_units.pairs]
    found = [
        _copies("exact_duplicates", dataset, exact),
        _copies("duplicates", dataset, normalised),
        _pairs("near_rows", dataset, _near_rows(dataset, pairs)),
        _near_passages(dataset, pairs),
        _conflicts(dataset),
        _singles("short_answers", dataset, _short_answers(dataset)),
        _singles("not_in_passage", dataset, _not_in_passage(dataset)),
    ]
    return [finding for finding in found if finding.num_rows]


def extractiveness(dataset: AuditedSet) -> Extractiveness:
    """How many of the dataset's answers stand in their passage."""
    standing = _standing(dataset)
    return Extractiveness(len(standing), sum(standing.values()))


def _duplicates(dataset: AuditedSet) -> tuple[list[list[int]], list[list[int]]]:
    """Rows with the same prompt and answer: groups equal to the letter, and groups nearly so."""
    exact, normalised = [], []
    for rows in dataset.rows_of_prompt.values():
        if len(rows) < 2:
            continue
        by_reply: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            by_reply[dataset.rows[row].reply].append(row)
        for same in by_reply.values():
            by_text: dict[str, list[int]] = defaultdict(list)
            for row in same:
                by_text[repr(dataset.examples[row].conversation)].append(row)
            exact += [group for group in by_text.values() if len(group) > 1]
            if len(by_text) > 1:
                normalised.append([group[0] for group in by_text.values()])
    return exact, normalised


def _conflicts(dataset: AuditedSet) -> Finding:
    groups = []
    for rows in dataset.rows_of_prompt.values():
        if len(rows) > 1:
            accepted = frozenset.intersection(*(dataset.rows[row].references for row in rows))
            if not accepted:
                groups.append(references(dataset.examples, rows))
    return Finding("conflicting_answers", sum(map(len, groups)), tuple(groups))


def _near_rows(
    dataset: AuditedSet, near_units: Iterable[tuple[str, str]]
) -> Iterable[tuple[int, int]]:
    """Rows that ask the same of nearly the same passage, or nearly the same of none."""
    for left, right in near_units:
        for row in dataset.rows_of_unit[left]:
            for other in dataset.rows_of_unit[right]:
                asked, reply = dataset.rows[row].question, dataset.rows[row].reply
                if row != other and (asked, reply) == (
                    dataset.rows[other].question,
                    dataset.rows[other].reply,
                ):
                    yield row, other
    alone = dataset.rows_without_passage
    questions = list(alone)
    for pair in near_pairs(questions, QUESTION_THRESHOLD).pairs:
        row, other = alone[questions[pair.left]][0], alone[questions[pair.right]][0]
        long = weight(questions[pair.left]) >= MIN_OPEN_QUESTION_WEIGHT
        if long or dataset.rows[row].reply == dataset.rows[other].reply:
            yield row, other


def _near_passages(dataset: AuditedSet, pairs: Sequence[tuple[str, str]]) -> Finding:
    groups = []
    touched: set[int] = set()
    for left, right in pairs:
        with_left, with_right = dataset.rows_of_unit[left], dataset.rows_of_unit[right]
        both = {*with_left} & {*with_right}
        # A row that holds both is no near copy of itself, nor of one whose passage it has.
        only_left = [row for row in with_left if row not in both]
        only_right = [row for row in with_right if row not in both]
        if only_left and only_right:
            groups.append(references(dataset.examples, [only_left[0], only_right[0]]))
            touched.update(only_left, only_right)
    return Finding("near_passages", len(touched), tuple(groups))


def _short_answers(dataset: AuditedSet) -> list[int]:
    lengths = [len(row.reply) for row in dataset.rows]
    shortest = SHORT_SHARE * statistics.median(lengths) if lengths else 0
    return [
        index
        for index, example in enumerate(dataset.examples)
        if lengths[index] < shortest or not _says_something(example)
    ]


def _says_something(example: Example) -> bool:
    if example.conversation.messages[-1].tool_calls:
        return True
    return any(unicodedata.category(char)[0] in _SAYING for char in example.conversation.reply)


def _not_in_passage(dataset: AuditedSet) -> list[int]:
    standing = _standing(dataset)
    enough = len(standing) >= MIN_EXTRACTIVE_ROWS
    if not enough or sum(standing.values()) < EXTRACTIVE_SHARE * len(standing):
        return []
    return [row for row, stands in standing.items() if not stands]


def _standing(dataset: AuditedSet) -> dict[int, bool]:
    """For each row with a passage, whether its answer (or one of them) stands in it."""
    standing = {}
    for index, (row, units) in enumerate(zip(dataset.rows, dataset.units, strict=True)):
        if units:
            passage = " ".join(row.lines)
            answers = {row.reply, *row.references}
            standing[index] = any(answer and contains(passage, answer) for answer in answers)
    return standing


def _copies(kind: FindingKind, dataset: AuditedSet, groups: Sequence[Sequence[int]]) -> Finding:
    return Finding(
        kind,
        sum(len(group) - 1 for group in groups),
        tuple(references(dataset.examples, group) for group in groups),
    )


def _pairs(kind: FindingKind, dataset: AuditedSet, pairs: Iterable[tuple[int, int]]) -> Finding:
    found = sorted(set(pairs))
    return Finding(
        kind,
        len({right for _, right in found}),
        tuple(references(dataset.examples, pair) for pair in found),
    )


def _singles(kind: FindingKind, dataset: AuditedSet, rows: Sequence[int]) -> Finding:
    groups: list[tuple[RowReference, ...]] = [references(dataset.examples, [row]) for row in rows]
    return Finding(kind, len(rows), tuple(groups))
