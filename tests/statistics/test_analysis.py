"""Estimates and comparisons of a whole experiment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from loracle.statistics import ScoredSet, Terms, analyse, compare

FAST = Terms(num_resamples=499)


def scored(name: str = "test", num_clusters: int = 30, size: int = 3, **means: float) -> ScoredSet:
    """Rows by mean: answers share the passage's difficulty, so pairs differ less than rows vary."""
    generator = np.random.default_rng(len(name))
    labels = np.repeat(np.arange(num_clusters), size)
    shared = generator.normal(0, 0.08, num_clusters)[labels]
    rows = {
        row: np.clip(mean + shared + np.random.default_rng(i).normal(0, 0.03, len(labels)), 0, 1)[
            None, :
        ]
        for i, (row, mean) in enumerate(means.items())
    }
    return ScoredSet(name, [f"passage:{label}" for label in labels], rows)


THREE = {"base": 0.3, "a": 0.6, "b": 0.5}


def test_every_row_has_an_estimate_and_every_pair_a_comparison():
    found = analyse([scored(**THREE)], "base", FAST)
    assert [estimate.row for estimate in found.estimates] == ["base", "a", "b"]
    pairs = [(c.a, c.b) for c in found.comparisons]
    assert pairs == [("a", "base"), ("b", "base"), ("a", "b")]
    for comparison in found.comparisons:
        means = [found.estimate(row, "test").mean for row in (comparison.a, comparison.b)]
        assert comparison.difference == pytest.approx(means[0] - means[1])
        assert comparison.low < comparison.difference < comparison.high
        assert comparison.better == comparison.a
        counts = (comparison.num_a_better, comparison.num_b_better, comparison.num_equal)
        assert sum(counts) == 90
    (facts,) = found.sets
    assert (facts.evaluation, facts.num_questions, facts.num_clusters) == ("test", 90, 30)
    assert facts.seed_variance is None


def test_pairing_by_question_makes_a_difference_more_certain_than_its_rows():
    found = analyse([scored(**THREE)], "base", FAST)
    a, pair = found.estimate("a", "test"), found.comparison("a", "b", "test")
    assert pair.high - pair.low < (a.high - a.low) / 2


def test_the_same_scores_give_the_same_figures_in_whatever_order_candidates_come():
    one = scored(**THREE)
    turned = replace(one, scores={row: one.scores[row] for row in ("b", "base", "a")})
    first, again, other = (analyse([s], "base", FAST) for s in (one, one, turned))
    assert first == again
    ab, ba = first.comparison("a", "b", "test"), other.comparison("a", "b", "test")
    assert (ba.a, ba.b) == ("b", "a")
    assert ba.p == ab.p
    assert ba.p_corrected == ab.p_corrected
    assert (-ba.high, -ba.low) == pytest.approx((ab.low, ab.high), rel=1e-9)


def test_identical_candidates_show_no_difference():
    one = scored(base=0.3, a=0.6)
    copied = replace(one, scores={**one.scores, "copy": one.scores["a"]})
    pair = analyse([copied], "base", FAST).comparison("a", "copy", "test")
    assert (pair.difference, pair.p, pair.p_corrected, pair.better) == (0.0, 1.0, 1.0, None)
    assert pair.questions_needed is None
    assert pair.low < 0 < pair.high


def test_where_lower_is_better_the_lower_row_is_better():
    one = scored(base=0.6, a=0.3)
    plain = analyse([one], "base", FAST)
    turned = analyse([one], "base", replace(FAST, higher_is_better=False, bounded=False))
    assert plain.comparison("a", "base", "test").better == "base"
    comparison = turned.comparison("a", "base", "test")
    assert comparison.better == "a"
    assert comparison.difference == pytest.approx(plain.comparison("a", "base", "test").difference)
    assert comparison.low < comparison.difference < comparison.high < 0
    assert comparison.num_a_better > comparison.num_b_better
    estimate = turned.estimate("a", "test")
    assert estimate.low < estimate.mean < estimate.high
    assert estimate.lift == pytest.approx(comparison.difference)


@pytest.mark.parametrize(
    ("min_gain", "better"), [(0.0, "a"), (0.25, "a"), (0.3, None), (0.35, None)]
)
def test_a_gain_must_be_shown_to_exceed_the_least_one(min_gain, better):
    found = analyse([scored(**THREE)], "base", replace(FAST, min_gain=min_gain))
    comparison = found.comparison("a", "base", "test")
    assert comparison.difference == pytest.approx(0.3, abs=0.02)
    assert comparison.better == better
    # Between candidates nothing is asked beyond a difference, and harm needs no margin.
    assert found.comparison("a", "b", "test").margin == 0.0
    harmful = analyse([scored(base=0.5, a=0.4)], "base", replace(FAST, min_gain=min_gain))
    assert harmful.comparison("a", "base", "test").better == "base"


def test_a_margin_shifts_the_sign_flip_test():
    one = scored(num_clusters=12, size=1, base=0.3, a=0.6)
    found = analyse([one], "base", replace(FAST, min_gain=0.28)).comparison("a", "base", "test")
    differences = (one.scores["a"] - one.scores["base"])[0] - 0.28
    expected = stats.permutation_test(
        (differences, np.zeros(12)),
        lambda x, y: np.mean(x - y),
        permutation_type="samples",
        n_resamples=np.inf,
    ).pvalue
    assert found.p == pytest.approx(expected, rel=1e-10)


def test_the_mean_over_sets_weighs_a_small_set_like_a_large_one():
    sets = [scored("large", 40, 5, **THREE), scored("small", 15, 1, base=0.1, a=0.2, b=0.3)]
    found = analyse(sets, "base", FAST)
    assert [facts.evaluation for facts in found.sets] == ["large", "small", None]
    for row in ("base", "a", "b"):
        parts = [found.estimate(row, name).mean for name in ("large", "small")]
        assert found.estimate(row, None).mean == pytest.approx(sum(parts) / 2)
    assert found.sets[-1].num_questions == 215
    assert found.sets[-1].num_clusters == 55
    assert len(found.comparisons) == 9


def test_a_set_alone_has_the_same_raw_figures_among_others():
    one, other = scored("one", **THREE), scored("second", **THREE)
    alone = analyse([one], "base", FAST).comparison("a", "b", "one")
    among = analyse([other, one], "base", FAST).comparison("a", "b", "one")
    assert (among.low, among.high, among.p) == (alone.low, alone.high, alone.p)
    assert among.p_corrected >= alone.p_corrected


def test_p_values_are_corrected_over_all_sets_together():
    sets = [scored("one", 12, 1, **THREE), scored("two", 12, 1, base=0.5, a=0.51, b=0.5)]
    comparisons = analyse(sets, "base", FAST).comparisons
    smallest = min(comparison.p for comparison in comparisons)
    corrected = min(comparison.p_corrected for comparison in comparisons)
    assert corrected == pytest.approx(9 * smallest)


def test_clusters_make_a_difference_less_certain_than_single_questions():
    one = scored(num_clusters=12, size=8, base=0.3, a=0.3, b=0.3)
    luck = np.repeat(np.random.default_rng(1).normal(0, 0.1, 12), 8)
    lucky = replace(one, scores={**one.scores, "b": np.clip(one.scores["b"] + luck, 0, 1)})
    ignored = replace(lucky, clusters=[str(i) for i in range(96)])
    known, unknown = (
        analyse([s], "base", FAST).comparison("a", "b", "test") for s in (lucky, ignored)
    )
    assert known.high - known.low > 1.5 * (unknown.high - unknown.low)


def test_the_luck_of_seeds_counts_against_a_difference():
    generator = np.random.default_rng(0)
    labels = [str(i) for i in range(200)]
    question = generator.normal(0.5, 0.1, 200)

    def trained(mean: float) -> np.ndarray:
        luck = generator.normal(0, 0.05, size=(3, 1))
        return mean + question + luck + generator.normal(0, 0.05, size=(3, 200))

    rows = {"base": question[None, :], "a": trained(0.02), "b": trained(0.0)}
    terms = replace(FAST, bounded=False)
    seeds = analyse([ScoredSet("test", labels, rows)], "base", terms)
    first = {row: scores[:1] for row, scores in rows.items()}
    single = analyse([ScoredSet("test", labels, first)], "base", terms)
    assert single.comparison("a", "b", "test").p < 0.001
    pair = seeds.comparison("a", "b", "test")
    assert pair.better is None
    assert not pair.exact
    assert seeds.sets[0].seed_variance == pytest.approx(0.05**2, rel=0.9)
    assert seeds.estimate("a", "test").num_seeds == 3
    # The base is not trained, so no seed makes it uncertain.
    base = seeds.estimate("base", "test")
    again = single.estimate("base", "test")
    assert (base.low, base.high) == pytest.approx((again.low, again.high), rel=1e-9)


def test_one_passage_gives_no_interval_and_shows_nothing():
    found = analyse([scored(num_clusters=1, size=20, **THREE)], "base", FAST)
    comparison = found.comparison("a", "base", "test")
    assert (comparison.low, comparison.high) == (None, None)
    assert (comparison.better, comparison.smallest_visible) == (None, None)
    assert found.sets[0].smallest_visible is None


def test_asking_for_a_row_that_is_not_there_is_an_error():
    found = analyse([scored(**THREE)], "base", FAST)
    with pytest.raises(KeyError):
        found.estimate("c", "test")
    with pytest.raises(KeyError):
        found.comparison("a", "b", "other")


def test_chosen_pairs_are_corrected_for_their_own_number():
    one = scored(num_clusters=12, size=1, base=0.3, a=0.33, b=0.31)
    (pair,) = compare([one], [("a", "b")], frozenset({"base"}), FAST)
    assert pair.p_corrected == pair.p
    assert analyse([one], "base", FAST).comparison("a", "b", "test").p == pair.p
