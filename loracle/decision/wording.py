"""A decision in words, English and Chinese: one sentence, and the reasons one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loracle.decision.rule import Decision
from loracle.statistics import Analysis, Comparison
from loracle.text import (
    metric_name,
    p_text,
    p_value,
    shown_difference,
    shown_difference_zh,
    shown_interval,
    shown_score,
)

FEW_CLUSTERS = 10
"""With fewer clusters than this, simulated intervals do not cover as often as they say."""

_MOST_NAMED = 6


@dataclass(frozen=True)
class Text:
    """The same words in both languages."""

    en: str
    zh: str


@dataclass(frozen=True)
class Circumstances:
    """What the decision's words say beside its figures."""

    metric: str
    costs: Mapping[str, float]
    """Training tokens computed, by candidate."""
    failed: Sequence[str] = ()
    """Candidates without a finished trial."""
    num_seeds: int = 1
    """Seeds in the plan."""


def sentence(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    """The decision in one sentence."""
    if decision.verdict == "use":
        return _use(decision, analysis, facts)
    if decision.verdict == "no_difference":
        return _no_difference(decision, analysis, facts)
    if decision.verdict == "harmful":
        several = len(decision.harmful) > 1
        names = _names(decision.harmful)
        return Text(
            f"Harmful: {names.en} {'are' if several else 'is'} shown to be worse than the base; "
            "keep the base.",
            f"有害：{names.zh} 被证明比基座模型更差；请保留基座模型。",
        )
    return _none_helps(decision, analysis, facts)


def undecided_sentence() -> Text:
    """Where no candidate finished."""
    return Text(
        "Undecided: no candidate finished, so there is nothing to compare.",
        "无法判断：没有候选数据集完成训练，无从比较。",
    )


def _use(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    assert decision.winner is not None
    winner, metric = decision.winner, facts.metric
    against_base = analysis.comparison(winner, analysis.base, decision.evaluation)
    score = shown_score(metric, analysis.estimate(winner, decision.evaluation).mean)
    lift = shown_difference(metric, against_base.difference)
    lift_zh = shown_difference_zh(metric, against_base.difference)
    forgetting = {comparison.a for comparison in decision.forgetting}
    others = [name for name in analysis.candidates if name not in {winner, *forgetting}]
    highest = max(
        analysis.comparison(winner, other, decision.evaluation).p_corrected
        for other in (*others, analysis.base)
    )
    p = _highest_p(highest, several=bool(others))
    rest = Text(" that forgets nothing", "未出现遗忘的") if forgetting else Text("", "")
    return Text(
        f"Use {winner}: {metric_name(metric)} {score}, {lift} against the base"
        f"{f', and better than every other candidate{rest.en}' if others else ''} ({p.en}).",
        f"使用 {winner}：{metric_name(metric)} {score}，相对基座模型 {lift_zh}"
        f"{f'，且优于其他所有{rest.zh}候选' if others else ''}（{p.zh}）。",
    )


def _highest_p(p: float, *, several: bool) -> Text:
    if not several:
        return Text(f"corrected {p_text(p)}", f"校正后 {p_text(p)}")
    number = p_value(p)
    if number.startswith("< "):
        bound = number.removeprefix("< ")
        return Text(f"every corrected p below {bound}", f"校正后 p 均小于 {bound}")
    return Text(f"no corrected p above {number}", f"校正后 p 均不超过 {number}")


def _no_difference(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    closest = _closest(decision, analysis)
    names = _names(decision.contenders)
    needed = _needed(closest, analysis, facts)
    assert decision.recommended is not None
    return Text(
        f"No difference shown between {names.en}; {needed.en}. "
        f"Of those shown to help, {decision.recommended} was the cheapest to train.",
        f"{names.zh} 之间未显示出差异；{needed.zh}。"
        f"在被证明有效的候选中，{decision.recommended} 训练成本最低。",
    )


def _none_helps(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    assert decision.leader is not None
    best = analysis.comparison(decision.leader, analysis.base, decision.evaluation)
    metric = facts.metric
    more = _more_than(analysis, metric)
    text = Text(
        f"None helps: no candidate is shown to be better than the base{more.en}; keep the base. "
        f"The best, {best.a}, is at {shown_difference(metric, best.difference)} (corrected "
        f"{p_text(best.p_corrected)})",
        f"均无帮助：没有候选被证明优于基座模型{more.zh}；请保留基座模型。"
        f"最好的 {best.a} 为 {shown_difference_zh(metric, best.difference)}"
        f"（校正后 {p_text(best.p_corrected)}）",
    )
    if decision.harmful:
        names = _names(decision.harmful)
        text = Text(
            f"{text.en}; {names.en} {'are' if len(decision.harmful) > 1 else 'is'} harmful",
            f"{text.zh}；{names.zh} 有害",
        )
    return Text(f"{text.en}.", f"{text.zh}。")


def _closest(decision: Decision, analysis: Analysis) -> Comparison:
    """Between the leader and the contender with the mean nearest to it."""
    others = [name for name in decision.contenders if name != decision.leader]
    assert decision.leader is not None
    return min(
        (analysis.comparison(decision.leader, other, decision.evaluation) for other in others),
        key=lambda comparison: abs(comparison.difference),
    )


def _needed(comparison: Comparison, analysis: Analysis, facts: Circumstances) -> Text:
    asked = next(s.num_questions for s in analysis.sets if s.evaluation == comparison.evaluation)
    observed = shown_difference(facts.metric, abs(comparison.difference)).lstrip("+")
    observed_zh = shown_difference_zh(facts.metric, abs(comparison.difference)).lstrip("+")
    pair = f"{comparison.a} · {comparison.b}"
    if not comparison.difference:
        return Text(f"{pair}: their means are equal", f"{pair}：平均分相同")
    if comparison.questions_needed is None:
        return Text(
            f"{pair}: no number of questions would show the observed {observed} with these seeds",
            f"{pair}：在现有随机种子下，再多题目也无法显示观察到的 {observed_zh} 差异",
        )
    return Text(
        f"{pair}: about {comparison.questions_needed:,} questions like these would be needed to "
        f"see the observed {observed}, {asked:,} were asked",
        f"{pair}：要看出观察到的 {observed_zh} 差异，约需 {comparison.questions_needed:,} 道"
        f"同类题目，本次共 {asked:,} 道",
    )


def reasons(decision: Decision, analysis: Analysis, facts: Circumstances) -> list[Text]:
    """What the decision rests on, one plain sentence each."""
    lines = [_rule(analysis, facts)]
    evaluation = decision.evaluation
    base = analysis.base
    ranked = [*decision.contenders]
    ranked += [name for name in analysis.candidates if name not in ranked]
    for name in ranked:
        lines.append(_compared(analysis.comparison(name, base, evaluation), analysis, facts))
    if decision.leader is not None and decision.helpful:
        others = [name for name in ranked if name != decision.leader]
        for name in others:
            comparison = analysis.comparison(decision.leader, name, evaluation)
            lines.append(_compared(comparison, analysis, facts))
            if comparison.better is None:
                lines.append(_needed(comparison, analysis, facts))
    lines += [_forgets(comparison, facts) for comparison in decision.forgetting]
    lines += _cost(decision, facts)
    lines += _caveats(decision, analysis, facts)
    return lines


def _rule(analysis: Analysis, facts: Circumstances) -> Text:
    terms = analysis.terms
    more = _more_than(analysis, facts.metric)
    number = len(analysis.comparisons)
    name = metric_name(facts.metric)
    return Text(
        f"Rule: {name}, confidence {terms.confidence:.0%}, better than the base"
        f"{more.en} and than every other candidate; p-values corrected for {number} comparisons "
        "(Holm).",
        f"规则：指标 {name}，置信度 {terms.confidence:.0%}，须优于基座模型{more.zh}"
        f"并优于其他所有候选；p 值已按 {number} 次比较校正（Holm）。",
    )


def _more_than(analysis: Analysis, metric: str) -> Text:
    gain = analysis.terms.min_gain
    if not gain:
        return Text("", "")
    return Text(
        f" by more than {shown_difference(metric, gain).lstrip('+')}",
        f"超过 {shown_difference_zh(metric, gain).lstrip('+')}",
    )


def _compared(comparison: Comparison, analysis: Analysis, facts: Circumstances) -> Text:
    metric = facts.metric
    if comparison.better is None:
        finding = Text("no difference shown", "未显示出差异")
        if comparison.margin:
            finding = Text("not shown to gain enough", "未显示出足够的提升")
    else:
        finding = Text(f"{comparison.better} is better", f"{comparison.better} 更好")
    figures = (
        f"{shown_difference(metric, comparison.difference)} "
        f"{shown_interval(metric, comparison.low, comparison.high)}"
    )
    p = p_text(comparison.p_corrected)
    return Text(
        f"{comparison.a} against {comparison.b}: {figures}, corrected {p}: {finding.en}.",
        f"{comparison.a} 对 {comparison.b}：{figures.replace(' points', ' 分')}，"
        f"校正后 {p}：{finding.zh}。",
    )


def _forgets(comparison: Comparison, facts: Circumstances) -> Text:
    difference = shown_difference(facts.metric, comparison.difference)
    return Text(
        f"{comparison.a} forgets: on {comparison.evaluation} it is at {difference} against the "
        f"base (corrected {p_text(comparison.p_corrected)}), so it is not recommended.",
        f"{comparison.a} 出现遗忘：在 {comparison.evaluation} 上相对基座模型为 "
        f"{difference.replace(' points', ' 分')}（校正后 {p_text(comparison.p_corrected)}），"
        "因此不予推荐。",
    )


def _cost(decision: Decision, facts: Circumstances) -> list[Text]:
    if decision.verdict != "no_difference":
        return []
    helping = [name for name in decision.contenders if name in decision.helpful]
    costs = [f"{name} {facts.costs[name]:,.0f}" for name in helping]
    tied = sum(facts.costs[name] == min(facts.costs[n] for n in helping) for name in helping) > 1
    note = Text("", "")
    if tied:
        note = Text("; of equal costs the better mean was taken", "；成本相同时取平均分较高者")
    return [
        Text(
            f"Training tokens computed: {', '.join(costs)}{note.en}.",
            f"训练计算的 token 数：{'，'.join(costs)}{note.zh}。",
        )
    ]


def _caveats(decision: Decision, analysis: Analysis, facts: Circumstances) -> list[Text]:
    lines = []
    scope = next(s for s in analysis.sets if s.evaluation == decision.evaluation)
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
                "One seed: what chance in training adds is not in these figures; "
                "`seeds: [0, 1, 2]` would measure it.",
                "只用了一个随机种子：训练本身的偶然性未计入；设置 `seeds: [0, 1, 2]` 可以测量它。",
            )
        )
    if facts.failed:
        names = _names(facts.failed)
        lines.append(
            Text(
                f"Not judged, no trial finished: {names.en}.",
                f"未参与判断（没有完成的训练）：{names.zh}。",
            )
        )
    return lines


def _names(names: Sequence[str]) -> Text:
    shown, more = list(names[:_MOST_NAMED]), len(names) - _MOST_NAMED
    if more > 0:
        return Text(f"{', '.join(shown)} and {more} more", f"{'、'.join(shown)} 等 {len(names)} 个")
    if len(shown) == 1:
        return Text(shown[0], shown[0])
    return Text(
        f"{', '.join(shown[:-1])} and {shown[-1]}", f"{'、'.join(shown[:-1])} 和 {shown[-1]}"
    )
