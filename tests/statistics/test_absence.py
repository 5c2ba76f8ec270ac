"""Claims of absence against scipy's tests, and what makes them impossible."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from loracle.statistics import ScoredSet, Terms, analyse, compare
from loracle.statistics.absence import largest_gain, p_absent, questions_to_absence
from loracle.statistics.power import POWER, Precision
from loracle.statistics.records import Comparison

WORTH = 0.02


def precision(num_clusters: int = 50, **changes: float) -> Precision:
    values = {
        "error": 0.1 / math.sqrt(num_clusters),
        "degrees_of_freedom": num_clusters - 1,
        "num_clusters": num_clusters,
    }
    return Precision(**(values | changes))


def test_the_p_value_is_that_of_a_one_sided_t_test_of_the_gain_worth_having():
    values = np.random.default_rng(0).normal(0, 0.1, 50)
    expected = stats.ttest_1samp(values, WORTH, alternative="less")
    error = values.std(ddof=1) / math.sqrt(50)
    found = p_absent(float(values.mean()), WORTH, precision(error=float(error)))
    assert found == pytest.approx(expected.pvalue)
    high = expected.confidence_interval(0.99).high
    bound = largest_gain(float(values.mean()), precision(error=float(error)), 0.01)
    assert bound == pytest.approx(high)


def test_answers_that_hardly_differ_are_no_proof_by_themselves():
    # Fifty passages without any difference: two in a hundred that differ would not be among them
    # with a chance of 36 %.
    same = precision(error=0.0, least_variance=WORTH * (1 - WORTH) / 50)
    assert 0.15 < p_absent(0.0, WORTH, same) < 0.3
    unbounded = precision(error=0.0)
    assert p_absent(0.0, WORTH, unbounded) == 1.0
    assert largest_gain(0.0, unbounded, 0.05) is None


def test_one_passage_shows_no_absence():
    alone = precision(1, error=math.nan, degrees_of_freedom=1)
    assert p_absent(-0.5, WORTH, alone) == 1.0
    assert questions_to_absence(-0.5, WORTH, alone, 0.05, 10) is None


def test_the_spread_of_seeds_counts():
    plain, seeds = precision(), precision(seed_error=0.02, seed_degrees_of_freedom=4)
    assert p_absent(-0.02, WORTH, seeds) > p_absent(-0.02, WORTH, plain)
    # However many questions: seeds alone leave more open than there is room.
    assert questions_to_absence(0.0, WORTH, seeds, 0.05, 100) is None


@pytest.mark.parametrize("gain", [-0.01, 0.0, 0.01])
def test_with_the_questions_stated_the_claim_succeeds_as_often_as_planned(gain):
    needed = questions_to_absence(gain, WORTH, precision(), 0.05, num_questions=50)
    assert needed is not None
    generator = np.random.default_rng(1)
    values = generator.normal(gain, 0.1, (4_000, needed))
    found = stats.ttest_1samp(values, WORTH, axis=1, alternative="less").pvalue
    assert np.mean(found <= 0.05) == pytest.approx(POWER, abs=0.03)


def test_no_number_of_questions_rules_out_a_gain_that_is_there():
    assert questions_to_absence(WORTH, WORTH, precision(), 0.05, 50) is None


def scored(num: int, **rates: float) -> ScoredSet:
    order = np.random.default_rng(3).permutation(num)
    rows = {row: (order < rate * num).astype(float)[None, :] for row, rate in rates.items()}
    return ScoredSet("test", [str(i) for i in range(num)], rows)


def found_in(comparisons: tuple[Comparison, ...], a: str, b: str) -> Comparison:
    return next(one for one in comparisons if (one.a, one.b) == (a, b))


FAST = Terms(num_resamples=99)


def test_a_loss_rules_out_a_gain_and_equality_needs_both_sides():
    analysis = analyse([scored(1000, base=0.6, a=0.5, b=0.6)], "base", FAST)
    against_base = analysis.comparison("a", "base", "test")
    assert (against_base.absent, against_base.better) == (True, "base")
    assert not analysis.comparison("a", "b", "test").absent
    assert analysis.comparison("b", "base", "test").absent


def test_where_lower_is_better_a_gain_is_a_fall():
    terms = Terms(higher_is_better=False, num_resamples=99)
    analysis = analyse([scored(1000, base=0.6, a=0.5, b=0.7)], "base", terms)
    assert not analysis.comparison("a", "base", "test").absent
    assert analysis.comparison("b", "base", "test").absent


def test_claims_agree_with_their_corrected_p_values_and_bounds():
    rates = {"base": 0.6, "a": 0.6, "b": 0.59, "c": 0.602, "d": 0.58}
    analysis = analyse([scored(400, **rates)], "base", FAST)
    for comparison in analysis.comparisons:
        assert comparison.absent == (comparison.p_absent <= 0.05)
        assert comparison.largest is not None
        assert comparison.absent == (comparison.largest < WORTH)
    assert {one.absent for one in analysis.comparisons} == {True, False}


def test_rows_of_two_runs_are_equal_only_if_neither_is_ahead():
    sets = [scored(1000, a=0.6, b=0.6, c=0.5)]
    found = compare(sets, [("a", "b"), ("c", "a")], frozenset(), FAST)
    assert found_in(found, "a", "b").absent
    assert not found_in(found, "c", "a").absent
