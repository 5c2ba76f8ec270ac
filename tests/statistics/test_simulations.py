"""Decisions on simulated experiments whose truth is known, with counts; run with --slow.

benchmarks/decisions.py makes the experiments, and prints these figures and more.
"""

from __future__ import annotations

import pytest
from scipy import stats

from benchmarks import decisions

pytestmark = pytest.mark.slow

LEVEL = 0.05


@pytest.mark.parametrize("base_rate", [0.6, 0.3])
def test_without_a_difference_a_winner_is_named_in_at_most_one_of_twenty_experiments(base_rate):
    by_number = decisions.winners_without_difference(2_000, base_rate, seed=1)
    assert list(by_number) == [2, 3, 4, 5, 6, 7, 8]
    found = decisions.total(by_number)
    assert found.num_experiments == 2_000
    assert found.num_named <= 100
    for one in by_number.values():
        # What chance makes of a twentieth in so many experiments.
        assert one.num_named <= stats.binom.ppf(0.999, one.num_experiments, LEVEL)


@pytest.mark.parametrize("num_candidates", [2, 4])
def test_the_luck_of_seeds_names_no_winner_more_often(num_candidates):
    found = decisions.winners_with_seeds(300, num_candidates, of_seed=0.3)
    assert found.num_named <= stats.binom.ppf(0.999, found.num_experiments, LEVEL)


@pytest.mark.parametrize("num_clusters", [10, 20, 50, 200])
@pytest.mark.parametrize("rates", [(0.6, 0.5), (0.3, 0.3), (0.85, 0.8)])
def test_intervals_of_95_percent_cover_93_to_97(num_clusters, rates):
    held = decisions.coverage(2_000, num_clusters, *rates, seed=2)
    assert 0.93 <= held.of_mean <= 0.97
    assert 0.93 <= held.of_difference <= 0.97


@pytest.mark.parametrize("num_clusters", [10, 20, 50])
def test_intervals_of_rare_answers_are_too_wide_rather_than_too_narrow(num_clusters):
    held = decisions.coverage(2_000, num_clusters, 0.05, 0.05, seed=2)
    assert held.of_mean >= 0.95
    assert held.of_difference >= 0.95


@pytest.mark.parametrize(("num_seeds", "of_seed"), [(2, 0.1), (3, 0.0), (3, 0.3), (5, 0.3)])
def test_intervals_over_seeds_cover_too(num_seeds, of_seed):
    held = decisions.coverage_with_seeds(300, 40, num_seeds, of_seed, seed=3)
    # 300 experiments leave 2.5 percentage points to chance.
    assert held.of_mean >= 0.925
    assert held.of_difference >= 0.925


def test_power_rises_with_the_gain_and_with_the_passages():
    by_gain = [decisions.power(300, gain, 80) for gain in (0.0, 0.03, 0.06, 0.09, 0.12)]
    assert by_gain == sorted(by_gain)
    assert by_gain[0] < LEVEL
    assert by_gain[-1] > 0.85
    by_passages = [decisions.power(300, 0.08, num) for num in (20, 60, 180)]
    assert by_passages == sorted(by_passages)
    assert by_passages[-1] - by_passages[0] > 0.5


@pytest.mark.parametrize("gain", [0.06, 0.1])
def test_the_questions_stated_as_needed_are_right_within_a_fifth(gain):
    """With a fifth fewer the power is below the 80 % promised, with a fifth more above."""
    stated = decisions.questions_stated(1_001, gain, 120)
    fewer, more = (decisions.power(1_000, gain, round(times * stated), 4) for times in (0.8, 1.2))
    assert fewer < 0.8 < more


@pytest.mark.parametrize("rare", [False, True], ids=["usual answers", "rare changes"])
@pytest.mark.parametrize("num_clusters", [40, 200, 400])
def test_a_gain_that_is_there_is_ruled_out_in_at_most_one_of_twenty_experiments(num_clusters, rare):
    """One candidate gains exactly what is worth having, the others nothing."""
    found = decisions.false_none_helps(400, num_clusters, seed=6, rare=rare)
    assert found.num_named <= stats.binom.ppf(0.999, found.num_experiments, LEVEL)


@pytest.mark.parametrize("rare", [False, True], ids=["usual answers", "rare changes"])
@pytest.mark.parametrize("num_clusters", [40, 200, 400])
def test_candidates_that_differ_are_called_equal_in_at_most_one_of_twenty_experiments(
    num_clusters, rare
):
    """One candidate is better by exactly what is worth having."""
    found = decisions.false_equal(400, num_clusters, seed=7, rare=rare)
    assert found.num_named <= stats.binom.ppf(0.999, found.num_experiments, LEVEL)


def test_few_questions_leave_the_verdict_open_and_many_settle_it():
    few = decisions.verdicts(100, 0.1, 12)
    assert few.get("cannot_tell", 0) > 0.9
    assert few.get("none_helps", 0) < LEVEL
    gain = [decisions.verdicts(100, 0.1, num).get("use", 0) for num in (12, 60, 200)]
    assert gain == sorted(gain)
    assert gain[-1] > 0.8
    none = [decisions.verdicts(200, 0.0, num, 1).get("none_helps", 0) for num in (12, 200, 600)]
    assert none == sorted(none)
    assert none[-1] > 0.4
