"""From the scores of single questions to estimates and corrected comparisons.

    scores of every row (base, candidates), seed and question, the cluster of every question
      -> for each evaluation set, and for the plain mean over the sets if there is more than one:
         Estimate of every row, Comparison of every candidate with the base and of every pair

Every random number depends only on a fixed seed and the clusters' order in the evaluation set: the
same scores give the same figures, regardless of the order of trials and candidates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from loracle.statistics import absence
from loracle.statistics.correction import holm, holm_levels
from loracle.statistics.power import Precision, questions_needed, smallest_visible_difference
from loracle.statistics.records import Analysis, Comparison, ScoredSet, SetFacts, Terms
from loracle.statistics.scope import Scope


def analyse(sets: Sequence[ScoredSet], base: str, terms: Terms) -> Analysis:
    """Estimates of every row, and every comparison, corrected for all of them together.

    sets: each has the same rows, the base among them, in the plan's order.
    """
    rows = list(sets[0].scores)
    assert base in rows, "the base model is always a row"
    candidates = tuple(row for row in rows if row != base)
    pairs = [*((row, base) for row in candidates), *itertools.combinations(candidates, 2)]
    scopes = _scopes(sets, pairs, frozenset({base}), terms)
    comparisons = _corrected(scopes, base, terms)
    return Analysis(
        base=base,
        candidates=candidates,
        terms=terms,
        sets=tuple(_facts(scope, comparisons) for scope in scopes),
        estimates=tuple(estimate for scope in scopes for estimate in scope.estimates(base)),
        comparisons=comparisons,
    )


def compare(
    sets: Sequence[ScoredSet],
    pairs: Sequence[tuple[str, str]],
    untrained: frozenset[str],
    terms: Terms,
) -> tuple[Comparison, ...]:
    """Only these pairs of rows, with no margin, corrected for all of them together.

    untrained: rows without seeds, such as the base models of two runs.
    """
    return _corrected(_scopes(sets, pairs, untrained, terms), None, terms)


def _scopes(
    sets: Sequence[ScoredSet],
    pairs: Sequence[tuple[str, str]],
    untrained: frozenset[str],
    terms: Terms,
) -> list[Scope]:
    """Each set, then all of them together if there is more than one."""
    assert sets, "there is at least one evaluation set"
    members: list[tuple[str | None, Sequence[ScoredSet]]] = [(one.name, [one]) for one in sets]
    if len(sets) > 1:
        members.append((None, sets))
    num_comparisons = len(pairs) * len(members)
    return [
        Scope(evaluation, several, pairs, untrained, terms, num_comparisons)
        for evaluation, several in members
    ]


def _corrected(scopes: Sequence[Scope], base: str | None, terms: Terms) -> tuple[Comparison, ...]:
    """Every scope's comparisons, completed with the results that depend on all of them."""
    raw = [comparison for scope in scopes for comparison in scope.comparisons(base)]
    precisions = [precision for scope in scopes for precision in scope.precisions]
    sizes = [scope.num_questions for scope in scopes for _ in scope.pairs]
    p_values = [comparison.p for comparison in raw]
    adjusted = holm(p_values)
    levels = holm_levels(p_values, 1 - terms.confidence)
    shown = [
        replace(
            comparison,
            p_corrected=p,
            better=_better(comparison, p, terms),
            smallest_visible=smallest_visible_difference(precision, level),
            questions_needed=questions_needed(
                _beyond_margin(comparison, terms), precision, level, size
            ),
        )
        for comparison, precision, size, p, level in zip(
            raw, precisions, sizes, adjusted, levels, strict=True
        )
    ]
    return _with_absence(shown, precisions, sizes, base, terms)


def _with_absence(
    comparisons: Sequence[Comparison],
    precisions: Sequence[Precision],
    sizes: Sequence[int],
    base: str | None,
    terms: Terms,
) -> tuple[Comparison, ...]:
    """What is ruled out; comparisons with the base and those between candidates are corrected
    separately."""
    gains = [_gain(comparison, base, terms) for comparison in comparisons]
    p_values = [
        absence.p_absent(gain, terms.worth, precision)
        for gain, precision in zip(gains, precisions, strict=True)
    ]
    alpha = 1 - terms.confidence
    found = list(comparisons)
    for with_base in (True, False):
        places = [i for i, one in enumerate(comparisons) if (one.b == base) == with_base]
        family = [p_values[i] for i in places]
        for i, p, level in zip(places, holm(family), holm_levels(family, alpha), strict=True):
            found[i] = replace(
                comparisons[i],
                absent=_is_shown(p, terms),
                p_absent=p,
                largest=absence.largest_gain(gains[i], precisions[i], level),
                questions_to_absence=absence.questions_to_absence(
                    gains[i], terms.worth, precisions[i], level, sizes[i]
                ),
            )
    return tuple(found)


def _gain(comparison: Comparison, base: str | None, terms: Terms) -> float:
    """The gain of a over the base; between candidates, the size of their difference."""
    if comparison.b != base:
        return abs(comparison.difference)
    return comparison.difference if terms.higher_is_better else -comparison.difference


def _is_shown(p_corrected: float, terms: Terms) -> bool:
    """Whether a corrected p-value is small enough for a claim."""
    # 1 - 0.95 is a little more than 0.05; a p-value of exactly 0.05 should count as shown.
    return p_corrected <= (1 - terms.confidence) * (1 + 1e-9)


def _better(comparison: Comparison, p_corrected: float, terms: Terms) -> str | None:
    if not _is_shown(p_corrected, terms):
        return None
    a_is_better = (comparison.difference > 0) == terms.higher_is_better
    return comparison.a if a_is_better else comparison.b


def _beyond_margin(comparison: Comparison, terms: Terms) -> float:
    """How far the gain of a lies outside the range from 0 to the margin."""
    gain = comparison.difference if terms.higher_is_better else -comparison.difference
    return max(gain - comparison.margin, 0.0) if gain >= 0 else gain


def _facts(scope: Scope, comparisons: Sequence[Comparison]) -> SetFacts:
    visible = [
        comparison.smallest_visible
        for comparison in comparisons
        if comparison.evaluation == scope.evaluation and comparison.smallest_visible is not None
    ]
    return SetFacts(
        scope.evaluation,
        scope.num_questions,
        scope.num_clusters,
        float(np.median(visible)) if visible else None,
        scope.seeds.variance if scope.seeds.degrees_of_freedom else None,
    )
