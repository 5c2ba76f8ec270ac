"""What the metrics of short answers share: the best reference, equality, shared tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from loracle.metrics.references import check_references

_Form = TypeVar("_Form", str, list[str])


def best(
    compare: Callable[[_Form, _Form], float],
    normalise: Callable[[str], _Form],
    prediction: str,
    references: Sequence[str],
) -> float:
    """The highest value of `compare` over the references, both sides normalised."""
    check_references(references)
    predicted = normalise(prediction)
    return max(compare(predicted, normalise(reference)) for reference in references)


def equality(predicted: _Form, reference: _Form) -> float:
    return float(predicted == reference)


def overlap_f1(predicted: list[str], reference: list[str]) -> float:
    num_shared = sum((Counter(predicted) & Counter(reference)).values())
    return harmonic_mean(num_shared, len(predicted), len(reference))


def harmonic_mean(num_shared: int, num_predicted: int, num_reference: int) -> float:
    """F1 of precision and recall, in the official scripts' order of operations."""
    if num_shared == 0:
        return 0.0
    precision = num_shared / num_predicted
    recall = num_shared / num_reference
    return 2 * precision * recall / (precision + recall)
