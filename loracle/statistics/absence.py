"""When a gain worth having is ruled out: a claim of absence, with its own error probability.

An upper bound below the gain worth having shows that it is absent (one-sided; between candidates
both sides, as in Schuirmann 1987, J. Pharmacokin. Biopharm. 15, 657-680). Bounds are Student's t on
clustered differences. Answers that hardly differ have hardly any variance, yet a few questions
outside the sample may differ: the variance is never taken to be below that of a gain that is just
worth having and comes from a few whole clusters. In simulations without this floor, such
candidates were called equal too often; with it, false claims stay below their level.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import special

from loracle.statistics.power import POWER, Precision, fewest_questions


class _Error(NamedTuple):
    """Standard error by questions and seeds together, and its degrees of freedom."""

    size: float
    degrees_of_freedom: float


def p_absent(gain: float, worth: float, precision: Precision) -> float:
    """The p-value of the hypothesis that the true gain is `worth` or more; 1 if nothing can be
    said.

    Between candidates `gain` is the size of their difference, whoever is ahead.
    """
    error = _error(precision)
    if error is None:
        return 1.0
    return float(special.stdtr(error.degrees_of_freedom, (gain - worth) / error.size))


def largest_gain(gain: float, precision: Precision, level: float) -> float | None:
    """The upper bound of the gain at this level; None if nothing can be said."""
    error = _error(precision)
    if error is None:
        return None
    return gain + error.size * float(special.stdtrit(error.degrees_of_freedom, 1 - level))


def questions_to_absence(
    gain: float, worth: float, precision: Precision, level: float, num_questions: int
) -> int | None:
    """How many questions like these rule out `worth` with a chance of POWER, if `gain` is true.

    None if no number does: the gain is worth having, or the uncertainty from seeds alone is too
    large.
    """
    if gain >= worth or _error(precision) is None:
        return None

    def enough(times: float) -> bool:
        error = _error(precision.with_questions(times))
        assert error is not None, "more questions do not make the error unknown"
        reach = special.stdtrit(error.degrees_of_freedom, 1 - level)
        reach += special.stdtrit(error.degrees_of_freedom, POWER)
        return bool(gain + error.size * float(reach) <= worth)

    return fewest_questions(enough, num_questions)


def _error(precision: Precision) -> _Error | None:
    """None if it is unknown, or 0 in unbounded scores."""
    by_questions = max(precision.error**2, precision.least_variance)
    by_seeds = precision.seed_error**2
    # NaN, with one cluster in a set, is not above 0.
    if not (precision.error >= 0 and by_questions > 0):
        return None
    total = by_questions + by_seeds
    parts = by_questions**2 / precision.degrees_of_freedom
    if by_seeds:
        parts += by_seeds**2 / precision.seed_degrees_of_freedom
    return _Error(math.sqrt(total), total**2 / parts)
