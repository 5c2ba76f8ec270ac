"""The part of a plan whose data can be read, for a program that runs what it can.

`loracle run` refuses a plan with a file that cannot be read; a program that was given many files
may want the others' results, and be told which failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from loracle.data.holdout import hold_out_least
from loracle.data_check.datasets import read_local_datasets
from loracle.plan import HoldoutPlan, Plan

# A passage of few rows may be more than the smallest share of them.
_FEW_ROWS = 1000


class UsablePart(NamedTuple):
    """What is left of a plan."""

    plan: Plan | None
    """Only candidates that can be read, and the evaluation sets that they name; None if there are
    none."""
    failures: Mapping[str, str]
    """By candidate, why it is left out."""


def usable_part(
    plan: Plan, named_evaluations: Mapping[str, str | None], holdout_shares: Sequence[float]
) -> UsablePart:
    """Leave out every candidate of which a file cannot be read. Files of a hub are not looked at.

    Args:
        named_evaluations: By candidate, the evaluation set that came with it. If that cannot be
            read, the candidate fails. A set that no remaining candidate names is left out.
        holdout_shares: If no evaluation set remains, rows are held out by the first of these
            shares that leaves rows on both sides, tried if the rows are few; else by the
            first.

    Raises:
        DataError: no share leaves rows on both sides.
    """
    found = read_local_datasets(plan)
    reasons = {(one.kind, one.name): "; ".join(one.error) for one in found if one.error}
    failures = {
        name: reason
        for name, evaluation in named_evaluations.items()
        if (
            reason := reasons.get(("candidate", name))
            or reasons.get(("evaluation", evaluation or ""))
        )
    }
    left = [one for one in plan.candidates if one.name not in failures]
    if not left:
        return UsablePart(None, failures)
    asked = {named_evaluations[one.name] for one in left}
    evaluations = [one for one in plan.evaluation if one.name in asked]
    holdout = None
    if not evaluations:
        holdout = HoldoutPlan(share=holdout_shares[0])
        rows = {
            one.name: one.examples
            for one in found
            if one.kind == "candidate" and one.name not in failures
        }
        if len(rows) == len(left) and sum(map(len, rows.values())) <= _FEW_ROWS:
            share = hold_out_least(rows, holdout_shares, holdout.seed).share
            holdout = HoldoutPlan(share=share)
    changes = {"candidates": left, "evaluation": evaluations, "holdout": holdout}
    return UsablePart(plan.model_copy(update=changes), failures)
