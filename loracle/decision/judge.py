"""Evidence to estimates, comparisons and decisions, as results.json holds them.

Every metric is analysed as if it decided, with its own correction over all its comparisons; the
decisions rest on the rule's metric alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loracle.decision import wording
from loracle.decision.evidence import Evidence
from loracle.decision.grave_facts import (
    CleanVerdict,
    GraveFact,
    fact_record,
    grave_facts,
    mostly_cut,
)
from loracle.decision.reasons import reasons
from loracle.decision.rule import Decision, decide, undecided
from loracle.errors import PlanError
from loracle.metrics import Metric, get_metric
from loracle.plan import BASE_NAME, DecisionPlan
from loracle.statistics import GAIN_WORTH_HAVING, Analysis, ScoredSet, Terms, analyse
from loracle.statistics.power import POWER


@dataclass(frozen=True)
class WordedDecision:
    """A decision, in one sentence and with its reasons."""

    decision: Decision
    sentence: wording.Text
    reasons: Sequence[wording.Text]


@dataclass(frozen=True)
class Judgement:
    """What the data supports.

    analyses: by metric, in the order in which the plan names them. decisions: the overall one
    first.
    """

    rule: DecisionPlan
    analyses: Mapping[str, Analysis]
    decisions: Sequence[WordedDecision]
    read_first: Sequence[GraveFact]
    """What could overturn the overall decision."""


def judge(evidence: Evidence, rule: DecisionPlan | None = None) -> Judgement:
    """Analyse every metric and apply the rule.

    rule: None means the plan's. Raises PlanError if an evaluation set lacks its metric.
    """
    rule = rule or frozen_rule(evidence)
    lacking = [one.name for one in evidence.sets if rule.metric not in one.metrics]
    if lacking:
        computed = [set(one.metrics) for one in evidence.sets]
        common = ", ".join(sorted(set.intersection(*computed))) or "none"
        raise PlanError(
            f"{rule.metric} was not computed on {', '.join(lacking)}; "
            f"computed on every evaluation set: {common}"
        )
    names = dict.fromkeys(metric for one in evidence.sets for metric in one.metrics)
    analyses = {name: _analyse(evidence, get_metric(name), rule) for name in names}
    decisions = _decide(evidence, analyses[rule.metric], rule)
    read_first = grave_facts(evidence, _clean_verdict(evidence, rule, decisions[0]))
    return Judgement(rule, analyses, decisions, read_first)


def _clean_verdict(
    evidence: Evidence, rule: DecisionPlan, overall: WordedDecision
) -> CleanVerdict | None:
    """The verdict on questions that share no text with any candidate; None: all questions are
    such."""
    if not evidence.leaked:
        return None
    clean = evidence.without_leaked()
    num_questions = sum(len(one.ids) for one in clean.sets)
    if not num_questions or not evidence.candidates:
        return CleanVerdict(num_questions, None)
    found = _decide(clean, _analyse(clean, get_metric(rule.metric), rule), rule)[0]
    same = _outcome(found.decision) == _outcome(overall.decision)
    return CleanVerdict(num_questions, None if same else found.sentence)


def _outcome(decision: Decision) -> tuple[object, ...]:
    """What a reader would do differently."""
    return decision.verdict, decision.winner, decision.recommended


def frozen_rule(evidence: Evidence) -> DecisionPlan:
    """The rule in the run's plan."""
    return DecisionPlan.model_validate(evidence.plan["decision"])


def other_rule(
    frozen: DecisionPlan, *, metric: str | None, confidence: float | None
) -> DecisionPlan:
    """The rule with another metric or confidence. Raises PlanError if that is not possible."""
    problems = []
    if confidence is not None and not 0.5 <= confidence < 1:
        problems.append(f"--confidence: found {confidence}; give a number from 0.5 to below 1")
    if metric is not None:
        try:
            get_metric(metric)
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    values = frozen.model_dump()
    if metric is not None and metric != frozen.metric:
        # A least gain is in its own metric's unit.
        values |= {"metric": metric, "min_gain": 0.0}
    if confidence is not None:
        values["confidence"] = confidence
    return DecisionPlan.model_validate(values)


def worth_having(rule: DecisionPlan) -> float:
    """The gain that a claim of absence rules out, in the unit of the rule's metric."""
    return rule.min_gain or GAIN_WORTH_HAVING


def _analyse(evidence: Evidence, metric: Metric, rule: DecisionPlan) -> Analysis:
    # The least gain is in the unit of the metric that decides.
    decides = metric.name == rule.metric
    terms = Terms(
        confidence=rule.confidence,
        min_gain=rule.min_gain if decides else 0.0,
        worth=worth_having(rule) if decides else GAIN_WORTH_HAVING,
        higher_is_better=metric.higher_is_better,
        bounded=metric.unit == "share",
    )
    sets = [
        ScoredSet(
            one.name,
            one.clusters,
            {row: scores[metric.name] for row, scores in one.scores.items()},
        )
        for one in evidence.sets
        if metric.name in one.metrics
    ]
    return analyse(sets, BASE_NAME, terms)


def _decide(evidence: Evidence, analysis: Analysis, rule: DecisionPlan) -> list[WordedDecision]:
    if not evidence.candidates:
        text = wording.undecided_sentence()
        return [
            WordedDecision(decision, text, [])
            for decision in undecided([one.name for one in evidence.sets])
        ]
    facts = wording.Circumstances(
        metric=rule.metric,
        costs=evidence.costs,
        failed=evidence.unfinished,
        num_seeds=len(evidence.plan["seeds"]),
        base_cut_share=mostly_cut(evidence),
    )
    return [
        WordedDecision(
            decision,
            wording.sentence(decision, analysis, facts),
            reasons(decision, analysis, facts),
        )
        for decision in decide(analysis, evidence.costs)
    ]


def judgement_record(judgement: Judgement) -> dict[str, Any]:
    """The judgement's part of results.json."""
    return {
        "rule": judgement.rule.model_dump(mode="json")
        | {
            "worth_having": worth_having(judgement.rule),
            "correction": "holm",
            "num_comparisons": len(judgement.analyses[judgement.rule.metric].comparisons),
            "power": POWER,
        },
        "precision": [
            {"metric": metric, **asdict(facts)}
            for metric, analysis in judgement.analyses.items()
            for facts in analysis.sets
        ],
        "estimates": [
            {"metric": metric, **_estimate(asdict(estimate))}
            for metric, analysis in judgement.analyses.items()
            for estimate in analysis.estimates
        ],
        "comparisons": [
            {"metric": metric, **asdict(comparison)}
            for metric, analysis in judgement.analyses.items()
            for comparison in analysis.comparisons
        ],
        "decisions": [decision_record(worded) for worded in judgement.decisions],
        "read_first": [fact_record(fact) for fact in judgement.read_first],
    }


def _estimate(record: dict[str, Any]) -> dict[str, Any]:
    return {"candidate": record.pop("row"), **record}


def decision_record(worded: WordedDecision) -> dict[str, Any]:
    """One decision with its words."""
    record = asdict(worded.decision)
    record["forgetting"] = [
        {"candidate": comparison.a, "evaluation": comparison.evaluation}
        for comparison in worded.decision.forgetting
    ]
    record["open"] = [[pair.a, pair.b] for pair in worded.decision.open]
    more = record.pop("more")
    record["more_questions"] = None if more is None else more.questions
    record["more_groups"] = None if more is None else more.groups
    for key in ("contenders", "helpful", "harmful"):
        record[key] = list(record[key])
    return record | {
        "sentence": asdict(worded.sentence),
        "reasons": [asdict(reason) for reason in worded.reasons],
    }
