"""Decisions and the comparison of two runs, as text and tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from loracle.decision.compare import RunComparison
from loracle.decision.settling import MOST_TIMES, settle_one
from loracle.plan import DecisionPlan
from loracle.statistics import Comparison
from loracle.text import (
    metric_name,
    p_value,
    shown_difference,
    shown_interval,
    shown_score,
    visible,
)

Language = Literal["en", "zh"]

_HEADINGS = {"en": ("Why:", "On {name} alone: "), "zh": ("理由：", "仅看 {name}：")}
_READ_FIRST = {"en": "Read this first:", "zh": "请先阅读："}


def decision_sentence(decisions: Sequence[Mapping[str, Any]], language: Language = "en") -> str:
    """The overall decision in one sentence."""
    return visible(str(decisions[0]["sentence"][language]))


def decision_lines(decisions: Sequence[Mapping[str, Any]], language: Language = "en") -> list[str]:
    """The overall decision and its reasons, then those by evaluation set if there is more than
    one."""
    why, alone = _HEADINGS[language]
    overall, *single = decisions
    lines = [decision_sentence(decisions, language), "", why]
    lines += _reasons(overall, language)
    for decision in single:
        name = visible(str(decision["evaluation"]))
        lines += ["", f"{alone.format(name=name)}{visible(decision['sentence'][language])}"]
        lines += _reasons(decision, language, skip_rule=True)
    return lines


def read_first_lines(facts: Sequence[Mapping[str, Any]], language: Language = "en") -> list[str]:
    """What could overturn the decision, as a short list; empty if nothing is known."""
    if not facts:
        return []
    return [_READ_FIRST[language], *(f"- {visible(fact['text'][language])}" for fact in facts)]


def alone_lines(decisions: Sequence[Mapping[str, Any]], language: Language = "en") -> list[str]:
    """The sentence for each evaluation set, if there is more than one."""
    alone = _HEADINGS[language][1]
    return [
        f"{alone.format(name=visible(one['evaluation']))}{visible(one['sentence'][language])}"
        for one in decisions[1:]
    ]


def other_rule_note(frozen: DecisionPlan) -> str:
    """What to know when the rule differs from the plan's."""
    return (
        f"the plan's rule was {frozen.metric} at {frozen.confidence:.0%}, least gain "
        f"{frozen.min_gain:g}; a rule chosen after the scores are known is weaker evidence"
    )


def _reasons(
    decision: Mapping[str, Any], language: Language, *, skip_rule: bool = False
) -> list[str]:
    reasons = decision["reasons"][1 if skip_rule else 0 :]
    return [f"  {visible(reason[language])}" for reason in reasons]


def run_comparison_tables(found: RunComparison) -> list[Table]:
    """B minus A for each pair of rows: a table for each shared set and one for their mean."""
    scopes = dict.fromkeys(comparison.evaluation for comparison in found.comparisons)
    return [_run_comparison_table(found, scope) for scope in scopes]


def _run_comparison_table(found: RunComparison, scope: str | None) -> Table:
    name = visible(scope) if scope is not None else f"mean of {len(found.shared)} sets"
    table = Table(
        title=Text(f"{name} · {metric_name(found.metric)}"),
        caption=Text(
            f"second lines: intervals at confidence {found.confidence:.4g}, and how many questions "
            f"would settle it. equal: a difference of "
            f"{shown_difference(found.metric, found.worth).lstrip('+')} is ruled out"
        ),
    )
    table.add_column("row", overflow="fold")
    for header in ("A", "B", "B less A", "corrected p", "better"):
        table.add_column(header, justify="right", no_wrap=True)
    for comparison in found.comparisons:
        if comparison.evaluation == scope:
            table.add_row(*map(Text, _comparison_cells(comparison, found)))
    return table


def _comparison_cells(comparison: Comparison, found: RunComparison) -> list[str]:
    metric, scope = found.metric, comparison.evaluation
    means = found.means[scope] if scope is not None else found.mean_over_sets
    name_b, name_a = (row.split(": ", 1)[1] for row in (comparison.a, comparison.b))
    return [
        visible(name_a if name_a == name_b else f"{comparison.b} · {comparison.a}"),
        shown_score(metric, means[comparison.b]),
        shown_score(metric, means[comparison.a]),
        f"{shown_score(metric, comparison.difference, signed=True)}\n"
        f"{shown_interval(metric, comparison.low, comparison.high)}",
        p_value(comparison.p_corrected),
        _verdict_of(comparison),
    ]


def _verdict_of(comparison: Comparison) -> str:
    """A, B, equal, or that it cannot be told and what would settle it."""
    if comparison.better is not None:
        return comparison.better.split(":", 1)[0]
    if comparison.absent:
        return "equal"
    num_asked = comparison.num_a_better + comparison.num_b_better + comparison.num_equal
    total = settle_one(comparison)
    if total is None or total > MOST_TIMES * num_asked:
        return f"cannot tell\n> {MOST_TIMES} times the questions"
    return f"cannot tell\nabout {total:,} questions"


def run_comparison_lines(found: RunComparison) -> list[str]:
    """The differences between the plans, and which evaluation sets were left out."""
    lines = ["What differs in the plans:"] if found.plan_changes else ["The plans are the same."]
    lines += [f"  {visible(change)}" for change in found.plan_changes]
    if found.unshared:
        names = ", ".join(map(visible, found.unshared))
        lines.append(f"Not compared, because only one run used them: {names}")
    return lines
