"""Standard errors of clustered means, and the spread of seeds, by definition and statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import linalg, stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from loracle.statistics.spread import Clustering, SeedSpread

EXACT = {"rel": 1e-10, "abs": 1e-12}


def totals_of(values, labels):
    return Clustering.of([list(labels)]).totals(np.asarray(values, float)[:, None])


def test_with_every_question_alone_the_error_is_that_of_a_plain_mean():
    values = np.random.default_rng(0).normal(size=37)
    totals = totals_of(values, range(37))
    assert totals.means_K[0] == pytest.approx(values.mean(), **EXACT)
    assert totals.standard_errors_K[0] == pytest.approx(stats.sem(values), **EXACT)
    assert totals.degrees_of_freedom_K()[0] == pytest.approx(36, **EXACT)


def test_with_equal_clusters_the_error_is_statsmodels_cluster_robust_one():
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(15), 4)
    values = generator.normal(size=15)[labels] + generator.normal(size=60)
    fitted = sm.OLS(values, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": labels})
    assert totals_of(values, labels).standard_errors_K[0] == pytest.approx(fitted.bse[0], **EXACT)


def test_with_unequal_clusters_the_error_is_bell_and_mccaffreys():
    generator = np.random.default_rng(2)
    sizes = [1, 2, 3, 5, 8, 13]
    labels = np.repeat(np.arange(6), sizes)
    values = generator.normal(size=6)[labels] + generator.normal(size=32)
    # CR2 by its definition: residuals times (I - H)^(-1/2) within each cluster.
    design = np.ones((32, 1))
    hat = design @ design.T / 32
    residuals = values - values.mean()
    meat = 0.0
    for cluster in range(6):
        inside = labels == cluster
        block = np.eye(inside.sum()) - hat[np.ix_(inside, inside)]
        adjusted = linalg.inv(linalg.sqrtm(block)).real @ residuals[inside]
        meat += adjusted.sum() ** 2
    expected = np.sqrt(meat) / 32
    assert totals_of(values, labels).standard_errors_K[0] == pytest.approx(expected, **EXACT)


def test_answers_that_agree_within_a_passage_are_worth_one_answer():
    passages = np.random.default_rng(3).normal(size=20)
    repeated = totals_of(np.repeat(passages, 7), np.repeat(np.arange(20), 7))
    assert repeated.standard_errors_K[0] == pytest.approx(stats.sem(passages), **EXACT)


def test_a_mean_over_two_sets_weighs_both_alike_and_adds_their_variances():
    generator = np.random.default_rng(4)
    a, b = generator.normal(size=10), generator.normal(5, 3, size=40)
    both = Clustering.of([range(10), range(40)]).totals(np.concatenate((a, b))[:, None])
    assert both.means_K[0] == pytest.approx((a.mean() + b.mean()) / 2, **EXACT)
    expected = np.hypot(stats.sem(a), stats.sem(b)) / 2
    assert both.standard_errors_K[0] == pytest.approx(expected, **EXACT)
    # Welch's degrees of freedom, as scipy has them.
    welch = stats.ttest_ind(a, -b, equal_var=False).df
    assert both.degrees_of_freedom_K()[0] == pytest.approx(welch, **EXACT)


def test_the_same_label_in_two_sets_is_two_clusters():
    assert Clustering.of([["a", "b"], ["a", "a"]]).num_clusters == 3


def test_one_cluster_has_no_standard_error():
    assert np.isnan(totals_of([1.0, 2.0], ["a", "a"]).standard_errors_K[0])


def test_the_seeds_variance_is_that_of_a_two_way_analysis_of_variance():
    generator = np.random.default_rng(5)
    scores = (
        generator.normal(size=(3, 1))
        + generator.normal(size=50)
        + generator.normal(scale=0.5, size=(3, 50))
    )
    seed, question = (index.ravel() for index in np.indices(scores.shape))
    frame = pd.DataFrame({"y": scores.ravel(), "s": seed, "q": question})
    table = anova_lm(ols("y ~ C(s) + C(q)", frame).fit())
    squares = table["sum_sq"] / table["df"]
    expected = (squares["C(s)"] - squares["Residual"]) / 50
    found = SeedSpread.pooled(Clustering.of([range(50)]), [scores])
    assert found.variance == pytest.approx(expected, **EXACT)
    assert found.degrees_of_freedom == 2


def test_the_candidates_spreads_are_pooled_by_their_degrees_of_freedom():
    clustering = Clustering.of([range(200)])
    generator = np.random.default_rng(6)
    scores = [generator.normal(size=(n, 1)) + generator.normal(size=(n, 200)) for n in (2, 4, 1)]
    single = [SeedSpread.pooled(clustering, [one]) for one in scores]
    assert [one.degrees_of_freedom for one in single] == [1, 3, 0]
    found = SeedSpread.pooled(clustering, scores)
    assert found.degrees_of_freedom == 4
    assert found.variance == pytest.approx((single[0].variance + 3 * single[1].variance) / 4)


def test_seeds_that_differ_by_chance_answers_alone_have_no_variance_of_their_own():
    generator = np.random.default_rng(7)
    variances = [
        SeedSpread.pooled(
            Clustering.of([range(100)]), [generator.normal(size=(3, 100)) for _ in range(4)]
        ).variance
        for _ in range(50)
    ]
    assert min(variances) == 0.0
    # The plain variance of the seeds' means would be 1 / 100.
    assert np.mean(variances) < 0.003
