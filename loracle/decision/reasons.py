"""The reasons for a decision, one plain sentence each, in English and Chinese."""

from __future__ import annotations

from loracle.decision.rule import Decision
from loracle.decision.wording import (
    Circumstances,
    Text,
    measures_nothing,
    more_text,
    names_text,
    short_name,
)
from loracle.statistics import Analysis, Comparison
from loracle.statistics.power import POWER
from loracle.text import (
    metric_name,
    p_text,
    shown_difference,
    shown_difference_zh,
    shown_interval,
    shown_score,
)

FEW_CLUSTERS = 10
"""With fewer clusters than this, simulated intervals cover less often than they claim."""


def reasons(decision: Decision, analysis: Analysis, facts: Circumstances) -> list[Text]:
    """The rule, every comparison it used, and what was not measured."""
    lines = [_rule(analysis, facts)]
    evaluation = decision.evaluation
    ranked = [*decision.contenders]
    ranked += [name for name in analysis.candidates if name not in ranked]
    for name in ranked:
        comparison = analysis.comparison(name, analysis.base, evaluation)
        lines.append(_compared(comparison, analysis, facts))
    if decision.leader is not None and decision.helpful:
        for name in ranked:
            if name != decision.leader:
                comparison = analysis.comparison(decision.leader, name, evaluation)
                lines.append(_compared(comparison, analysis, facts))
    lines += [_forgets(comparison, analysis, facts) for comparison in decision.forgetting]
    if decision.verdict == "cannot_tell" and not measures_nothing(decision, analysis):
        lines.append(_settled(decision))
    lines += _cost(decision, analysis, facts)
    lines += _caveats(decision, analysis, facts)
    return lines


def _rule(analysis: Analysis, facts: Circumstances) -> Text:
    terms, metric = analysis.terms, facts.metric
    number, name = len(analysis.comparisons), metric_name(metric)
    worth = shown_difference(metric, terms.worth).lstrip("+")
    worth_zh = shown_difference_zh(metric, terms.worth).lstrip("+")
    more = Text("", "")
    if terms.min_gain:
        more = Text(
            f" by more than {shown_difference(metric, terms.min_gain).lstrip('+')}",
            f"超过 {shown_difference_zh(metric, terms.min_gain).lstrip('+')}",
        )
    return Text(
        f"Rule: {name}, confidence {terms.confidence:.0%}, better than the base"
        f"{more.en} and than every other candidate; p-values corrected for {number} comparisons "
        f"(Holm). A difference worth having is {worth}; its absence has to be shown too.",
        f"规则：指标 {name}，置信度 {terms.confidence:.0%}，须优于基座模型{more.zh}"
        f"并优于其他所有候选；p 值已按 {number} 次比较校正（Holm）。"
        f"值得在意的差异为 {worth_zh}；“没有差异”同样需要证据。",
    )


def _compared(comparison: Comparison, analysis: Analysis, facts: Circumstances) -> Text:
    metric = facts.metric
    figures = (
        f"{shown_difference(metric, comparison.difference)} "
        f"{shown_interval(metric, comparison.low, comparison.high)}"
    )
    p, finding = p_text(comparison.p_corrected), _finding(comparison, analysis, metric)
    a, b = (short_name(name, analysis.candidates) for name in (comparison.a, comparison.b))
    return Text(
        f"{a} against {b}: {figures}, corrected {p}: {finding.en}.",
        f"{a} 对 {b}：{figures.replace(' points', ' 分')}，校正后 {p}：{finding.zh}。",
    )


def _finding(comparison: Comparison, analysis: Analysis, metric: str) -> Text:
    """What one comparison shows of a: better, worse, no difference, or nothing yet."""
    if comparison.better is not None:
        is_better = comparison.better == comparison.a
        return Text("better", "更好") if is_better else Text("worse", "更差")
    with_base = comparison.b == analysis.base
    if comparison.absent:
        worth = shown_difference(metric, analysis.terms.worth).lstrip("+")
        zh = shown_difference_zh(metric, analysis.terms.worth).lstrip("+")
        return (
            Text(f"a gain of {worth} is ruled out", f"已排除 {zh}的提升")
            if with_base
            else Text(f"equal within {worth}", f"在 {zh}以内相等")
        )
    if comparison.largest is None:
        return Text("cannot tell", "无法判断")
    sign = 1 if analysis.terms.higher_is_better or not with_base else -1
    largest = shown_score(metric, sign * comparison.largest, signed=with_base)
    return (
        Text(f"cannot tell, up to {largest} is possible", f"无法判断，最大可能为 {largest}")
        if with_base
        else Text(f"cannot tell, up to {largest} apart", f"无法判断，最多可能相差 {largest}")
    )


def _settled(decision: Decision) -> Text:
    more = more_text(decision)
    return Text(
        f"{more.en[0].upper()}{more.en[1:]}, with a chance of {POWER:.0%}, if the truth is as "
        "observed; differences found by chance look larger than they are.",
        f"{more.zh}（若真实情况与观察一致，成功机会为 {POWER:.0%}；"
        "偶然出现的差异往往看起来偏大）。",
    )


def _forgets(comparison: Comparison, analysis: Analysis, facts: Circumstances) -> Text:
    name = short_name(comparison.a, analysis.candidates)
    difference = shown_difference(facts.metric, comparison.difference)
    return Text(
        f"{name} forgets: its gain over the base on {comparison.evaluation} is {difference} "
        f"(corrected {p_text(comparison.p_corrected)}), so it is not recommended.",
        f"{name} 出现遗忘：在 {comparison.evaluation} 上相对基座模型为 "
        f"{difference.replace(' points', ' 分')}（校正后 {p_text(comparison.p_corrected)}），"
        "因此不予推荐。",
    )


def _cost(decision: Decision, analysis: Analysis, facts: Circumstances) -> list[Text]:
    helping = [name for name in decision.contenders if name in decision.helpful]
    if len(helping) < 2:
        return []
    costs = [
        f"{short_name(name, analysis.candidates)} {facts.costs[name]:,.0f}" for name in helping
    ]
    tied = sum(facts.costs[name] == min(facts.costs[n] for n in helping) for name in helping) > 1
    note = Text("", "")
    if tied:
        note = Text("; at equal cost, the better mean was taken", "；成本相同时取平均分较高者")
    return [
        Text(
            f"Training tokens computed: {', '.join(costs)}{note.en}.",
            f"训练计算的 token 数：{'，'.join(costs)}{note.zh}。",
        )
    ]


def _caveats(decision: Decision, analysis: Analysis, facts: Circumstances) -> list[Text]:
    lines = []
    scope = analysis.facts(decision.evaluation)
    if scope.smallest_visible is None:
        lines.append(
            Text(
                f"{scope.num_clusters} independent groups of questions are too few to show any "
                f"difference among {len(analysis.comparisons)} comparisons.",
                f"独立题目只有 {scope.num_clusters} 组，在 {len(analysis.comparisons)} 次比较中"
                "不足以显示任何差异。",
            )
        )
    elif scope.num_clusters < FEW_CLUSTERS:
        lines.append(
            Text(
                f"Only {scope.num_clusters} independent groups of questions: intervals are rough.",
                f"独立题目仅 {scope.num_clusters} 组：区间较为粗略。",
            )
        )
    if scope.seed_variance is None:
        lines.append(
            Text(
                "One seed: these figures do not include the random variation of training; `seeds: "
                "[0, 1, 2]` would measure it.",
                "只用了一个随机种子：训练本身的偶然性未计入；设置 `seeds: [0, 1, 2]` 可以测量它。",
            )
        )
    if facts.failed:
        names = names_text(facts.failed)
        lines.append(
            Text(
                f"Not judged, because no trial finished: {names.en}.",
                f"未参与判断（没有完成的训练）：{names.zh}。",
            )
        )
    return lines
