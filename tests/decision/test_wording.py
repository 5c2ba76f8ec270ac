"""Decisions in words: each verdict, in both languages."""

from __future__ import annotations

import re

import numpy as np

from loracle.decision.reasons import reasons
from loracle.decision.rule import Decision, decide
from loracle.decision.wording import (
    Circumstances,
    Text,
    sentence,
    undecided_sentence,
)
from loracle.statistics import Analysis, ScoredSet, Terms, analyse

METRIC = "f1"
NUM = 60
FAST = Terms(num_resamples=499)
COSTS = {"clean": 24_298.0, "small": 5_042.0, "copy": 24_298.0}


def scores(mean: float, kind: int, num: int = NUM) -> np.ndarray:
    """Right or wrong for `num` questions of which the share `mean` is right."""
    order = np.random.default_rng(kind).permutation(num)
    return (order < round(mean * num)).astype(float)[None, :]


def judged(
    *, num_clusters: int = NUM, terms: Terms = FAST, **rows: np.ndarray
) -> tuple[Decision, Analysis]:
    num_questions = rows["base"].shape[1]
    clusters = [str(i % num_clusters) for i in range(num_questions)]
    analysis = analyse([ScoredSet("test", clusters, rows)], "base", terms)
    return decide(analysis, {**dict.fromkeys(rows, 1.0), **COSTS})[0], analysis


def words(found: tuple[Decision, Analysis], **facts) -> Text:
    return sentence(*found, Circumstances(METRIC, COSTS, **facts))


def why(found: tuple[Decision, Analysis], **facts) -> tuple[str, str]:
    lines = reasons(*found, Circumstances(METRIC, COSTS, **facts))
    return "\n".join(line.en for line in lines), "\n".join(line.zh for line in lines)


BASE = scores(0.1, 0)


def test_a_winner_is_named_with_its_score_gain_and_p_value():
    found = judged(base=BASE, clean=scores(0.9, 1), small=scores(0.4, 2))
    text = words(found)
    assert text.en == (
        "Use clean: F1 90.0, +80.0 points against the base, and better than every other "
        "candidate (every corrected p below 0.001)."
    )
    assert text.zh == (
        "使用 clean：F1 90.0，相对基座模型 +80.0 分，且优于其他所有候选（校正后 p 均小于 0.001）。"
    )


def test_a_single_candidate_is_compared_with_the_base_alone():
    text = words(judged(base=BASE, clean=scores(0.9, 1)))
    assert text.en == "Use clean: F1 90.0, +80.0 points against the base (corrected p < 0.001)."
    assert "其他" not in text.zh


def test_between_contenders_it_says_how_many_questions_are_missing_and_which_to_take():
    found = judged(base=BASE, clean=scores(0.8, 1), small=scores(0.75, 2))
    decision, analysis = found
    pair = analysis.comparison("clean", "small", "test")
    assert decision.verdict == "cannot_tell"
    assert decision.more is None
    assert pair.questions_needed is not None
    assert pair.questions_needed > 600
    assert words(found).en == (
        "Cannot tell yet which is best: clean or small; the first two are 5.0 points apart; more "
        "than 10 times as many questions would be needed to settle it. Take small: cheaper to "
        "train."
    )
    assert words(found).zh == (
        "尚无法判断哪个最好：clean 或 small；前两者相差 5.0 分；需要超过 10 倍的题目才能得出结论。"
        "选用 small：训练成本更低。"
    )
    english, chinese = why(found)
    assert "Training tokens computed: clean 24,298, small 5,042." in english
    assert "训练计算的 token 数：clean 24,298，small 5,042。" in chinese


def test_candidates_with_the_same_answers_are_equal_once_the_questions_are_enough():
    good = scores(0.8, 1)
    few = judged(base=BASE, clean=good, copy=good)
    assert few[0].verdict == "cannot_tell"
    assert "the first two have equal means; about 250 more questions" in words(few).en
    assert "前两者平均分相同" in words(few).zh
    good = scores(0.8, 1, 600)
    many = judged(num_clusters=600, base=scores(0.1, 0, 600), clean=good, copy=good)
    assert words(many).en == (
        "Tie: clean or copy. Take clean: the better mean at the lowest cost. A difference of 2.0 "
        "points between them is ruled out."
    )
    assert words(many).zh == (
        "并列：clean 或 copy。选用 clean：成本最低者中平均分较高。已排除它们之间有 2.0 分的差异。"
    )
    assert "clean against copy: +0.0 points" in why(many)[0]
    assert "equal within 2.0 points" in why(many)[0]
    assert "at equal cost, the better mean was taken" in why(many)[0]


def test_a_large_gain_on_few_questions_is_not_called_no_help():
    """12 questions in 8 groups and 39 points ahead: what once was `None helps`."""
    base, ca = np.zeros((1, 12)), np.zeros((1, 12))
    ca[0, [0, 1, 3, 4, 6]], ca[0, 5] = 1.0, -0.32
    found = judged(num_clusters=8, base=base, clean=ca, small=base)
    assert found[0].verdict == "cannot_tell"
    assert re.fullmatch(
        r"Cannot tell yet: clean is 39\.0 points ahead; about \d+ more questions of this kind "
        r"\(in \d+ more groups\) would settle it\. Until then, keep the base\.",
        words(found).en,
    )
    assert re.fullmatch(
        r"尚无法判断：clean 领先 39\.0 分；再加约 \d+ 道同类题目（\d+ 个独立组）即可判断。"
        r"在此之前请保留基座模型。",
        words(found).zh,
    )
    assert "with a chance of 80%, if the truth is as observed" in why(found)[0]


def test_where_nobody_is_ahead_it_says_what_may_still_be_gained():
    found = judged(base=scores(0.5, 0), clean=scores(0.4, 1))
    assert re.match(
        r"Cannot tell yet: no candidate is ahead, but clean may gain up to \d\.\d points; ",
        words(found).en,
    )
    assert "没有候选领先，但 clean 仍可能提升至多" in words(found).zh


def test_none_helps_says_what_is_ruled_out_and_names_the_best_and_the_harmful():
    base = scores(0.8, 0, 2000)
    found = judged(num_clusters=2000, base=base, clean=base, small=scores(0.1, 2, 2000))
    assert found[0].verdict == "none_helps"
    text = words(found)
    assert re.fullmatch(
        r"None helps: keep the base\. A gain of 2\.0 points is ruled out for every candidate; the "
        r"best, clean, shows \+0\.0 points \(at best \+0\.\d\); small is harmful\.",
        text.en,
    )
    assert text.zh.startswith("均无帮助：请保留基座模型。已排除任何候选有 2.0 分的提升；")
    assert text.zh.endswith("small 有害。")


def test_harm_by_all_is_a_verdict():
    found = judged(base=scores(0.9, 0), clean=scores(0.1, 1), small=scores(0.2, 2))
    assert words(found).en == (
        "Do not fine-tune on any of these: small and clean are shown to be worse than the base; "
        "keep the base."
    )
    assert words(found).zh == (
        "不要在其中任何一个上微调：small 和 clean 被证明比基座模型更差；请保留基座模型。"
    )
    alone = judged(base=scores(0.9, 0), clean=scores(0.1, 1))
    assert words(alone).en == (
        "Do not fine-tune on clean: it is shown to be worse than the base (-80.0 points); keep the "
        "base."
    )


def test_a_least_gain_is_part_of_the_words():
    terms = Terms(min_gain=0.3, worth=0.3, num_resamples=499)
    found = judged(terms=terms, base=BASE, clean=scores(0.35, 1))
    assert "clean is 25.0 points ahead, less than the required 30.0 points" in words(found).en
    assert "领先 25.0 分，未达到要求的 30.0 分" in words(found).zh
    assert "better than the base by more than 30.0 points" in why(found)[0]
    assert "cannot tell, up to" in why(found)[0]


def test_a_base_that_was_mostly_cut_is_told_of_in_the_verdict_itself():
    found = judged(base=BASE, clean=scores(0.9, 1))
    text = words(found, base_cut_share={"test": 0.62})
    assert text.en.endswith("But 62% of the base's answers were cut off.")
    assert text.zh.endswith("但基座模型有 62% 的回答被截断。")


def test_long_names_are_cut_in_the_middle_unless_they_would_look_the_same():
    long, other = ("客服对话数据-" + "去重" * 12 + end for end in ("-2024版", "-2025版"))
    rows = {long: scores(0.9, 1), other: scores(0.2, 2)}
    costs = dict.fromkeys(rows, 1.0)

    def told(**rows: np.ndarray) -> str:
        return sentence(*judged(base=BASE, **rows), Circumstances(METRIC, costs)).zh

    assert told(**rows).startswith("使用 客服对话数据-…重去重-2024版：")
    twin = long.replace("客服对话数据-", "客服对话数据-清洗")
    assert told(**{long: scores(0.9, 1), twin: scores(0.2, 2)}).startswith(f"使用 {long}：")


def test_reasons_state_the_rule_every_difference_and_what_was_not_measured():
    found = judged(base=BASE, clean=scores(0.9, 1), small=scores(0.4, 2))
    english, chinese = why(found, failed=["noisy"])
    lines = english.splitlines()
    assert lines[0].startswith("Rule: F1, confidence 95%")
    assert "corrected for 3 comparisons (Holm)" in lines[0]
    assert re.search(r"^clean against base: \+80\.0 points \[6\d\.\d, 9\d\.\d\], ", lines[1])
    assert lines[3].startswith("clean against small: +50.0 points")
    assert "One seed" in english
    assert "Not judged, because no trial finished: noisy." in english
    assert len(chinese.splitlines()) == len(lines)


def test_few_passages_are_warned_of():
    found = judged(num_clusters=9, base=BASE, clean=scores(0.5, 1))
    assert "Only 9 independent groups of questions" in why(found)[0]
    found = judged(num_clusters=4, base=BASE, clean=scores(0.9, 1))
    assert "4 independent groups of questions are too few to show any difference" in why(found)[0]
    assert "不足以显示任何差异" in why(found)[1]


def test_forgetting_is_told_with_the_set_and_the_loss():
    sets = [
        ScoredSet(name, [str(i) for i in range(60)], rows)
        for name, rows in (
            ("new", {"base": BASE, "clean": scores(0.95, 1), "small": scores(0.5, 2)}),
            ("old", {"base": scores(0.8, 4), "clean": scores(0.3, 5), "small": scores(0.8, 4)}),
        )
    ]
    analysis = analyse(sets, "base", FAST)
    overall = decide(analysis, COSTS)[0]
    facts = Circumstances(METRIC, COSTS)
    assert sentence(overall, analysis, facts).en.startswith("Use small: ")
    lines = [line.en for line in reasons(overall, analysis, facts)]
    assert any(
        line.startswith("clean forgets: its gain over the base on old is -50.0 points")
        for line in lines
    )


def test_many_names_are_cut_with_their_number():
    rows = {f"c{i}": scores(0.9, 1) for i in range(9)}
    analysis = analyse(
        [ScoredSet("test", [str(i) for i in range(60)], {"base": BASE, **rows})],
        "base",
        Terms(num_resamples=99),
    )
    costs = dict.fromkeys(rows, 1.0)
    decision = decide(analysis, costs)[0]
    text = sentence(decision, analysis, Circumstances(METRIC, costs))
    assert "c0, c1, c2, c3, c4, c5 and 3 more" in text.en
    assert "等 9 个" in text.zh


def test_undecided_says_why():
    assert "no candidate finished" in undecided_sentence().en


def test_no_words_are_left_with_a_python_value_in_them():
    cases = [
        judged(base=BASE, clean=scores(0.9, 1), small=scores(0.88, 2)),
        judged(num_clusters=1, base=BASE, clean=scores(0.9, 1)),
        judged(base=BASE, clean=BASE),
    ]
    for found in cases:
        text = words(found)
        everything = "\n".join([text.en, text.zh, *why(found)])
        assert not re.search(r"None\b(?! helps)|nan|inf\b|\{|\}", everything), everything
