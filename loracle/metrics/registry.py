"""The metrics by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Literal, NamedTuple

from loracle.data.reasoning import answer_of
from loracle.errors import MissingExtraError, PlanError
from loracle.metrics import choices, numbers
from loracle.metrics.answers import Script, em, f1
from loracle.metrics.choices import choice
from loracle.metrics.custom import custom_metric, is_custom, load_function, module_sha256
from loracle.metrics.numbers import numeric
from loracle.metrics.official import cmrc_em, cmrc_f1, squad_em, squad_f1
from loracle.metrics.texts import bleu, chrf, rouge_l
from loracle.plan import nearest
from loracle.text import metric_unit

# Metrics that need sacrebleu, which the extra of the same name installs.
_BY_SACREBLEU = frozenset({"bleu", "chrf"})

WORD_METRICS = ("em", "f1")
"""Metrics that compare words as SQuAD does, or characters where the set's script has no spaces."""
TOKENS_IN_WORDS = {"spaced": "words", "characters": "characters"}
"""What they compare, by script."""


class Metric(NamedTuple):
    """A metric by its name."""

    name: str
    function: Callable[..., float] | None
    """Scores a prediction against references; None if that needs the model."""
    higher_is_better: bool
    meaning: str
    by_script: bool = False
    """Whether the function also takes the script of the evaluation set."""
    reads_prediction: Callable[[str], bool] | None = None
    """Whether it reads anything in a prediction; None if it reads every text."""
    reads_reference: Callable[[str], bool] | None = None
    """Whether it reads anything in a reference; None if it reads every text."""
    reads_what: str = "text"
    """What it reads, in the singular."""

    @property
    def unit(self) -> Literal["share", "nats"]:
        """`share`: 0 to 1, shown in points. `nats`: shown unchanged."""
        return metric_unit(self.name)

    @property
    def needs_model(self) -> bool:
        """Whether only a run can compute it, while it answers the questions."""
        return self.function is None


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("em", em, True, "exact match, by the script of the set", True),
        Metric("f1", f1, True, "shared tokens, by the script of the set", True),
        Metric("squad_em", squad_em, True, "exact match of the SQuAD v1.1 script"),
        Metric("squad_f1", squad_f1, True, "shared words of the SQuAD v1.1 script"),
        Metric("cmrc_em", cmrc_em, True, "exact match of the CMRC 2018 script"),
        Metric("cmrc_f1", cmrc_f1, True, "longest common run of the CMRC 2018 script"),
        Metric("rouge_l", rouge_l, True, "F1 of the longest common subsequence", True),
        Metric("bleu", bleu, True, "sentence BLEU of sacrebleu", True),
        Metric("chrf", chrf, True, "sentence chrF2 of sacrebleu"),
        Metric(
            "numeric",
            numeric,
            True,
            "the number stated equals the reference's",
            reads_prediction=numbers.reads,
            reads_reference=numbers.reads,
            reads_what="number",
        ),
        Metric(
            "choice",
            choice,
            True,
            "the letters chosen are the reference's",
            reads_prediction=choices.reads_prediction,
            reads_reference=choices.reads_reference,
            reads_what="letter",
        ),
        Metric("answer_nll", None, False, "the best reference's negative log-likelihood"),
    )
}


def get_metric(name: str) -> Metric:
    """The metric of that name, or the user's own for `module:function`, which is not imported yet.

    Raises PlanError that names the nearest known one and all.
    """
    if name in METRICS:
        return METRICS[name]
    if is_custom(name):
        return Metric(name, custom_metric(name), True, "the user's own function")
    near = nearest(name, METRICS)
    hint = f"did you mean {near}? " if near else ""
    raise PlanError(
        f"there is no metric {name!r}; {hint}known: {', '.join(METRICS)}, and your own "
        "functions, module:function"
    )


def check_usable(name: str) -> Metric:
    """The metric, after checking that it can be computed here: its library or function exists.

    Raises:
        PlanError: it is unknown, or the user's function cannot be imported.
        MissingExtraError: its library is not installed.
    """
    metric = get_metric(name)
    if name in _BY_SACREBLEU and find_spec("sacrebleu") is None:
        raise MissingExtraError(
            f"metric {name} needs sacrebleu; run: pip install 'loracle[sacrebleu]'"
        )
    if name not in METRICS:
        load_function(name)
    return metric


def module_hashes(names: Iterable[str]) -> dict[str, str]:
    """By name, the hash of the module that holds a metric of the user's own."""
    return {name: module_sha256(name) for name in dict.fromkeys(names) if name not in METRICS}


def score(
    prediction: str,
    references: Sequence[str],
    metrics: Sequence[str],
    script: Script | None = None,
) -> dict[str, float]:
    """The value of the prediction's answer in each metric, by name; reasoning is not scored.

    script: that of the evaluation set (`script_of_set`); None takes that of these references.

    Raises PlanError for an unknown metric and for one that needs the model, DataError if there is
    no reference.
    """
    answer = answer_of(prediction).text
    # A reference that is only reasoning is kept unchanged: there is nothing else to compare.
    wanted = [answer_of(reference).text or reference for reference in references]
    return {name: _value(get_metric(name), answer, wanted, script) for name in metrics}


def _value(
    metric: Metric, prediction: str, references: Sequence[str], script: Script | None
) -> float:
    if metric.function is None:
        raise PlanError(
            f"{metric.name} needs the model's probabilities and cannot be computed from texts; "
            "`loracle run` computes it; leave it out here"
        )
    if metric.by_script:
        return metric.function(prediction, references, script)
    return metric.function(prediction, references)
