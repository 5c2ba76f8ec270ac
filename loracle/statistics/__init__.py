"""Statistics of the decision: plain numpy and scipy on arrays, no torch, everything seeded.

means.py        plain means
spread.py       clustered means, standard errors, the seeds' spread
bootstrap.py    intervals
sign_flips.py   p-values
correction.py   Holm
power.py        smallest visible difference, questions needed
absence.py      when a gain worth having is ruled out
analysis.py     all of it for every row and pair
"""

from __future__ import annotations

from loracle.statistics.analysis import analyse, compare
from loracle.statistics.means import Means, mean_over_sets, means_over_seeds, plain_mean
from loracle.statistics.records import (
    GAIN_WORTH_HAVING,
    Analysis,
    Comparison,
    Estimate,
    ScoredSet,
    SetFacts,
    Terms,
)
from loracle.statistics.scope import RANDOM_SEED

__all__ = [
    "GAIN_WORTH_HAVING",
    "RANDOM_SEED",
    "Analysis",
    "Comparison",
    "Estimate",
    "Means",
    "ScoredSet",
    "SetFacts",
    "Terms",
    "analyse",
    "compare",
    "mean_over_sets",
    "means_over_seeds",
    "plain_mean",
]
