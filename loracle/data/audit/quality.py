"""What is doubtful within one dataset: copies, contradictions, answers that are none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

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
from loracle.data.audit.near import near_texts
from loracle.data.audit.rows import AuditedSet

EXTRACTIVE_SHARE = 0.8
MIN_EXTRACTIVE_ROWS = 10
"""A set is extractive where this share of the answers stands in the passage, of so many rows."""

SHORT_SHARE = 0.02
"""An answer this short, relative to the median one, is absurdly short: 4 letters among 200."""


def findings(dataset: AuditedSet) -> list[Finding]:
    """Everything doubtful in a dataset, in the order of FINDING_MEANINGS."""
    exact, normalised = _duplicates(dataset)
    near = near_texts(dataset.unit_texts, PASSAGE_THRESHOLD).pairs
    pairs = [(pair.left, pair.right) for pair in near]
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
    with_passage = dataset.has_passage
    stands = dataset.rows.stands[with_passage]
    return Extractiveness(int(with_passage.sum()), int(stands.sum()))


def _duplicates(dataset: AuditedSet) -> tuple[list[list[int]], list[list[int]]]:
    """Rows with the same prompt and answer: groups equal to the letter, and groups nearly so."""
    exact, normalised = [], []
    replies = dataset.rows.replies
    for rows in dataset.rows_of_prompt.several():
        by_reply: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            by_reply[int(replies[row])].append(row)
        for same in by_reply.values():
            if len(same) < 2:
                continue
            by_text: dict[str, list[int]] = defaultdict(list)
            for row in same:
                by_text[repr(dataset.examples[row].conversation)].append(row)
            exact += [group for group in by_text.values() if len(group) > 1]
            if len(by_text) > 1:
                normalised.append([group[0] for group in by_text.values()])
    return exact, normalised


def _conflicts(dataset: AuditedSet) -> Finding:
    groups = []
    for rows in dataset.rows_of_prompt.several():
        if not frozenset.intersection(*map(dataset.rows.references_of, rows)):
            groups.append(references(dataset.examples, rows))
    return Finding("conflicting_answers", sum(map(len, groups)), tuple(groups))


def _near_rows(
    dataset: AuditedSet, near_units: Iterable[tuple[int, int]]
) -> Iterable[tuple[int, int]]:
    """Rows that ask the same of nearly the same passage, or nearly the same of none."""
    questions, replies = dataset.rows.questions, dataset.rows.replies
    for left, right in near_units:
        with_right = dataset.rows_of_unit[right]
        for row in dataset.rows_of_unit[left]:
            asked, reply = questions[row], replies[row]
            for other in with_right:
                if row != other and (asked, reply) == (questions[other], replies[other]):
                    yield row, other
    alone = dataset.rows_without_passage
    weights = dataset.texts.weights(dataset.lone_questions.ids)
    for pair in near_texts(dataset.lone_questions, QUESTION_THRESHOLD).pairs:
        row, other = alone[pair.left][0], alone[pair.right][0]
        if weights[pair.left] >= MIN_OPEN_QUESTION_WEIGHT or replies[row] == replies[other]:
            yield row, other


def _near_passages(dataset: AuditedSet, pairs: Sequence[tuple[int, int]]) -> Finding:
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
    lengths = dataset.rows.reply_lengths
    shortest = SHORT_SHARE * float(np.median(lengths)) if len(lengths) else 0.0
    found: list[int] = np.flatnonzero((lengths < shortest) | ~dataset.rows.says).tolist()
    return found


def _not_in_passage(dataset: AuditedSet) -> list[int]:
    standing = extractiveness(dataset)
    num = standing.num_with_passage
    if num < MIN_EXTRACTIVE_ROWS or standing.num_in_passage < EXTRACTIVE_SHARE * num:
        return []
    found: list[int] = np.flatnonzero(dataset.has_passage & ~dataset.rows.stands).tolist()
    return found


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
