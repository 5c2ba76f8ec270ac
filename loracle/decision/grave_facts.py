"""What could overturn a decision: a short list shown next to it everywhere.

Each fact is one typed record with its words in both languages, made from the run's files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loracle.decision.evidence import Evidence, Learning, SetEvidence
from loracle.decision.reasons import FEW_CLUSTERS
from loracle.decision.wording import Text, names_text, short_name
from loracle.metrics import get_metric
from loracle.plan import BASE_NAME
from loracle.text import counted, metric_name, percent

Kind = Literal[
    "base_cut",
    "answers_cut",
    "leakage",
    "hardly_trained",
    "few_groups",
    "all_zero",
    "rows_lost",
    "not_judged",
    "one_seed",
]

OFTEN_CUT = 0.05
"""A larger share of cut answers is reported."""
MOSTLY_CUT = 0.5
"""If a larger share of the base's answers is cut, the verdict itself says so."""
FEW_STEPS = 50
"""With as many steps, a loss that stays high is the data's, not the training's."""


@dataclass(frozen=True)
class GraveFact:
    """One thing that could overturn the decision."""

    kind: Kind
    candidates: tuple[str, ...]
    """Which rows it is about, the base among them; empty: all."""
    text: Text


@dataclass(frozen=True)
class CleanVerdict:
    """What is decided on the questions that no candidate shares text with."""

    num_questions: int
    sentence: Text | None
    """None: it is the same as on all questions, or no question is left."""


def mostly_cut(evidence: Evidence) -> dict[str | None, float]:
    """By evaluation set (None: all), the share of the base's answers cut, where it is over half."""
    by_set = evidence.endings.get(BASE_NAME, {})
    shares: dict[str | None, float] = {name: found.share_cut for name, found in by_set.items()}
    shares[None] = _share_cut(evidence, BASE_NAME)
    return {name: share for name, share in shares.items() if share > MOSTLY_CUT}


def grave_facts(evidence: Evidence, clean: CleanVerdict | None) -> list[GraveFact]:
    """All of them, the most serious kind first. clean: None if no candidate shares text."""
    return [
        *_cut(evidence),
        *(_leakage(evidence, clean) if clean is not None else ()),
        *_hardly_trained(evidence),
        *_few_groups(evidence.sets),
        *_all_zero(evidence.sets),
        *_rows_lost(evidence),
        *_not_judged(evidence),
        *_one_seed(evidence),
    ]


def fact_record(fact: GraveFact) -> dict[str, Any]:
    """As results.json holds it."""
    return {
        "kind": fact.kind,
        "candidates": list(fact.candidates),
        "text": {"en": fact.text.en, "zh": fact.text.zh},
    }


def _share_cut(evidence: Evidence, row: str) -> float:
    found = list(evidence.endings.get(row, {}).values())
    num_answers = sum(one.num_answers for one in found)
    return sum(one.num_cut for one in found) / num_answers if num_answers else 0.0


def _cut(evidence: Evidence) -> Iterator[GraveFact]:
    limit = evidence.plan.get("generation", {}).get("max_new_tokens")
    at = (
        Text(f" at {counted(limit, 'token')}", f"（上限 {limit} 个 token）")
        if limit
        else Text("", "")
    )
    shares = {row: _share_cut(evidence, row) for row in (BASE_NAME, *evidence.candidates)}
    base = shares[BASE_NAME]
    if base > MOSTLY_CUT:
        del shares[BASE_NAME]
        yield GraveFact(
            "base_cut",
            (BASE_NAME,),
            Text(
                f"{percent(base, 1)} of the base's answers were cut off{at.en}: its score may be "
                "too low, so gains over it may be too large. Raise `generation.max_new_tokens` to "
                "check.",
                f"基座模型有 {percent(base, 1)} 的回答被截断{at.zh}：它可能答得更好，"
                "因此相对它的提升可能被高估。可调大 `generation.max_new_tokens` 再看。",
            ),
        )
    often = {row: share for row, share in shares.items() if share > OFTEN_CUT}
    if often:
        listed = ", ".join(f"{_short(row, evidence)} {percent(s, 1)}" for row, s in often.items())
        yield GraveFact(
            "answers_cut",
            tuple(often),
            Text(
                f"Answers were cut off{at.en}, so their scores may be too low: {listed}.",
                f"有回答被截断{at.zh}，得分可能偏低：{listed.replace(', ', '，')}。",
            ),
        )


def _leakage(evidence: Evidence, clean: CleanVerdict) -> Iterator[GraveFact]:
    sizes = {one.name: len(one.ids) for one in evidence.sets}
    parts = [
        (candidate, evaluation, len(ids))
        for candidate, by_set in evidence.leaked.items()
        for evaluation, ids in by_set.items()
        if ids
    ]
    english = ", ".join(
        f"{_short(name, evidence)} with {num:,} of {counted(sizes[where], 'question')} of {where}"
        for name, where, num in parts
    )
    chinese = "，".join(
        f"{_short(name, evidence)} 与 {where} 的 {sizes[where]:,} 题中的 {num:,} 题"
        for name, where, num in parts
    )
    verdict = _clean_words(clean)
    yield GraveFact(
        "leakage",
        tuple(dict.fromkeys(name for name, _, _ in parts)),
        Text(
            f"Training data shares text with the questions: {english}. {verdict.en}",
            f"训练数据与评测题目有重合内容：{chinese}。{verdict.zh}",
        ),
    )


def _clean_words(clean: CleanVerdict) -> Text:
    if not clean.num_questions:
        return Text("No question is free of it.", "没有不受影响的题目。")
    num = clean.num_questions
    if clean.sentence is None:
        return Text(
            f"On the other {num:,} the verdict is the same.", f"其余 {num:,} 题上的结论相同。"
        )
    return Text(
        f"On the other {num:,} the verdict is different: {clean.sentence.en}",
        f"其余 {num:,} 题上的结论不同：{clean.sentence.zh}",
    )


def _hardly_trained(evidence: Evidence) -> Iterator[GraveFact]:
    """A comparison of adapters that have not learned their data yet says little about the data.

    If another candidate learned in as few steps, a loss that stays high is the data's: wrong
    answers cannot be learned.
    """
    trials = [(name, one) for name, found in evidence.learning.items() for one in found]
    enough = min((one.num_steps for _, one in trials if one.has_fallen), default=FEW_STEPS)
    found: dict[str, Learning] = {}
    for name, one in trials:
        if not one.has_fallen and one.num_steps < min(enough, FEW_STEPS):
            found.setdefault(name, one)
    if not found:
        return
    english = ", ".join(
        f"{_short(name, evidence)} from {one.first_loss:.2f} to {one.last_loss:.2f} "
        f"in {counted(one.num_steps, 'step')}"
        for name, one in found.items()
    )
    chinese = "，".join(
        f"{_short(name, evidence)} 在 {one.num_steps} 步内从 {one.first_loss:.2f} 降到 "
        f"{one.last_loss:.2f}"
        for name, one in found.items()
    )
    batch = evidence.plan.get("training", {}).get("batch_size")
    now = Text(f" ({batch} now)", f"（当前为 {batch}）") if batch else Text("", "")
    yield GraveFact(
        "hardly_trained",
        tuple(found),
        Text(
            f"Training was short and the loss hardly fell: {english}. Such an adapter says little "
            f"about its data. Lower `training.batch_size`{now.en}, or raise `training.epochs` or "
            "`training.learning_rate`, and run again.",
            f"训练步数少，损失几乎没有下降：{chinese}。这样的适配器说明不了数据的好坏。"
            f"可调小 `training.batch_size`{now.zh}，或调大 `training.epochs`、"
            "`training.learning_rate` 后重新运行。",
        ),
    )


def _few_groups(sets: Sequence[SetEvidence]) -> Iterator[GraveFact]:
    few = {one.name: len(set(one.clusters)) for one in sets}
    few = {name: num for name, num in few.items() if num < FEW_CLUSTERS}
    if few:
        english = ", ".join(f"{name} has {num}" for name, num in few.items())
        chinese = "，".join(f"{name} 只有 {num} 组" for name, num in few.items())
        yield GraveFact(
            "few_groups",
            (),
            Text(
                f"Fewer than {FEW_CLUSTERS} independent groups of questions: {english}. Intervals "
                "are rough.",
                f"独立题目组少于 {FEW_CLUSTERS}：{chinese}。区间较为粗略。",
            ),
        )


def _all_zero(sets: Sequence[SetEvidence]) -> Iterator[GraveFact]:
    found = [
        f"{metric_name(metric)} ({one.name})"
        for one in sets
        for metric in one.metrics
        if get_metric(metric).higher_is_better
        and not any(scores[metric].any() for scores in one.scores.values())
    ]
    if found:
        yield GraveFact(
            "all_zero",
            (),
            Text(
                f"0 for every row: {', '.join(found)}. The metric may not suit these answers; "
                "look at some of them.",
                f"所有行的得分均为 0：{'，'.join(found)}。该指标可能不适合这些回答，"
                "请查看若干回答。",
            ),
        )


def _rows_lost(evidence: Evidence) -> Iterator[GraveFact]:
    lost = {name: one for name, one in evidence.lost.items() if one.num_lost}
    if not lost:
        return
    english = ", ".join(
        f"{_short(name, evidence)} {one.num_lost:,} of {counted(one.num_read, 'row')}"
        for name, one in lost.items()
    )
    chinese = "，".join(
        f"{_short(name, evidence)} {one.num_read:,} 行中的 {one.num_lost:,} 行"
        for name, one in lost.items()
    )
    yield GraveFact(
        "rows_lost",
        tuple(lost),
        Text(f"Rows not trained on: {english}.", f"未参与训练的行：{chinese}。"),
    )


def _not_judged(evidence: Evidence) -> Iterator[GraveFact]:
    num_seeds = len(evidence.plan["seeds"])
    if evidence.unfinished:
        names = names_text([_short(name, evidence) for name in evidence.unfinished])
        yield GraveFact(
            "not_judged",
            evidence.unfinished,
            Text(
                f"Not judged, because no trial finished: {names.en}.",
                f"未参与判断（没有完成的训练）：{names.zh}。",
            ),
        )
    finished = _num_finished(evidence.sets)
    fewer = {name: finished[name] for name in evidence.candidates if finished[name] < num_seeds}
    if fewer:
        listed = ", ".join(
            f"{_short(name, evidence)} {num} / {num_seeds}" for name, num in fewer.items()
        )
        yield GraveFact(
            "not_judged",
            tuple(fewer),
            Text(
                f"Judged on fewer seeds than planned: {listed}.",
                f"完成的随机种子少于计划：{listed.replace(', ', '，')}。",
            ),
        )


def _num_finished(sets: Sequence[SetEvidence]) -> Mapping[str, int]:
    first = sets[0]
    return {row: len(next(iter(scores.values()))) for row, scores in first.scores.items()}


def _one_seed(evidence: Evidence) -> Iterator[GraveFact]:
    if len(evidence.plan["seeds"]) == 1:
        yield GraveFact(
            "one_seed",
            (),
            Text(
                "One seed: these figures do not include the random variation of training. `seeds:"
                " [0, 1, 2]` measures it.",
                "只用了一个随机种子：训练本身的偶然性未计入。设置 `seeds: [0, 1, 2]` 可以测量它。",
            ),
        )


def _short(name: str, evidence: Evidence) -> str:
    return short_name(name, (*evidence.candidates, *evidence.unfinished, BASE_NAME))
