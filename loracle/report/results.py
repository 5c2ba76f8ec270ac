"""results.json: what a run found, for programs. `results.schema.json` describes every field.

    {"version": 3, "run": "demo", "model": {...}, "evaluations": [...],
     "rows": [{"candidate": "clean", "seed": 0, "status": "done",
               "scores": {"test": {"f1": {"mean": 0.61, "lift": 0.22}}}, ...}],
     "ranking": [{"rank": 1, "candidate": "clean", "mean": 0.61, "lift": 0.22, ...}],
     "rule": {"metric": "f1", "confidence": 0.95, "min_gain": 0.0, ...},
     "precision": [{"metric": "f1", "evaluation": "test", "smallest_visible": 0.03, ...}],
     "estimates": [{"metric": "f1", "candidate": "clean", "evaluation": "test",
                    "mean": 0.61, "low": 0.58, "high": 0.64, ...}],
     "comparisons": [{"metric": "f1", "a": "clean", "b": "base", "evaluation": "test",
                      "difference": 0.22, "low": 0.19, "high": 0.25, "p_corrected": 0.0005, ...}],
     "decisions": [{"evaluation": "test", "verdict": "use", "winner": "clean",
                    "sentence": {"en": "Use clean: ...", "zh": "..."}, ...}], ...}

A row is one trial; the ranking has one entry for each candidate and one for the base model, with
means over the seeds. Scores of shares (em, f1, ...) are from 0 to 1 here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from loracle.errors import RunFolderError
from loracle.files import read_json
from loracle.plan import BASE_NAME
from loracle.run_folder.trial_record import TrialSummary
from loracle.statistics import Means, mean_over_sets, means_over_seeds, plain_mean

RESULTS_VERSION = 3
FINISH_REASONS = ("stop", "length")
SCHEMA_PATH = Path(__file__).with_name("results.schema.json")


@dataclass(frozen=True)
class ModelFacts:
    """The base model that all trials shared, as results.json states it."""

    name: str
    revision: str | None
    dtype: str
    num_parameters: int
    base_fingerprint: str
    batching: Literal["forest", "padded"]
    batching_reason: str
    """Why this batching was used: the self-test's result, or the plan's setting."""
    quantization: str = "none"
    """What packs the frozen weights: none, int8, nf4, ...; `dtype` is then that of the products."""
    attention: str | None = None
    """What computed it over the forest: spans, dense, triton or flex."""
    attention_replaced: list[str] = field(default_factory=list)
    """Attention that would have come first, and what was wrong with it, in words."""


@dataclass(frozen=True)
class EvaluationFacts:
    """One evaluation dataset."""

    name: str
    num_examples: int
    metrics: tuple[str, ...]
    tokenisation: Mapping[str, int]
    """How many examples em and f1 compared by which kind of token, such as {"spaced": 280,
    "characters": 21}."""
    num_clusters: int
    """Independent groups of questions: those about one passage are one."""
    clusters_by: Mapping[str, int]
    """How many questions were grouped by what, such as {"passage": 290, "row": 11}."""
    held_out: Mapping[str, int] | None = None
    """Rows taken from each candidate; None if the set was not split off from the candidates."""


@dataclass(frozen=True)
class RunFacts:
    """What results.json says of the run as a whole."""

    run: str
    plan_fingerprint: str
    model: ModelFacts
    evaluations: Sequence[EvaluationFacts]
    decision_metric: str
    higher_is_better: bool
    created: datetime | None = None
    """None means now."""


@dataclass(frozen=True)
class ResultRow:
    """One trial, or the base model (`seed` None). A failed trial may have no measurements."""

    candidate: str
    seed: int | None
    status: Literal["done", "failed"]
    reason: str | None = None
    num_examples: int = 0
    num_steps: int = 0
    supervised_tokens: int = 0
    tokens_read: int = 0
    tokens_computed: int = 0
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    means: Means = field(default_factory=dict)
    finish_reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Why answers ended, with counts, by evaluation: {"test": {"stop": 298, "length": 3}}."""

    @classmethod
    def of(cls, summary: TrialSummary) -> ResultRow:
        """The row of a finished trial, or of the base, which was not trained."""
        trained = summary.training
        costs: dict[str, Any] = {}
        if trained is not None:
            costs = {
                "num_examples": trained.num_examples,
                "num_steps": trained.num_steps,
                "supervised_tokens": trained.num_supervised_tokens,
                "tokens_read": trained.num_tokens_read,
                "tokens_computed": trained.num_tokens_computed,
                "training_seconds": trained.seconds,
            }
        return cls(
            candidate=summary.candidate,
            seed=summary.seed,
            status="done",
            evaluation_seconds=summary.evaluation_seconds,
            means=summary.means,
            finish_reasons={
                name: outcome.finish_reasons for name, outcome in summary.evaluations.items()
            },
            **costs,
        )


def build_results(
    facts: RunFacts, rows: Sequence[ResultRow], judgement: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of results.json. judgement: the record of a Judgement.

    Every row that is done must have the decision metric on every evaluation.
    """
    base = [row.means for row in rows if row.candidate == BASE_NAME and row.status == "done"]
    names = [evaluation.name for evaluation in facts.evaluations]
    entries = _ranking_entries(rows, names, facts.decision_metric)
    created = facts.created or datetime.now(UTC)
    return {
        "version": RESULTS_VERSION,
        "run": facts.run,
        "created": created.isoformat(timespec="seconds"),
        "plan_fingerprint": facts.plan_fingerprint,
        "model": asdict(facts.model),
        "evaluations": [_evaluation_record(evaluation) for evaluation in facts.evaluations],
        "decision_metric": facts.decision_metric,
        "higher_is_better": facts.higher_is_better,
        "num_failed": sum(row.status == "failed" for row in rows),
        "rows": [_row_record(row, means_over_seeds(base)) for row in rows],
        "ranking": _ranked(entries, facts.higher_is_better),
        **judgement,
    }


def read_results(path: Path, *, oldest: int = RESULTS_VERSION) -> dict[str, Any]:
    """Read results.json.

    oldest: the oldest version that the caller can read; version 1 has no estimates, comparisons
    and decisions; version 2 has other verdicts (`no_difference`), no claims of absence and no
    `read_first`.

    Raises RunFolderError if it is missing, damaged or of another version.
    """
    results = read_json(path)
    version = results.get("version") if isinstance(results, dict) else None
    if version not in range(oldest, RESULTS_VERSION + 1):
        raise RunFolderError(
            f"{path} has version {version}, this Loracle reads version {RESULTS_VERSION}; "
            "read it with the release that wrote it"
        )
    return dict(results)


def results_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of results.json."""
    return dict(json.loads(SCHEMA_PATH.read_text(encoding="utf-8")))


def _evaluation_record(facts: EvaluationFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "num_examples": facts.num_examples,
        "num_clusters": facts.num_clusters,
        "clusters_by": dict(facts.clusters_by),
        "held_out": None if facts.held_out is None else dict(facts.held_out),
        "metrics": list(facts.metrics),
        "tokenisation": dict(facts.tokenisation),
    }


def _row_record(row: ResultRow, base_means: Means) -> dict[str, Any]:
    record = {key: value for key, value in vars(row).items() if key != "means"}
    return record | {
        "scores": _scores(row.means, base_means),
        "finish_reasons": {
            evaluation: {reason: counts.get(reason, 0) for reason in FINISH_REASONS}
            for evaluation, counts in row.finish_reasons.items()
        },
    }


def _scores(means: Means, base_means: Means) -> dict[str, dict[str, dict[str, float | None]]]:
    return {
        evaluation: {
            metric: {
                "mean": mean,
                "lift": _difference(mean, base_means.get(evaluation, {}).get(metric)),
            }
            for metric, mean in by_metric.items()
        }
        for evaluation, by_metric in means.items()
    }


def _difference(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _ranking_entries(
    rows: Sequence[ResultRow], evaluations: Sequence[str], decision_metric: str
) -> list[dict[str, Any]]:
    """One entry for each candidate, in the rows' order, without ranks."""
    candidates: dict[str, list[ResultRow]] = {}
    for row in rows:
        candidates.setdefault(row.candidate, []).append(row)
    means = {
        name: means_over_seeds([row.means for row in trials if row.status == "done"])
        for name, trials in candidates.items()
    }
    decisive = {
        name: mean_over_sets(scores, evaluations, decision_metric) if scores else None
        for name, scores in means.items()
    }
    return [
        _ranking_entry(trials)
        | {
            "mean": decisive[name],
            "lift": _difference(decisive[name], decisive.get(BASE_NAME)),
            "scores": _scores(means[name], means.get(BASE_NAME, {})),
        }
        for name, trials in candidates.items()
    ]


def _ranking_entry(trials: Sequence[ResultRow]) -> dict[str, Any]:
    """An entry's fields besides its scores; its costs are those of the finished trials."""
    done = [row for row in trials if row.status == "done"]
    reasons = [row.reason for row in trials if row.status == "failed"]

    def mean_cost(cost: Callable[[ResultRow], float]) -> float | None:
        return plain_mean(map(cost, done)) if done else None

    return {
        "candidate": trials[0].candidate,
        "status": "done" if done else "failed",
        "reason": reasons[0] if reasons else None,
        "num_done": len(done),
        "num_failed": len(reasons),
        "num_examples": max(row.num_examples for row in trials),
        "num_steps": mean_cost(lambda row: row.num_steps),
        "seconds": mean_cost(lambda row: row.training_seconds + row.evaluation_seconds),
    }


def _ranked(entries: Sequence[dict[str, Any]], higher_is_better: bool) -> list[dict[str, Any]]:
    """The entries with ranks, best first and ties by name; failed ones last, without a rank."""
    direction = -1 if higher_is_better else 1
    done = [entry for entry in entries if entry["mean"] is not None]
    failed = [entry for entry in entries if entry["mean"] is None]
    done.sort(key=lambda entry: (direction * entry["mean"], entry["candidate"]))
    # Equal means share the better rank: no winner comes from the alphabet.
    means = [entry["mean"] for entry in done]
    return [
        *({"rank": means.index(entry["mean"]) + 1, **entry} for entry in done),
        *({"rank": None, **entry} for entry in sorted(failed, key=lambda e: str(e["candidate"]))),
    ]
