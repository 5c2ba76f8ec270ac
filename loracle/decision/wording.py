"""A decision in one sentence, in English and Chinese: what to do, then briefly why.

Long names are cut in the middle and appear once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loracle.decision.rule import Decision
from loracle.decision.settling import MOST_TIMES
from loracle.statistics import Analysis
from loracle.text import (
    cell_width,
    first_few,
    metric_name,
    p_text,
    p_value,
    percent,
    shortened,
    shown_difference,
    shown_difference_zh,
    shown_score,
)

_MOST_NAMED = 6
_NAME_COLUMNS = 28
_LONG_NAME_COLUMNS = 16


@dataclass(frozen=True)
class Text:
    """The same words in both languages."""

    en: str
    zh: str


_PLACES = (Text("the first", "第一个"), Text("the second", "第二个"), Text("the third", "第三个"))


@dataclass(frozen=True)
class Circumstances:
    """Facts that the decision's wording needs besides its figures."""

    metric: str
    costs: Mapping[str, float]
    """Training tokens computed, by candidate."""
    failed: Sequence[str] = ()
    """Candidates without a finished trial."""
    num_seeds: int = 1
    """Seeds in the plan."""
    base_cut_share: Mapping[str | None, float] = field(default_factory=dict)
    """By evaluation set (None: all together), the share of the base's answers that were cut, where
    it is more than half."""


def sentence(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    """The decision in one sentence."""
    text = _SENTENCES[decision.verdict](decision, analysis, facts)
    share = facts.base_cut_share.get(decision.evaluation)
    if share is None:
        return text
    return Text(
        f"{text.en} But {percent(share, 1)} of the base's answers were cut off.",
        f"{text.zh}但基座模型有 {percent(share, 1)} 的回答被截断。",
    )


def undecided_sentence() -> Text:
    """The sentence when no candidate finished."""
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
    name = _short(winner, analysis)
    return Text(
        f"Use {name}: {metric_name(metric)} {score}, {lift} against the base"
        f"{f', and better than every other candidate{rest.en}' if others else ''} ({p.en}).",
        f"使用 {name}：{metric_name(metric)} {score}，相对基座模型 {lift_zh}"
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


def _equal(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    names = _names(decision.contenders, analysis, last=(" or ", " 或 "))
    worth = _size(facts.metric, analysis.terms.worth)
    take = _take(decision, analysis, facts)
    return Text(
        f"Tie: {names.en}. {take.en}. A difference of {worth.en} between them is ruled out.",
        f"并列：{names.zh}。{take.zh}。已排除它们之间有 {worth.zh}的差异。",
    )


def _take(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    """Which of the helping contenders to take, and why that one."""
    taken = decision.recommended
    assert taken is not None
    name = _again(taken, decision, analysis)
    helping = [one for one in decision.contenders if one in decision.helpful]
    costs = [facts.costs[one] for one in helping]
    if len(helping) == 1:
        return Text(f"Take {name.en}: shown to help", f"选用{name.zh}：已被证明有效")
    if costs.count(min(costs)) > 1:
        return Text(
            f"Take {name.en}: the better mean at the lowest cost",
            f"选用{name.zh}：成本最低者中平均分较高",
        )
    return Text(f"Take {name.en}: cheaper to train", f"选用{name.zh}：训练成本更低")


def _again(name: str, decision: Decision, analysis: Analysis) -> Text:
    """A contender named before: a long name appears once, then its place ("the second")."""
    place = decision.contenders.index(name)
    if cell_width(name) <= _LONG_NAME_COLUMNS or place >= len(_PLACES):
        short = _short(name, analysis)
        return Text(short, f" {short}")
    return _PLACES[place]


_UNTIL_THEN = Text("Until then, keep the base.", "在此之前请保留基座模型。")


def measures_nothing(decision: Decision, analysis: Analysis) -> bool:
    """Whether a metric of which more is better is 0 everywhere: more questions would not help."""
    rows = (analysis.base, *analysis.candidates)
    means = [analysis.estimate(row, decision.evaluation).mean for row in rows]
    return analysis.terms.higher_is_better and not any(means)


def _cannot_tell(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    if decision.helpful:
        return _cannot_tell_which(decision, analysis, facts)
    if measures_nothing(decision, analysis):
        metric = metric_name(facts.metric)
        return Text(
            f"Cannot tell: {metric} is 0 for every row, the base included, so it measures nothing "
            "here. Look at some answers, and choose another metric.",
            f"无法判断：包括基座在内，所有行的 {metric} 都是 0，它在这里什么也没有测出。"
            "请查看若干回答，并换一个指标。",
        )
    first = decision.open[0]
    name = _short(first.a, analysis)
    more = more_text(decision)
    gain = first.difference if analysis.terms.higher_is_better else -first.difference
    if gain > 0:
        ahead = _size(facts.metric, first.difference)
        least = _least_gain(analysis, facts.metric) if gain <= first.margin else Text("", "")
        return Text(
            f"Cannot tell yet: {name} is {ahead.en} ahead{least.en}; {more.en}. {_UNTIL_THEN.en}",
            f"尚无法判断：{name} 领先 {ahead.zh}{least.zh}；{more.zh}。{_UNTIL_THEN.zh}",
        )
    if first.largest is None:
        return Text(
            f"Cannot tell yet: no candidate is ahead, and no gain is ruled out; {more.en}. "
            f"{_UNTIL_THEN.en}",
            f"尚无法判断：没有候选领先，但也不能排除任何提升；{more.zh}。{_UNTIL_THEN.zh}",
        )
    largest = _size(facts.metric, first.largest)
    return Text(
        f"Cannot tell yet: no candidate is ahead, but {name} may gain up to {largest.en}; "
        f"{more.en}. {_UNTIL_THEN.en}",
        f"尚无法判断：没有候选领先，但 {name} 仍可能提升至多 {largest.zh}；{more.zh}。"
        f"{_UNTIL_THEN.zh}",
    )


def _cannot_tell_which(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    """A candidate helps, but whether it is the best is open."""
    names = _names(decision.contenders, analysis, last=(" or ", " 或 "))
    first, more, take = decision.open[0], more_text(decision), _take(decision, analysis, facts)
    apart = _size(facts.metric, first.difference)
    state = (
        Text(f"the first two are {apart.en} apart", f"前两者相差 {apart.zh}")
        if first.difference
        else Text("the first two have equal means", "前两者平均分相同")
    )
    return Text(
        f"Cannot tell yet which is best: {names.en}; {state.en}; {more.en}. {take.en}.",
        f"尚无法判断哪个最好：{names.zh}；{state.zh}；{more.zh}。{take.zh}。",
    )


def more_text(decision: Decision) -> Text:
    """How many more questions would settle an open decision."""
    if decision.more is None:
        return Text(
            f"more than {MOST_TIMES} times as many questions would be needed to settle it",
            f"需要超过 {MOST_TIMES} 倍的题目才能得出结论",
        )
    questions, groups = decision.more
    if questions == groups:
        return Text(
            f"about {questions:,} more questions of this kind would settle it",
            f"再加约 {questions:,} 道同类题目即可判断",
        )
    return Text(
        f"about {questions:,} more questions of this kind (in {groups:,} more groups) would "
        "settle it",
        f"再加约 {questions:,} 道同类题目（{groups:,} 个独立组）即可判断",
    )


def _none_helps(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    assert decision.leader is not None
    best = analysis.comparison(decision.leader, analysis.base, decision.evaluation)
    metric, name = facts.metric, _short(best.a, analysis)
    worth = _size(metric, analysis.terms.worth)
    largest = _signed(metric, best.largest, analysis)
    difference = Text(
        shown_difference(metric, best.difference), shown_difference_zh(metric, best.difference)
    )
    harmful = Text("", "")
    if decision.harmful:
        names = _names(decision.harmful, analysis)
        are = "are" if len(decision.harmful) > 1 else "is"
        harmful = Text(f"; {names.en} {are} harmful", f"；{names.zh} 有害")
    forgets = {comparison.a for comparison in decision.forgetting}
    if best.a in forgets:
        return Text(
            f"None helps: keep the base. The best, {name}, shows {difference.en}, but forgets"
            f"{harmful.en}.",
            f"均无帮助：请保留基座模型。最好的 {name} 为 {difference.zh}，但出现遗忘{harmful.zh}。",
        )
    return Text(
        f"None helps: keep the base. A gain of {worth.en} is ruled out for every candidate; the "
        f"best, {name}, shows {difference.en}{largest.en}{harmful.en}.",
        f"均无帮助：请保留基座模型。已排除任何候选有 {worth.zh}的提升；最好的 {name} 为 "
        f"{difference.zh}{largest.zh}{harmful.zh}。",
    )


def _signed(metric: str, largest: float | None, analysis: Analysis) -> Text:
    """The largest gain not ruled out, in the metric's own direction."""
    if largest is None:
        return Text("", "")
    value = largest if analysis.terms.higher_is_better else -largest
    bound = shown_score(metric, value, signed=True)
    return Text(f" (at best {bound})", f"（至多 {bound}）")


def _harmful(decision: Decision, analysis: Analysis, facts: Circumstances) -> Text:
    names = _names(decision.harmful, analysis)
    if len(decision.harmful) == 1:
        found = analysis.comparison(decision.harmful[0], analysis.base, decision.evaluation)
        difference = shown_difference(facts.metric, found.difference)
        difference_zh = shown_difference_zh(facts.metric, found.difference)
        return Text(
            f"Do not fine-tune on {names.en}: it is shown to be worse than the base "
            f"({difference}); keep the base.",
            f"不要在 {names.zh} 上微调：它被证明比基座模型更差（{difference_zh}）；"
            "请保留基座模型。",
        )
    return Text(
        f"Do not fine-tune on any of these: {names.en} are shown to be worse than the base; keep "
        "the base.",
        f"不要在其中任何一个上微调：{names.zh} 被证明比基座模型更差；请保留基座模型。",
    )


_SENTENCES = {
    "use": _use,
    "equal": _equal,
    "cannot_tell": _cannot_tell,
    "none_helps": _none_helps,
    "harmful": _harmful,
}


def _size(metric: str, value: float) -> Text:
    """A difference without a sign: "2.0 points"."""
    return Text(
        shown_difference(metric, abs(value)).lstrip("+"),
        shown_difference_zh(metric, abs(value)).lstrip("+"),
    )


def _least_gain(analysis: Analysis, metric: str) -> Text:
    """Says that a candidate is ahead by less than the plan's least gain."""
    least = _size(metric, analysis.terms.min_gain)
    return Text(f", less than the required {least.en}", f"，未达到要求的 {least.zh}")


def names_text(names: Sequence[str], last: tuple[str, str] = (" and ", " 和 ")) -> Text:
    """Names in full: "a, b and c"; only the first few of many. last: what joins the last."""
    shown = list(names[:_MOST_NAMED])
    if len(names) > _MOST_NAMED:
        chinese = f"{'、'.join(shown)} 等 {len(names)} 个"
        return Text(first_few(names, _MOST_NAMED), chinese)
    if len(shown) == 1:
        return Text(shown[0], shown[0])
    return Text(
        f"{', '.join(shown[:-1])}{last[0]}{shown[-1]}",
        f"{'、'.join(shown[:-1])}{last[1]}{shown[-1]}",
    )


def _names(
    names: Sequence[str], analysis: Analysis, last: tuple[str, str] = (" and ", " 和 ")
) -> Text:
    return names_text([_short(name, analysis) for name in names], last)


def short_name(name: str, among: Sequence[str]) -> str:
    """The name, cut in the middle if it is long and no other of these would look the same."""
    short = shortened(name, _NAME_COLUMNS)
    return short if sum(shortened(one, _NAME_COLUMNS) == short for one in among) == 1 else name


def _short(name: str, analysis: Analysis) -> str:
    return short_name(name, analysis.candidates)
