"""Decisions in words: each verdict, in both languages."""

from __future__ import annotations

import re

import numpy as np

from loracle.decision.rule import Decision, decide
from loracle.decision.wording import (
    Circumstances,
    Text,
    reasons,
    sentence,
    undecided_sentence,
)
from loracle.statistics import Analysis, ScoredSet, Terms, analyse

METRIC = "f1"
FAST = Terms(num_resamples=499)
COSTS = {"clean": 24_298.0, "small": 5_042.0, "copy": 24_298.0}


def scores(mean: float, kind: int, num: int = 60) -> np.ndarray:
    """Right or wrong for `num` questions of which the share `mean` is right."""
    order = np.random.default_rng(kind).permutation(num)
    return (order < round(mean * num)).astype(float)[None, :]


def judged(
    *, num_clusters: int = 60, terms: Terms = FAST, **rows: np.ndarray
) -> tuple[Decision, Analysis]:
    clusters = [str(i % num_clusters) for i in range(60)]
    analysis = analyse([ScoredSet("test", clusters, rows)], "base", terms)
    return decide(analysis, COSTS)[0], analysis


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


def test_no_difference_says_how_many_questions_would_show_it_and_which_is_cheapest():
    found = judged(base=BASE, clean=scores(0.8, 1), small=scores(0.75, 2))
    text = words(found)
    needed = found[1].comparison("clean", "small", "test").questions_needed
    assert text.en.startswith(
        f"No difference shown between clean and small; clean · small: about {needed:,} questions "
        "like these would be needed to see the observed 5.0 points, 60 were asked."
    )
    assert text.en.endswith("Of those shown to help, small was the cheapest to train.")
    assert "clean 和 small 之间未显示出差异" in text.zh
    assert f"约需 {needed:,} 道" in text.zh
    english, chinese = why(found)
    assert "Training tokens computed: clean 24,298, small 5,042." in english
    assert "训练计算的 token 数：clean 24,298，small 5,042。" in chinese


def test_candidates_with_the_same_answers_are_said_to_have_equal_means():
    good = scores(0.8, 1)
    found = judged(base=BASE, clean=good, copy=good)
    assert "clean · copy: their means are equal" in words(found).en
    assert "平均分相同" in words(found).zh
    assert "of equal costs the better mean was taken" in why(found)[0]


def test_none_helps_keeps_the_base_and_names_the_best_and_the_harmful():
    found = judged(base=scores(0.8, 0), clean=scores(0.82, 0), small=scores(0.1, 2))
    text = words(found)
    assert text.en.startswith("None helps: no candidate is shown to be better than the base; keep")
    assert text.en.endswith("small is harmful.")
    assert text.zh.endswith("small 有害。")


def test_harm_by_all_is_a_verdict():
    found = judged(base=scores(0.9, 0), clean=scores(0.1, 1), small=scores(0.2, 2))
    assert words(found).en == (
        "Harmful: small and clean are shown to be worse than the base; keep the base."
    )
    assert words(found).zh == "有害：small 和 clean 被证明比基座模型更差；请保留基座模型。"


def test_a_least_gain_is_part_of_the_words():
    terms = Terms(min_gain=0.3, num_resamples=499)
    found = judged(terms=terms, base=BASE, clean=scores(0.35, 1))
    assert "better than the base by more than 30.0 points" in words(found).en
    assert "优于基座模型超过 30.0 分" in words(found).zh
    assert "not shown to gain enough" in why(found)[0]


def test_reasons_state_the_rule_every_difference_and_what_was_not_measured():
    found = judged(base=BASE, clean=scores(0.9, 1), small=scores(0.4, 2))
    english, chinese = why(found, failed=["noisy"])
    lines = english.splitlines()
    assert lines[0].startswith("Rule: F1, confidence 95%")
    assert "corrected for 3 comparisons (Holm)" in lines[0]
    assert re.search(r"^clean against base: \+80\.0 points \[6\d\.\d, 9\d\.\d\], ", lines[1])
    assert lines[3].startswith("clean against small: +50.0 points")
    assert "One seed" in english
    assert "Not judged, no trial finished: noisy." in english
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
    assert any(line.startswith("clean forgets: on old it is at -50.0 points") for line in lines)


def test_many_names_are_cut_with_their_number():
    rows = {f"c{i}": scores(0.9, 1) for i in range(9)}
    analysis = analyse(
        [ScoredSet("test", [str(i) for i in range(60)], {"base": BASE, **rows})],
        "base",
        Terms(num_resamples=99),
    )
    costs = dict.fromkeys(rows, 1.0)
    text = sentence(decide(analysis, costs)[0], analysis, Circumstances(METRIC, costs))
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
