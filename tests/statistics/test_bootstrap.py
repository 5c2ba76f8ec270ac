"""Intervals: the studentised cluster bootstrap against its definition, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from loracle.statistics.bootstrap import NUM_RESAMPLES, SeedErrors, intervals
from loracle.statistics.spread import Clustering

UNIT = (np.zeros(1), np.ones(1))


def totals_of(values, labels):
    values = np.asarray(values, float)
    return Clustering.of([list(labels)]).totals(values.reshape(len(labels), -1))


def by_definition(values, labels, confidence: float, seed: int) -> tuple[float, float]:
    """Slowly: draw clusters, take mean and standard error of what was drawn, one at a time."""
    clusters = [np.asarray(values)[np.asarray(labels) == label] for label in dict.fromkeys(labels)]
    num = len(clusters)
    generator = np.random.default_rng([seed, 0, 0])
    drawn = generator.integers(0, num, size=(NUM_RESAMPLES, num))
    mean = np.mean(values)

    def error(chosen, of_mean):
        size = sum(map(len, chosen))
        return np.sqrt(sum((c.sum() - len(c) * of_mean) ** 2 for c in chosen)) / size

    distances = []
    for row in drawn:
        chosen = [clusters[i] for i in row]
        resampled = np.concatenate(chosen).mean()
        standard_error = error(chosen, resampled) * np.sqrt(num / (num - 1))
        distances.append(abs(resampled - mean) / standard_error)
    own = np.sqrt(
        sum((c.sum() - len(c) * mean) ** 2 / (1 - len(c) / len(values)) for c in clusters)
    ) / len(values)
    width = np.quantile(distances, confidence) * own
    return mean - width, mean + width


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_an_interval_is_what_resampling_whole_passages_gives(confidence):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), generator.integers(1, 8, 12)).tolist()
    values = generator.normal(size=12)[labels] + generator.normal(size=len(labels))
    low, high = intervals(totals_of(values, labels), confidence, seed=3)
    assert (low[0], high[0]) == pytest.approx(by_definition(values, labels, confidence, 3), 1e-10)


def test_with_many_normal_questions_it_is_students_interval():
    values = np.random.default_rng(1).normal(size=2_000)
    low, high = intervals(totals_of(values, range(2_000)), 0.95, seed=0)
    expected = stats.t.interval(0.95, 1_999, values.mean(), stats.sem(values))
    assert (low[0], high[0]) == pytest.approx(expected, abs=0.04 * stats.sem(values))


def test_it_comes_from_the_seed_alone_whatever_is_drawn_at_once(monkeypatch):
    totals = totals_of(np.random.default_rng(2).normal(size=(30, 4)), range(30))
    whole = intervals(totals, 0.95, seed=0)
    monkeypatch.setattr("loracle.statistics.bootstrap._NUM_COUNTS_AT_ONCE", 30 * 7)
    again = intervals(totals, 0.95, seed=0)
    np.testing.assert_allclose(again, whole, rtol=1e-12)
    other = intervals(totals, 0.95, seed=1)
    assert not np.allclose(other.low_K, whole.low_K, rtol=1e-6)


def test_a_difference_turned_round_has_its_interval_turned_round():
    values = np.random.default_rng(3).normal(size=(25, 1))
    low, high = intervals(totals_of(np.hstack((values, -values)), range(25)), 0.95, seed=0)
    assert low[0] == pytest.approx(-high[1])
    assert high[0] == pytest.approx(-low[1])


def test_two_sets_are_resampled_each_for_itself():
    generator = np.random.default_rng(4)
    constant, varying = np.ones(50), generator.normal(size=40)
    both = Clustering.of([range(50), range(40)]).totals(
        np.concatenate((constant, varying))[:, None]
    )
    low, high = intervals(both, 0.95, seed=0)
    # Only the second set varies, and it has half of the weight.
    expected = stats.sem(varying) * stats.t.ppf(0.975, 39) / 2
    assert (high[0] - low[0]) / 2 == pytest.approx(expected, rel=0.05)


def test_ends_stay_within_what_scores_can_be():
    values = np.r_[np.ones(11), np.zeros(1)]
    low, high = intervals(totals_of(values, range(12)), 0.95, 0, UNIT)
    assert 0 <= low[0] < 11 / 12
    assert high[0] == 1.0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_a_single_right_answer_the_interval_is_the_binomial_one(value):
    low, high = intervals(totals_of(np.full(40, value), np.repeat(range(20), 2)), 0.95, 0, UNIT)
    # Twenty independent passages, not forty.
    expected = stats.binomtest(int(20 * value), 20).proportion_ci(0.95)
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_two_rows_with_the_same_answers_may_still_differ_on_other_questions():
    low, high = intervals(totals_of(np.zeros(20), range(20)), 0.95, 0, (-np.ones(1), np.ones(1)))
    expected = stats.binomtest(0, 20).proportion_ci(0.95).high
    assert (low[0], high[0]) == pytest.approx((-expected, expected), rel=1e-9)


def test_unbounded_values_that_do_not_vary_have_no_interval():
    low, high = intervals(totals_of(np.full(20, 3.3), range(20)), 0.95, 0)
    assert np.isnan(low[0])
    assert np.isnan(high[0])


def test_one_passage_has_no_interval():
    low, high = intervals(totals_of([0.0, 1.0, 1.0], [0, 0, 0]), 0.95, 0, UNIT)
    assert np.isnan(low[0])
    assert np.isnan(high[0])


def test_nearly_equal_passages_do_not_make_an_endless_interval():
    values = np.r_[np.zeros(19), 1.0]
    _, high = intervals(totals_of(values, range(20)), 0.95, 0, UNIT)
    # Uncut, the quantile is infinite: a third of the resamples miss the one right answer.
    assert high[0] <= 0.05 + 3 * stats.t.ppf(0.975, 19) * stats.sem(values) + 1e-12


def test_the_seeds_spread_widens_an_interval_as_students_distribution_does():
    totals = totals_of(np.random.default_rng(5).normal(size=400), range(400))
    narrow = intervals(totals, 0.95, 0)
    wide = intervals(totals, 0.95, 0, None, SeedErrors(np.array([10.0]), 3))
    assert narrow.high_K[0] - narrow.low_K[0] < 0.25
    expected = 10 * stats.t.ppf(0.975, 3)
    assert (wide.high_K[0] - wide.low_K[0]) / 2 == pytest.approx(expected, rel=0.05)
