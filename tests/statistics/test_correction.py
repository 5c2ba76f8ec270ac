"""Holm's procedure against statsmodels and its step-by-step definition."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from loracle.statistics.correction import holm, holm_levels


@pytest.fixture(autouse=True, scope="module")
def _no_collections() -> Iterator[None]:
    """statsmodels collects all garbage in each call: half a second with torch in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


P_VALUES = st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=12)


@settings(deadline=None)
@given(P_VALUES)
def test_adjusted_p_values_are_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected, rel=1e-10)


@settings(deadline=None)
@given(P_VALUES)
def test_levels_are_those_at_which_the_procedure_stops(p_values):
    rejected = multipletests(p_values, alpha=0.05, method="holm")[0]
    levels = holm_levels(p_values, 0.05)
    num_left = len(p_values) - sum(rejected)
    for p, level, is_rejected in zip(p_values, levels, rejected, strict=True):
        if is_rejected:
            assert p <= level * (1 + 1e-6)
        else:
            assert level == pytest.approx(0.05 / num_left)


def test_no_comparisons_need_no_correction():
    assert holm([]) == []
    assert holm_levels([], 0.05) == []


def test_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    levels = holm_levels([0.01, 0.04, 0.03, 0.005], 0.05)
    assert levels == pytest.approx([0.05 / 3, 0.025, 0.025, 0.0125])
