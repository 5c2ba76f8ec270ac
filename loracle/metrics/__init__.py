"""Scores of one predicted text against its reference answers.

    score("The Broncos.", ["Denver Broncos", "Broncos"], ["em", "f1"])  ->  {"em": 1.0, "f1": 1.0}

Every function takes the prediction and one or more references and returns a share from 0 to 1 in
full precision, the best over the references; the caller converts it to percent. Every score is for
one question, because questions are paired and clustered: no metric is computed over a corpus.
"""

from loracle.metrics.answers import Script, em, f1, script_of, script_of_set
from loracle.metrics.choices import choice
from loracle.metrics.fit import advised_metric, better_metric, unreadable_references
from loracle.metrics.numbers import numeric
from loracle.metrics.official import cmrc_em, cmrc_f1, squad_em, squad_f1
from loracle.metrics.registry import (
    METRICS,
    Metric,
    check_usable,
    get_metric,
    module_hashes,
    score,
)
from loracle.metrics.scorer import Scorer
from loracle.metrics.texts import bleu, chrf, rouge_l

__all__ = [
    "METRICS",
    "Metric",
    "Scorer",
    "Script",
    "advised_metric",
    "better_metric",
    "bleu",
    "check_usable",
    "choice",
    "chrf",
    "cmrc_em",
    "cmrc_f1",
    "em",
    "f1",
    "get_metric",
    "module_hashes",
    "numeric",
    "rouge_l",
    "score",
    "script_of",
    "script_of_set",
    "squad_em",
    "squad_f1",
    "unreadable_references",
]
