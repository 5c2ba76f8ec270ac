"""What a candidate's training rows know of an evaluation set. Names it; alters nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from loracle.data.audit.containment import occurrences
from loracle.data.audit.facts import reference_texts
from loracle.data.audit.findings import LEAK_MEANINGS, Leak, Leakage, LeakKind, excerpt, references
from loracle.data.audit.groups import I64, Groups
from loracle.data.audit.near import near_texts
from loracle.data.audit.normalizing import normalized, weight
from loracle.data.audit.rows import AuditedSet
from loracle.data.audit.texts import TextView, text_hash
from loracle.data.prompt_parts import parts_of

PASSAGE_THRESHOLD = 0.5
"""Jaccard similarity from which two passages are nearly the same. Unrelated passages, of one
article even, stay below 0.2."""
QUESTION_THRESHOLD = 0.7
"""The same for questions that stand alone."""
MIN_OPEN_QUESTION_WEIGHT = 80
"""A shorter question alone is nearly the same only with the same answer: "when did it begin" and
"where did it begin" are two questions."""
MIN_SAME_QUESTION_WEIGHT = 40
"""A shorter question beside another passage is another question."""
MIN_ANSWER_WEIGHT = 24
"""Shorter answers stand in questions by chance: names, years, "the United States"."""
MAX_QUESTIONS_WITH_ANSWER = 3
MAX_ROWS_WITH_ANSWER = 5
"""An answer in more training questions, or to more evaluation rows, is a term or a label."""


class _Pair(NamedTuple):
    train: int
    evaluation: int


class _Found(NamedTuple):
    """A leak, by row indices."""

    kind: LeakKind
    similarity: float
    train: Sequence[int]
    evaluation: Sequence[int]


def leakage(train: AuditedSet, evaluation: AuditedSet) -> Leakage:
    """Compare every training row with every evaluation row.

    A pair of rows is named once, by the strongest thing it shares (LEAK_MEANINGS' order).
    """
    shared_units = _shared_units(train, evaluation)
    near_units, num_untried_units = _near_units(train, evaluation)
    near_questions, num_untried_questions = _near_questions(train, evaluation)
    found = _same_prompts(train, evaluation)
    taken = {pair for leak in found for pair in _pairs(leak)}
    units = {**shared_units, **near_units}
    for more in (
        _same_questions_beside(train, evaluation, units),
        near_questions,
        _same_questions_elsewhere(train, evaluation),
        _answers(train, evaluation),
    ):
        found += [leak for leak in more if not taken.issuperset(_pairs(leak))]
        taken.update(pair for leak in more for pair in _pairs(leak))
    found += [
        _Found(
            "passage" if (left, right) in shared_units else "near_passage",
            similarity,
            train.rows_of_unit[left],
            evaluation.rows_of_unit[right],
        )
        for (left, right), similarity in units.items()
    ]
    return _report(train, evaluation, found, num_untried_units + num_untried_questions)


Units = Mapping[tuple[int, int], float]
"""The similarity of passage units, by their groups in the two sets' `rows_of_unit`."""


def _shared_units(train: AuditedSet, evaluation: AuditedSet) -> Units:
    found = train.rows_of_unit.find(evaluation.rows_of_unit.keys)
    return {(left, right): 1.0 for right, left in enumerate(found.tolist()) if left >= 0}


def _near_units(train: AuditedSet, evaluation: AuditedSet) -> tuple[Units, int]:
    own = _unshared(train.rows_of_unit, evaluation.rows_of_unit)
    others = TextView(evaluation.texts, evaluation.unit_texts.ids[own])
    near = near_texts(train.unit_texts, PASSAGE_THRESHOLD, others)
    num_left = len(train.unit_texts)
    pairs = {(pair.left, int(own[pair.right - num_left])): pair.similarity for pair in near.pairs}
    return pairs, near.num_untried


def _unshared(train: Groups, evaluation: Groups) -> I64:
    """The groups of the evaluation set that the training set does not have."""
    return np.flatnonzero(train.find(evaluation.keys) < 0)


def _same_prompts(train: AuditedSet, evaluation: AuditedSet) -> list[_Found]:
    found = []
    asked = train.rows_of_prompt
    for evaluated, group in zip(
        evaluation.rows_of_prompt, asked.find(evaluation.rows_of_prompt.keys).tolist(), strict=True
    ):
        for row in asked[group] if group >= 0 else ():
            for other in evaluated:
                same = _is_accepted(train, row, evaluation, other)
                found.append(_Found("same_row" if same else "same_prompt", 1.0, [row], [other]))
    return found


def _is_accepted(train: AuditedSet, row: int, evaluation: AuditedSet, other: int) -> bool:
    """Whether a training row's reply counts as the answer of an evaluation row."""
    return int(train.rows.replies[row]) in evaluation.rows.references_of(other)


def _same_questions_beside(train: AuditedSet, evaluation: AuditedSet, units: Units) -> list[_Found]:
    """Rows that ask the same of the same or nearly the same passage."""
    found: dict[_Pair, float] = {}
    for (left, right), similarity in units.items():
        asked: dict[int, list[int]] = defaultdict(list)
        for row in train.rows_of_unit[left]:
            if question := int(train.rows.questions[row]):
                asked[question].append(row)
        for other in evaluation.rows_of_unit[right]:
            for row in asked.get(int(evaluation.rows.questions[other]), ()):
                pair = _Pair(row, other)
                found[pair] = max(similarity, found.get(pair, 0.0))
    return [
        _Found("near_row", similarity, [pair.train], [pair.evaluation])
        for pair, similarity in found.items()
    ]


def _near_questions(train: AuditedSet, evaluation: AuditedSet) -> tuple[list[_Found], int]:
    """Questions without a passage that are nearly the same."""
    asked, asking = train.rows_without_passage, evaluation.rows_without_passage
    own = _unshared(asked, asking)
    others = TextView(evaluation.texts, evaluation.lone_questions.ids[own])
    weights = evaluation.texts.weights(others.ids)
    near = near_texts(train.lone_questions, QUESTION_THRESHOLD, others)
    found = []
    for pair in near.pairs:
        place = pair.right - len(asked)
        long = weights[place] >= MIN_OPEN_QUESTION_WEIGHT
        for row in asked[pair.left]:
            for other in asking[int(own[place])]:
                if long or _is_accepted(train, row, evaluation, other):
                    found.append(_Found("near_row", pair.similarity, [row], [other]))
    return found, near.num_untried


def _same_questions_elsewhere(train: AuditedSet, evaluation: AuditedSet) -> list[_Found]:
    """A long question with the same answer, whatever stands beside it."""
    asking = evaluation.rows_of_question
    questions = train.rows.questions
    groups = np.where(questions != 0, asking.find(questions), -1)
    shared = np.flatnonzero(groups >= 0)
    weights = train.texts.weights(train.rows.question_texts[shared])
    return [
        _Found("same_question", 1.0, [row], [other])
        for row in shared[weights >= MIN_SAME_QUESTION_WEIGHT].tolist()
        for other in asking[int(groups[row])]
        if _is_accepted(train, row, evaluation, other)
    ]


def _answers(train: AuditedSet, evaluation: AuditedSet) -> list[_Found]:
    """Long answers of the evaluation that stand in questions of the training set."""
    asking: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(evaluation.examples):
        for reference in reference_texts(example):
            if weight(reference) >= MIN_ANSWER_WEIGHT:
                asking[reference].append(index)
    wanted = [answer for answer, rows in asking.items() if len(rows) <= MAX_ROWS_WITH_ANSWER]
    asked = train.rows_of_question
    hits = occurrences(wanted, train.questions_of(asked))
    times = Counter(hit.needle for hit in hits)
    return [
        _Found("answer", 1.0, asked[hit.text], asking[wanted[hit.needle]])
        for hit in hits
        if times[hit.needle] <= MAX_QUESTIONS_WITH_ANSWER
    ]


def _pairs(leak: _Found) -> Iterable[_Pair]:
    return (_Pair(row, other) for row in leak.train for other in leak.evaluation)


def _report(
    train: AuditedSet, evaluation: AuditedSet, found: Sequence[_Found], num_untried: int
) -> Leakage:
    order = list(LEAK_MEANINGS)
    leaked = {row for leak in found for row in leak.evaluation}
    leaks = [
        Leak(
            leak.kind,
            round(leak.similarity, 3),
            references(train.examples, leak.train),
            references(evaluation.examples, leak.evaluation),
            excerpt(_shown_text(train, leak)),
        )
        for leak in sorted(
            found, key=lambda leak: (order.index(leak.kind), -leak.similarity, leak.evaluation[0])
        )
    ]
    ids = [example.id for example in evaluation.examples]
    return Leakage(
        candidate=train.name,
        evaluation=evaluation.name,
        leaks=tuple(leaks),
        leaked_ids=tuple(name for row, name in enumerate(ids) if row in leaked),
        clean_ids=tuple(name for row, name in enumerate(ids) if row not in leaked),
        num_untried_pairs=num_untried,
    )


def _shown_text(train: AuditedSet, leak: _Found) -> str:
    """What is shared, as the training row writes it."""
    row = leak.train[0]
    parts = parts_of(train.examples[row])
    if leak.kind in ("passage", "near_passage"):
        units = train.units_of(row)
        hashes = set(train.texts.hashes(np.array(units)).tolist())
        shown = (line for line in parts.passages if text_hash(normalized(line)) in hashes)
        return next(shown, None) or train.texts.text(units[0])
    return parts.question
