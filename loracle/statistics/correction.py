"""Multiple comparisons: the chance of any false finding among them stays bounded."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Holm 1979, Scand. J. Statist. 6, 65-70).

    Comparing each with alpha keeps the chance of any false finding at alpha or below, however
    the comparisons depend on one another.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level at which Holm's procedure tests, or would test, each comparison.

    A rejected one was tested at alpha over the number not rejected before it. Any other would be
    the next if its p-value were small enough, at alpha over the number of those not rejected.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    levels = [0.0] * len(p_values)
    num_left = len(p_values)
    for i in order:
        levels[i] = alpha / num_left
        # With the same tolerance for rounding as the comparison of adjusted p-values.
        if p_values[i] <= levels[i] * (1 + 1e-9):
            num_left -= 1
        else:
            break
    rejected = set(order[: len(p_values) - num_left])
    return [level if i in rejected else alpha / max(1, num_left) for i, level in enumerate(levels)]
