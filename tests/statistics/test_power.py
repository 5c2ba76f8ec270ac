"""Power figures against statsmodels' power of a t test."""

from __future__ import annotations

import math

import pytest
from statsmodels.stats.power import TTestPower

from loracle.statistics.power import (
    POWER,
    Precision,
    questions_needed,
    smallest_visible_difference,
)


def precision(num_clusters: int, **changes) -> Precision:
    """Of clusters whose differences have a standard deviation of 1."""
    values = {
        "error": 1 / math.sqrt(num_clusters),
        "degrees_of_freedom": num_clusters - 1,
        "num_clusters": num_clusters,
    }
    return Precision(**(values | changes))


@pytest.mark.parametrize("alpha", [0.05, 0.005])
@pytest.mark.parametrize("num_clusters", [20, 50, 400])
def test_the_smallest_visible_difference_is_the_t_tests(num_clusters, alpha):
    expected = TTestPower().solve_power(nobs=num_clusters, alpha=alpha, power=POWER)
    found = smallest_visible_difference(precision(num_clusters), alpha)
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("difference", [0.1, 0.3])
def test_the_questions_needed_are_the_t_tests(difference):
    expected = TTestPower().solve_power(effect_size=difference, alpha=0.05, power=POWER)
    # Asked on 30 passages of 4 questions each.
    found = questions_needed(difference, precision(30), 0.05, num_questions=120)
    assert found == pytest.approx(4 * expected, rel=0.03)
    assert questions_needed(-difference, precision(30), 0.05, num_questions=120) == found


def test_with_the_questions_needed_the_difference_is_the_smallest_visible():
    found = questions_needed(0.2, precision(30), 0.01, num_questions=30)
    assert found is not None
    visible = smallest_visible_difference(precision(30).with_questions(found / 30), 0.01)
    assert visible == pytest.approx(0.2, rel=1e-2)
    assert visible <= 0.2


def test_too_few_passages_show_nothing_however_large():
    # Five signs make p-values of 1/16 and more.
    assert smallest_visible_difference(precision(5), 0.05) is None
    assert smallest_visible_difference(precision(6), 0.05) is not None
    # Six passages are needed for it, whatever the difference.
    assert questions_needed(1e6, precision(5), 0.05, num_questions=10) == 12


def test_seeds_put_an_end_to_what_more_questions_can_show():
    with_seeds = precision(50, seed_error=0.2, seed_degrees_of_freedom=8)
    alone = smallest_visible_difference(precision(50), 0.05)
    visible = smallest_visible_difference(with_seeds, 0.05)
    assert alone is not None
    assert visible is not None
    assert visible > alone
    assert questions_needed(0.5, with_seeds, 0.05, 50) is None
    needed = questions_needed(1.0, with_seeds, 0.05, 50)
    plain = questions_needed(1.0, precision(50), 0.05, 50)
    assert needed is not None
    assert plain is not None
    assert needed > plain


@pytest.mark.parametrize("error", [0.0, math.nan])
def test_nothing_is_stated_where_the_standard_error_is_unknown(error):
    unknown = precision(50, error=error)
    assert smallest_visible_difference(unknown, 0.05) is None
    assert questions_needed(0.3, unknown, 0.05, 50) is None


def test_no_number_of_questions_shows_a_difference_of_zero():
    assert questions_needed(0.0, precision(50), 0.05, 50) is None
