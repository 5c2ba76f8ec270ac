"""Sign-flip p-values against the definition and against scipy's exact tests."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loracle.statistics.sign_flips import MAX_EXACT_CLUSTERS, exact_p_value, p_values


def by_definition(parts) -> float:
    sums = [
        abs(sum(s * p for s, p in zip(signs, parts, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(parts))
    ]
    observed = abs(sum(parts))
    return float(np.mean([value >= observed - 1e-9 for value in sums]))


@settings(deadline=None)
@given(st.lists(st.integers(-20, 20), max_size=8))
def test_the_exact_p_value_is_the_share_of_all_sign_patterns_as_far_from_zero(parts):
    assert exact_p_value(np.array(parts, float)) == pytest.approx(by_definition(parts), abs=1e-12)


def test_it_equals_scipys_permutation_test_of_pairs():
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.4, 1, size=(2, 11)) * [[1.0], [0.5]]
    expected = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    (found,) = p_values((a - b)[:, None] / 11, seed=0, num_flips=99)
    assert found.value == pytest.approx(expected, rel=1e-10)
    assert found.exact


@pytest.mark.parametrize("num_clusters", [8, 17, 24, MAX_EXACT_CLUSTERS])
def test_of_signed_ranks_it_is_wilcoxons_exact_test(num_clusters):
    differences = np.random.default_rng(num_clusters).normal(0.3, 1, size=num_clusters)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    ranks = stats.rankdata(np.abs(differences)) * np.sign(differences)
    assert exact_p_value(ranks) == pytest.approx(expected, rel=1e-10)


def test_clusters_without_a_difference_do_not_matter():
    parts = np.array([0.3, -0.1, 0.2, 0.4])
    padded = np.concatenate((parts, np.zeros(1000)))[:, None]
    (found,) = p_values(padded, seed=0, num_flips=99)
    assert found == (exact_p_value(parts), True)


def test_without_any_difference_the_p_value_is_one():
    (found,) = p_values(np.zeros((50, 1)), seed=0, num_flips=99)
    assert found == (1.0, True)


def test_random_patterns_agree_with_all_patterns(monkeypatch):
    parts = np.random.default_rng(1).normal(0.25, 1, size=(24, 3))
    exact = p_values(parts, seed=0, num_flips=99)
    monkeypatch.setattr("loracle.statistics.sign_flips.MAX_EXACT_CLUSTERS", 0)
    drawn = p_values(parts, seed=0, num_flips=200_000)
    assert [p.exact for p in (*exact, *drawn)] == 3 * [True] + 3 * [False]
    for all_patterns, some in zip(exact, drawn, strict=True):
        assert some.value == pytest.approx(all_patterns.value, abs=0.004)


def test_a_random_p_value_is_never_zero_and_comes_from_the_seed_alone():
    parts = np.ones((100, 1))
    (found,) = p_values(parts, seed=0, num_flips=999)
    assert found.value == 1 / 1000
    noisy = np.random.default_rng(2).normal(0.1, 1, size=(100, 1))
    assert p_values(noisy, 5, 999) == p_values(noisy, 5, 999)
    assert p_values(noisy, 5, 999) != p_values(noisy, 6, 999)


def test_patterns_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    parts = np.random.default_rng(3).normal(0.1, 1, size=(43, 2))
    whole = p_values(parts, 0, 1_000, np.array([0.1, 0.0]), 4)
    monkeypatch.setattr("loracle.statistics.sign_flips._NUM_SIGNS_AT_ONCE", 43 * 7)
    assert p_values(parts, 0, 1_000, np.array([0.1, 0.0]), 4) == whole


def test_the_sign_of_a_difference_does_not_change_its_p_value():
    parts = np.random.default_rng(4).normal(0.1, 1, size=(60, 1))
    assert p_values(parts, 0, 999) == p_values(-parts, 0, 999)


def test_where_only_seeds_matter_it_is_students_test():
    # Questions that add next to nothing to the uncertainty: one difference in each of 4000.
    parts = np.full((4000, 1), 2.0 / 4000)
    (found,) = p_values(parts, 0, 200_000, np.array([1.0]), seed_degrees_of_freedom=4)
    assert found.value == pytest.approx(2 * stats.t.sf(2.0, 4), rel=0.02)
    assert not found.exact


def test_noise_of_the_seeds_makes_a_p_value_larger():
    parts = np.random.default_rng(5).normal(0.5, 1, size=(40, 1)) / 40
    plain, little, much = (
        p_values(parts, 0, 9_999, np.array([error]), 6)[0].value for error in (0.0, 0.1, 1.0)
    )
    assert plain < little < much
