"""How many more questions of the same kind would settle what an evaluation cannot tell yet.

An open comparison is settled by whichever comes first at the observed difference: it is shown, or a
difference worth having is ruled out. Both are planned with the power that `statistics.power`
states. A chance finding looks larger than it is, so the number is a starting point, not a promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from loracle.statistics import Comparison, SetFacts

MOST_TIMES = 10
"""Beyond this multiple of the questions asked, adding more is not practical: no number is given."""


class MoreQuestions(NamedTuple):
    """About how many to add, and in how many independent groups."""

    questions: int
    groups: int


def settle_one(comparison: Comparison) -> int | None:
    """All questions needed to show the difference or to rule it out; None: no number settles it."""
    numbers = (comparison.questions_needed, comparison.questions_to_absence)
    return min((number for number in numbers if number is not None), default=None)


def settle_none_helps(
    leader: Comparison, others: Sequence[Comparison], *, is_ahead: bool
) -> int | None:
    """All questions needed to show that the leader helps, or that none does.

    leader: against the base; others: the same for those that may still gain something. is_ahead:
    the leader gains more than its margin; if not, only absence can be shown.
    """
    absent = [comparison.questions_to_absence for comparison in (leader, *others)]
    known = [number for number in absent if number is not None]
    none_helps = max(known) if len(known) == len(absent) else None
    return _least(leader.questions_needed, none_helps) if is_ahead else none_helps


def settle_contenders(pairs: Sequence[Comparison]) -> int | None:
    """All questions needed to settle every pair of the leader with a contender."""
    numbers = [settle_one(pair) for pair in pairs]
    known = [number for number in numbers if number is not None]
    return max(known) if len(known) == len(numbers) else None


def more_questions(total: int | None, facts: SetFacts) -> MoreQuestions | None:
    """What to add to the questions asked; None if that is more than MOST_TIMES as many."""
    asked = facts.num_questions
    if total is None or total > MOST_TIMES * asked:
        return None
    per_group = asked / facts.num_clusters
    # The formula may say that the questions asked are enough although the test found nothing.
    questions = _rounded_up(max(total - asked, math.ceil(per_group)))
    return MoreQuestions(questions, math.ceil(questions / per_group))


def _least(one: int | None, other: int | None) -> int | None:
    return min((number for number in (one, other) if number is not None), default=None)


def _rounded_up(number: int) -> int:
    """Rounded to two digits: 1,234 -> 1,300. More digits would claim too much."""
    step: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // step) * step
