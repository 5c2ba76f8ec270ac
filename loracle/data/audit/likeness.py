"""Whether a candidate teaches what an evaluation set asks: answers of the same kind and length."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from loracle.data.audit import AuditedSet, extractiveness
from loracle.data.audit.quality import EXTRACTIVE_SHARE, MIN_EXTRACTIVE_ROWS

MIN_LENGTH_RATIO = 4.0
"""Answers this many times longer or shorter are of another kind; EM and F1 count it as wrong."""


class Difference(NamedTuple):
    """What differs, and what to do. serious: it looks like a mistake in the data."""

    message: str
    fix: str
    serious: bool


def differences(candidate: AuditedSet, evaluation: AuditedSet) -> list[Difference]:
    """What sets a candidate's answers apart from an evaluation set's."""
    return [*_passages(candidate, evaluation), *_lengths(candidate, evaluation)]


def _passages(candidate: AuditedSet, evaluation: AuditedSet) -> list[Difference]:
    ours, theirs = extractiveness(candidate), extractiveness(evaluation)
    if min(ours.num_with_passage, theirs.num_with_passage) < MIN_EXTRACTIVE_ROWS:
        return []
    if (theirs.share or 0.0) < EXTRACTIVE_SHARE or (ours.share or 0.0) >= EXTRACTIVE_SHARE:
        return []
    return [
        Difference(
            f"{ours.num_in_passage:,} of {ours.num_with_passage:,} answers appear in their passage "
            f"({ours.share:.0%}), where {theirs.share:.0%} of {evaluation.name}'s do",
            "check whether the answers belong to other rows, or are intended to be free text",
            serious=True,
        )
    ]


def _lengths(candidate: AuditedSet, evaluation: AuditedSet) -> list[Difference]:
    ours, theirs = _median_length(candidate), _median_length(evaluation)
    if min(ours, theirs) <= 0 or max(ours, theirs) / min(ours, theirs) < MIN_LENGTH_RATIO:
        return []
    comparison = "longer" if ours > theirs else "shorter"
    return [
        Difference(
            f"answers are {max(ours, theirs) / min(ours, theirs):.1f} times {comparison} than "
            f"{evaluation.name}'s (median {ours:g} against {theirs:g} characters)",
            "exact match and F1 count answers of another length as wrong; use a metric that does "
            "not, or make the answers uniform",
            serious=False,
        )
    ]


def _median_length(dataset: AuditedSet) -> float:
    shortest = dataset.rows.shortest_references
    return float(np.median(shortest)) if len(shortest) else 0.0
