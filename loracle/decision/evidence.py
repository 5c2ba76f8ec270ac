"""The scores of a run, question by question, read from its folder: no model is needed.

    RUN/plan.json                       which candidates, seeds, evaluation sets and rule
    RUN/**/scores/EVAL.jsonl            {"id": "q1", "f1": 0.5, ...}
    RUN/base/predictions/EVAL.jsonl     {"id": "q1", "cluster": "passage:0", ...}
    RUN/**/trial.json                   how many answers were cut, what training took
    RUN/**/steps.jsonl                  {"step": 1, "loss": 2.1, ...}
    RUN/check.json                      leakage and lost rows, if the run made a data check

Only finished trials count, and every file is checked against the hash in its trial's DONE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from loracle.errors import RunFolderError
from loracle.files import read_json, read_json_lines
from loracle.plan import BASE_NAME
from loracle.run_folder.folder import RunFolder, TrialFolder
from loracle.statistics import plain_mean

HARDLY_FALLEN = 0.8
"""A short training that leaves more of its first loss than this has hardly moved the adapter."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SetEvidence:
    """One evaluation set with Q questions.

    scores: by row (base and finished candidates, in the plan's order), by metric, (S, Q).
    """

    name: str
    ids: Sequence[str]
    clusters: Sequence[str]
    metrics: tuple[str, ...]
    scores: Mapping[str, Mapping[str, FloatArray]]

    def only(self, places: Sequence[int]) -> SetEvidence:
        """The questions at these places."""
        return replace(
            self,
            ids=[self.ids[place] for place in places],
            clusters=[self.clusters[place] for place in places],
            scores={
                row: {metric: values[:, places] for metric, values in by_metric.items()}
                for row, by_metric in self.scores.items()
            },
        )


class Endings(NamedTuple):
    """How the answers of one row to one evaluation set ended, over its seeds."""

    num_answers: int
    num_cut: int

    @property
    def share_cut(self) -> float:
        return self.num_cut / self.num_answers if self.num_answers else 0.0


class LostRows(NamedTuple):
    """Rows of a candidate's files that could not be trained on."""

    num_read: int
    num_lost: int


class Learning(NamedTuple):
    """How the loss of one trial fell. The losses are means over a quarter of its steps."""

    num_steps: int
    first_loss: float
    last_loss: float

    @property
    def has_fallen(self) -> bool:
        """Whether a noticeable part of the loss is gone."""
        return self.last_loss <= HARDLY_FALLEN * self.first_loss


@dataclass(frozen=True)
class Evidence:
    """All that the decision of a run rests on."""

    plan: Mapping[str, Any]
    """The frozen plan."""
    candidates: tuple[str, ...]
    """With at least one finished trial, in the plan's order."""
    unfinished: tuple[str, ...]
    """Candidates without one."""
    costs: Mapping[str, float]
    """Training tokens computed by each candidate, mean over its finished seeds."""
    sets: tuple[SetEvidence, ...]
    endings: Mapping[str, Mapping[str, Endings]] = field(default_factory=dict)
    """By row, by evaluation set."""
    leaked: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    """By candidate, by evaluation set: the questions it shares text with."""
    lost: Mapping[str, LostRows] = field(default_factory=dict)
    """By candidate."""
    learning: Mapping[str, tuple[Learning, ...]] = field(default_factory=dict)
    """By candidate, one for each finished seed."""

    def without_leaked(self) -> Evidence:
        """The same without questions that share text with any candidate, and without sets that
        have no questions left."""
        kept = []
        for one in self.sets:
            leaked = {q for by_set in self.leaked.values() for q in by_set.get(one.name, ())}
            places = [i for i, question in enumerate(one.ids) if question not in leaked]
            if places:
                kept.append(one.only(places))
        return replace(self, sets=tuple(kept))


def read_evidence(root: Path | str) -> Evidence:
    """Read the scores of a run folder.

    Raises RunFolderError if it is no run folder, the base has not been evaluated, files have
    changed since they were written, or they come from a version without clusters.
    """
    folder = RunFolder(root)
    plan = folder.frozen_plan()
    if not folder.base.done.exists():
        raise RunFolderError(
            f"{folder.base.root} is not finished: without the base's scores nothing can be "
            f"compared; run `loracle resume {folder.root}` to finish the run"
        )
    trials = {BASE_NAME: [folder.base]}
    names = [str(candidate["name"]) for candidate in plan["candidates"]]
    for name in names:
        places = [folder.trial(name, seed) for seed in plan["seeds"]]
        trials[name] = [place for place in places if place.done.exists()]
    finished = {name: places for name, places in trials.items() if places}
    evaluations = [str(evaluation["name"]) for evaluation in plan["evaluation"]]
    check = _read_check(folder)
    return Evidence(
        plan=plan,
        candidates=tuple(name for name in names if name in finished),
        unfinished=tuple(name for name in names if name not in finished),
        costs={
            name: plain_mean(_tokens_computed(place) for place in places)
            for name, places in finished.items()
            if name != BASE_NAME
        },
        sets=tuple(_read_set(evaluation, finished) for evaluation in plan["evaluation"]),
        endings={name: _endings(places, evaluations) for name, places in finished.items()},
        leaked=_leaked(check),
        lost=_lost(check),
        learning={name: _learning(places) for name, places in finished.items()},
    )


def _endings(places: Sequence[TrialFolder], evaluations: Sequence[str]) -> dict[str, Endings]:
    summaries = [place.summary() for place in places]
    counts = {
        name: [s.evaluations[name].finish_reasons for s in summaries if name in s.evaluations]
        for name in evaluations
    }
    return {
        name: Endings(
            sum(sum(one.values()) for one in found), sum(one.get("length", 0) for one in found)
        )
        for name, found in counts.items()
    }


def _read_check(folder: RunFolder) -> Mapping[str, Any]:
    path = folder.check
    nothing: dict[str, Any] = {"datasets": [], "leakage": []}
    return dict(read_json(path)) if path.is_file() else nothing


def _leaked(check: Mapping[str, Any]) -> dict[str, dict[str, frozenset[str]]]:
    leaked: dict[str, dict[str, frozenset[str]]] = {}
    for found in check["leakage"]:
        if found["leaked_ids"]:
            by_set = leaked.setdefault(found["candidate"], {})
            by_set[found["evaluation"]] = frozenset(found["leaked_ids"])
    return leaked


def _lost(check: Mapping[str, Any]) -> dict[str, LostRows]:
    return {
        dataset["name"]: LostRows(
            dataset["accounting"]["num_read"],
            sum(dataset["accounting"]["dropped_by_reason"].values()),
        )
        for dataset in check["datasets"]
        if dataset["kind"] == "candidate" and dataset["accounting"] is not None
    }


def _learning(places: Sequence[TrialFolder]) -> tuple[Learning, ...]:
    found = []
    for place in places:
        if not place.steps.is_file():  # the base is not trained
            continue
        place.require_unchanged([place.steps])
        losses = [float(step["loss"]) for step in read_json_lines(place.steps).rows]
        if losses:
            num = max(1, len(losses) // 4)
            found.append(Learning(len(losses), plain_mean(losses[:num]), plain_mean(losses[-num:])))
    return tuple(found)


def _tokens_computed(trial: TrialFolder) -> int:
    trained = trial.summary().training
    return 0 if trained is None else trained.num_tokens_computed


def _read_set(
    evaluation: Mapping[str, Any], trials: Mapping[str, Sequence[TrialFolder]]
) -> SetEvidence:
    name, metrics = evaluation["name"], tuple(evaluation["metrics"])
    (base,) = trials[BASE_NAME]
    ids, clusters = _read_clusters(base, name)
    return SetEvidence(
        name,
        ids,
        clusters,
        metrics,
        {row: _read_scores(places, name, metrics, ids) for row, places in trials.items()},
    )


def _read_clusters(base: TrialFolder, evaluation: str) -> tuple[list[str], list[str]]:
    path = base.predictions(evaluation)
    base.require_unchanged([path])
    rows = read_json_lines(path).rows
    for line, row in enumerate(rows, start=1):
        if "cluster" not in row:
            raise RunFolderError(
                f"{path}:{line}: has no `cluster` (which questions belong together): the run was "
                "made by an earlier version of Loracle; run it again to get a decision"
            )
    return [row["id"] for row in rows], [row["cluster"] for row in rows]


def _read_scores(
    places: Sequence[TrialFolder], evaluation: str, metrics: Sequence[str], ids: Sequence[str]
) -> dict[str, FloatArray]:
    by_metric: dict[str, list[list[float]]] = {metric: [] for metric in metrics}
    for place in places:
        path = place.scores(evaluation)
        place.require_unchanged([path])
        rows = read_json_lines(path).rows
        found = [row["id"] for row in rows]
        if found != list(ids):
            raise RunFolderError(
                f"{path}: its {len(found)} questions are not those of the base's "
                f"({len(ids)}, in another order, or different ones); run the trial again"
            )
        for metric, values in by_metric.items():
            values.append([float(row[metric]) for row in rows])
    return {metric: np.array(values) for metric, values in by_metric.items()}
