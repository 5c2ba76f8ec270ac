"""Whether a metric suits the references of an evaluation set, and which one would.

numeric on ["Denver"]                        unreadable: it would score 0 whatever is predicted
em on ["... 6 * 7 = 42 #### 42"]             advised: numeric
f1 on ["B"], ["C"], ["A"]                    advised: choice
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from loracle.metrics import choices, numbers
from loracle.metrics.registry import get_metric

_ADVISED_SHARE = 0.9
"""A metric is advised if it is suited to at least this share of the rows."""
_COMPARED_AS_TEXT = frozenset({"em", "f1", "squad_em", "squad_f1", "cmrc_em", "cmrc_f1"})


def unreadable_references(metric: str, references_by_row: Iterable[Sequence[str]]) -> list[int]:
    """The rows, from 0, in whose references the metric reads nothing; they could only score 0.

    A row is readable if one of its references is.
    """
    reads = get_metric(metric).reads_reference
    if reads is None:
        return []
    return [
        row for row, references in enumerate(references_by_row) if not any(map(reads, references))
    ]


def advised_metric(references_by_row: Sequence[Sequence[str]]) -> str | None:
    """The metric suited to references like these: `choice` for letters, `numeric` for GSM8K's
    `#### 42` and for plain numbers; None if neither fits most rows."""
    kinds: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("choice", choices.is_bare),
        ("numeric", _is_number),
    )
    for name, is_of_kind in kinds:
        num_fitting = sum(any(map(is_of_kind, references)) for references in references_by_row)
        if num_fitting and num_fitting >= _ADVISED_SHARE * len(references_by_row):
            return name
    return None


def better_metric(metric: str, references_by_row: Sequence[Sequence[str]]) -> str | None:
    """The metric to use instead of one that compares texts, if that would be misleading: for
    answers in letters or after GSM8K's `####`. None if the metric may be used."""
    if metric not in _COMPARED_AS_TEXT:
        return None
    advised = advised_metric(references_by_row)
    if advised == "numeric" and not any(
        numbers.has_marked_number(reference)
        for references in references_by_row
        for reference in references
    ):
        # Plain numbers can safely be compared as texts if the answers are plain numbers.
        return None
    return advised


def _is_number(reference: str) -> bool:
    return numbers.has_marked_number(reference) or numbers.is_bare(reference)
