"""What a candidate's training rows know of an evaluation set. Names it; alters nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from loracle.data.audit.containment import occurrences
from loracle.data.audit.findings import LEAK_MEANINGS, Leak, Leakage, LeakKind, excerpt, references
from loracle.data.audit.near import near_pairs
from loracle.data.audit.normalizing import normalized, weight
from loracle.data.audit.rows import AuditedSet
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
            "passage" if left == right else "near_passage",
            similarity,
            train.rows_of_unit[left],
            evaluation.rows_of_unit[right],
        )
        for (left, right), similarity in units.items()
    ]
    return _report(train, evaluation, found, num_untried_units + num_untried_questions)


Units = Mapping[tuple[str, str], float]


def _shared_units(train: AuditedSet, evaluation: AuditedSet) -> Units:
    return {(unit, unit): 1.0 for unit in evaluation.rows_of_unit if unit in train.rows_of_unit}


def _near_units(train: AuditedSet, evaluation: AuditedSet) -> tuple[Units, int]:
    left = list(train.rows_of_unit)
    right = [unit for unit in evaluation.rows_of_unit if unit not in train.rows_of_unit]
    near = near_pairs(left + right, PASSAGE_THRESHOLD, len(left))
    pairs = {
        (left[pair.left], right[pair.right - len(left)]): pair.similarity for pair in near.pairs
    }
    return pairs, near.num_untried


def _same_prompts(train: AuditedSet, evaluation: AuditedSet) -> list[_Found]:
    found = []
    for prompt, evaluated in evaluation.rows_of_prompt.items():
        for row in train.rows_of_prompt.get(prompt, ()):
            reply = train.rows[row].reply
            for other in evaluated:
                same = reply in evaluation.rows[other].references
                found.append(_Found("same_row" if same else "same_prompt", 1.0, [row], [other]))
    return found


def _same_questions_beside(train: AuditedSet, evaluation: AuditedSet, units: Units) -> list[_Found]:
    """Rows that ask the same of the same or nearly the same passage."""
    found: dict[_Pair, float] = {}
    for (left, right), similarity in units.items():
        asked = _by_question(train, train.rows_of_unit[left])
        for other in evaluation.rows_of_unit[right]:
            for row in asked.get(evaluation.rows[other].question, ()):
                pair = _Pair(row, other)
                found[pair] = max(similarity, found.get(pair, 0.0))
    return [
        _Found("near_row", similarity, [pair.train], [pair.evaluation])
        for pair, similarity in found.items()
    ]


def _near_questions(train: AuditedSet, evaluation: AuditedSet) -> tuple[list[_Found], int]:
    """Questions without a passage that are nearly the same."""
    asked = train.rows_without_passage
    left = list(asked)
    right = [question for question in evaluation.rows_without_passage if question not in asked]
    near = near_pairs(left + right, QUESTION_THRESHOLD, len(left))
    found = []
    for pair in near.pairs:
        question = right[pair.right - len(left)]
        for row in asked[left[pair.left]]:
            for other in evaluation.rows_without_passage[question]:
                long = weight(question) >= MIN_OPEN_QUESTION_WEIGHT
                if long or train.rows[row].reply in evaluation.rows[other].references:
                    found.append(_Found("near_row", pair.similarity, [row], [other]))
    return found, near.num_untried


def _same_questions_elsewhere(train: AuditedSet, evaluation: AuditedSet) -> list[_Found]:
    """A long question with the same answer, whatever stands beside it."""
    wanted = _by_question(evaluation, range(len(evaluation.rows)))
    return [
        _Found("same_question", 1.0, [index], [other])
        for index, row in enumerate(train.rows)
        if row.question in wanted and weight(row.question) >= MIN_SAME_QUESTION_WEIGHT
        for other in wanted[row.question]
        if row.reply in evaluation.rows[other].references
    ]


def _answers(train: AuditedSet, evaluation: AuditedSet) -> list[_Found]:
    """Long answers of the evaluation that stand in questions of the training set."""
    asking: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(evaluation.rows):
        for reference in row.references:
            if weight(reference) >= MIN_ANSWER_WEIGHT:
                asking[reference].append(index)
    wanted = [answer for answer, rows in asking.items() if len(rows) <= MAX_ROWS_WITH_ANSWER]
    asked = _by_question(train, range(len(train.rows)))
    questions = list(asked)
    hits = occurrences(wanted, questions)
    times = Counter(hit.needle for hit in hits)
    return [
        _Found("answer", 1.0, asked[questions[hit.text]], asking[wanted[hit.needle]])
        for hit in hits
        if times[hit.needle] <= MAX_QUESTIONS_WITH_ANSWER
    ]


def _by_question(dataset: AuditedSet, rows: Iterable[int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if dataset.rows[row].question:
            found[dataset.rows[row].question].append(row)
    return found


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
        units = train.units[row]
        return next((line for line in parts.passages if normalized(line) in units), units[0])
    return parts.question
