"""The decision: a rule stated before any score existed, applied to the comparisons.

On one evaluation set, at the rule's confidence and with p-values corrected for all comparisons:

1. A candidate helps if it is shown to be better than the base by more than min_gain, and is
   harmful if it is shown to be worse than the base. For the others, a gain worth having is either
   ruled out (an upper bound lies below it) or open.
2. No candidate helps: `harmful` if all are harmful; `none_helps` if a gain worth having is ruled
   out for every candidate; else `cannot_tell`. Keep the base.
3. The leader is the helping candidate with the best mean. Contenders are the leader and every
   candidate that is not shown to be worse than the leader.
4. The leader alone: `use`. Several contenders: `equal` if a difference worth having is ruled out
   between the leader and every other contender, else `cannot_tell`. Either way the cheapest of
   those that help (fewest training tokens computed) is recommended, but it is no winner.

Over several sets the same rule is applied to the plain mean over the sets, and a candidate that is
shown to be worse than the base on any set (it forgets) neither helps nor contends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from loracle.decision.settling import (
    MoreQuestions,
    more_questions,
    settle_contenders,
    settle_none_helps,
)
from loracle.statistics import Analysis, Comparison

Verdict = Literal["use", "equal", "cannot_tell", "none_helps", "harmful", "undecided"]
"""`cannot_tell`: there are too few questions. `undecided`: no candidate finished, so there is
nothing to compare."""


@dataclass(frozen=True)
class Decision:
    """What the rule says about one evaluation set, or (`evaluation` None) about all of them."""

    evaluation: str | None
    verdict: Verdict
    winner: str | None = None
    """Only where the verdict is `use`."""
    recommended: str | None = None
    """The winner, or the cheapest of the helping contenders; None: keep the base (for now, or for
    good if none helps)."""
    leader: str | None = None
    """The best of those that help, or of all if none helps."""
    contenders: tuple[str, ...] = ()
    """The leader and those not shown to be worse than it, best mean first; empty if none helps."""
    helpful: tuple[str, ...] = ()
    harmful: tuple[str, ...] = ()
    """Shown to be worse than the base: on this set, or on the mean over all."""
    forgetting: tuple[Comparison, ...] = ()
    """Comparisons with the base on single sets in which a candidate is shown to be worse (overall
    only)."""
    open: tuple[Comparison, ...] = ()
    """What cannot be told yet: of candidates with the base if none helps, else of the leader with
    contenders. Those with the best mean first."""
    more: MoreQuestions | None = None
    """What would settle it; None: nothing is open, or more than ten times as many are needed."""


def decide(analysis: Analysis, costs: Mapping[str, float]) -> list[Decision]:
    """The overall decision first, then one for each evaluation set if there are several.

    costs: training tokens computed for each candidate.
    """
    names = [facts.evaluation for facts in analysis.sets]
    single = [name for name in names if name is not None]
    if len(single) == 1:
        return [_decide(analysis, costs, single[0], ())]
    forgetting = tuple(
        comparison
        for comparison in analysis.comparisons
        if comparison.b == comparison.better == analysis.base and comparison.evaluation is not None
    )
    overall = _decide(analysis, costs, None, forgetting)
    return [overall, *(_decide(analysis, costs, name, ()) for name in single)]


def undecided(evaluations: Sequence[str]) -> list[Decision]:
    """The decision when no candidate finished."""
    names: list[str | None] = [None] if len(evaluations) > 1 else []
    return [Decision(name, "undecided") for name in (*names, *evaluations)]


def _decide(
    analysis: Analysis,
    costs: Mapping[str, float],
    evaluation: str | None,
    forgetting: tuple[Comparison, ...],
) -> Decision:
    base = analysis.base
    direction = 1 if analysis.terms.higher_is_better else -1
    # Equal means stay in the plan's order; only a tie in cost depends on it below.
    ranked = sorted(
        analysis.candidates, key=lambda name: -direction * analysis.estimate(name, evaluation).mean
    )

    def better(a: str, b: str) -> bool:
        return analysis.comparison(a, b, evaluation).better == a

    harmful = tuple(name for name in ranked if better(base, name))
    forgets = {comparison.a for comparison in forgetting}
    eligible = [name for name in ranked if name not in forgets]
    helpful = tuple(name for name in eligible if better(name, base))
    if not helpful:
        nobody = Decision(evaluation, "none_helps", harmful=harmful, forgetting=forgetting)
        return _without_helpful(nobody, analysis, eligible or ranked)
    leader = helpful[0]
    contenders = tuple(name for name in eligible if name == leader or not better(leader, name))
    decision = Decision(
        evaluation,
        "use",
        recommended=min(
            (name for name in contenders if name in helpful), key=lambda name: costs[name]
        ),
        leader=leader,
        contenders=contenders,
        helpful=helpful,
        harmful=harmful,
        forgetting=forgetting,
    )
    return _among_contenders(decision, analysis)


def _without_helpful(decision: Decision, analysis: Analysis, ranked: Sequence[str]) -> Decision:
    """None helps, or it cannot be told. ranked: those that may be recommended, best mean first."""
    if len(decision.harmful) == len(analysis.candidates):
        return replace(decision, verdict="harmful", leader=ranked[0])
    with_base = [
        analysis.comparison(name, analysis.base, decision.evaluation)
        for name in ranked
        if name not in {comparison.a for comparison in decision.forgetting}
    ]
    still_open = tuple(
        comparison
        for comparison in with_base
        if not comparison.absent and comparison.a not in decision.harmful
    )
    if not still_open:
        return replace(decision, leader=ranked[0])
    first, *others = still_open
    gain = first.difference if analysis.terms.higher_is_better else -first.difference
    total = settle_none_helps(first, others, is_ahead=gain > first.margin)
    return replace(
        decision,
        verdict="cannot_tell",
        leader=first.a,
        open=still_open,
        more=more_questions(total, analysis.facts(decision.evaluation)),
    )


def _among_contenders(decision: Decision, analysis: Analysis) -> Decision:
    """The leader alone, or equals, or it cannot be told which is best."""
    leader = decision.leader
    assert leader is not None
    pairs = [
        analysis.comparison(leader, name, decision.evaluation)
        for name in decision.contenders
        if name != leader
    ]
    if not pairs:
        return replace(decision, winner=leader)
    still_open = tuple(pair for pair in pairs if not pair.absent)
    if not still_open:
        return replace(decision, verdict="equal")
    total = settle_contenders(still_open)
    return replace(
        decision,
        verdict="cannot_tell",
        open=still_open,
        more=more_questions(total, analysis.facts(decision.evaluation)),
    )
