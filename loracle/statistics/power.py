"""What an evaluation set can show: the smallest visible difference, and the questions needed.

A test of level alpha finds a difference d with the stated power once d is as large as the sum of
both quantiles of its distribution, in standard errors. The error from questions shrinks as
questions are added; the error from seeds does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

POWER = 0.8
"""The probability of detecting a difference."""

_MOST_TIMES = 1e9
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Precision:
    """How precisely a difference is known.

    error: standard error by questions, with its degrees of freedom. seed_error: by seeds, with
    theirs; 0 where seeds are not counted. num_clusters: that differ, at most. least_variance: by
    questions, if the difference were just worth having and came from a few whole clusters: what a
    claim of absence assumes at least.
    """

    error: float
    degrees_of_freedom: float
    num_clusters: int
    seed_error: float = 0.0
    seed_degrees_of_freedom: int = 0
    least_variance: float = 0.0

    def with_questions(self, times: float) -> Precision:
        """The precision with `times` as many questions and clusters."""
        return replace(
            self,
            error=self.error / math.sqrt(times),
            degrees_of_freedom=max(1.0, times * (self.degrees_of_freedom + 1) - 1),
            num_clusters=int(times * self.num_clusters),
            least_variance=self.least_variance / times,
        )


def smallest_visible_difference(precision: Precision, alpha: float) -> float | None:
    """The true difference that a two-sided test of level alpha finds with a chance of POWER.

    None if no difference can be shown: with so few clusters there are too few sign patterns for a
    p-value as small as alpha. Also None if the standard error is unknown: one cluster, or
    identical differences.
    """
    if 2.0 ** (1 - precision.num_clusters) > alpha or not precision.error > 0:
        return None
    return math.hypot(
        _reach(precision.error, precision.degrees_of_freedom, alpha),
        _reach(precision.seed_error, precision.seed_degrees_of_freedom, alpha),
    )


def questions_needed(
    difference: float, precision: Precision, alpha: float, num_questions: int
) -> int | None:
    """How many questions like these show `difference` with a chance of POWER, if it is the truth.

    None if no number does: the difference is 0, the uncertainty from seeds alone is too large, or
    the standard error is unknown or 0.
    """
    wanted = abs(difference)
    if not wanted or not precision.error > 0:
        return None

    def visible(times: float) -> bool:
        smallest = smallest_visible_difference(precision.with_questions(times), alpha)
        return smallest is not None and smallest <= wanted

    return fewest_questions(visible, num_questions)


def fewest_questions(enough: Callable[[float], bool], num_questions: int) -> int | None:
    """The smallest sufficient number of questions; None if no number is.

    enough: whether this multiple of `num_questions` is enough; if it is, any larger one is too.
    """
    if not enough(_MOST_TIMES):
        return None
    low, high = 1 / num_questions, _MOST_TIMES
    while high / low > 1 + _TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return math.ceil(high * num_questions * (1 - 2 * _TOLERANCE))


def _reach(error: float, degrees_of_freedom: float, alpha: float) -> float:
    if not error:
        return 0.0
    # Imported where used: reports need only the plain means.
    from scipy import special

    beyond_chance = special.stdtrit(degrees_of_freedom, 1 - alpha / 2)
    return error * float(beyond_chance + special.stdtrit(degrees_of_freedom, POWER))
