"""The scores of a run, question by question, read from its folder: no model is needed.

    RUN/plan.json                       which candidates, seeds, evaluation sets and rule
    RUN/**/scores/EVAL.jsonl            {"id": "q1", "f1": 0.5, ...}
    RUN/base/predictions/EVAL.jsonl     {"id": "q1", "cluster": "passage:0", ...}

Only finished trials count, and every file is held against the hash in its trial's DONE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loracle.errors import RunFolderError
from loracle.files import read_json_lines
from loracle.plan import BASE_NAME
from loracle.run_folder.folder import RunFolder, TrialFolder
from loracle.statistics import plain_mean

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


def read_evidence(root: Path | str) -> Evidence:
    """Read the scores of a run folder.

    Raises RunFolderError where it is no run folder, the base has not been evaluated, files have
    changed since they were written, or they are of a version without clusters.
    """
    folder = RunFolder(root)
    plan = folder.frozen_plan()
    if not folder.base.done.exists():
        raise RunFolderError(
            f"{folder.base.root} is not finished: without the base's scores nothing can be "
            f"compared; `loracle resume {folder.root}` finishes the run"
        )
    trials = {BASE_NAME: [folder.base]}
    names = [str(candidate["name"]) for candidate in plan["candidates"]]
    for name in names:
        places = [folder.trial(name, seed) for seed in plan["seeds"]]
        trials[name] = [place for place in places if place.done.exists()]
    finished = {name: places for name, places in trials.items() if places}
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
    )


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
                "made by an earlier Loracle; make it again to get a decision"
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
                f"({len(ids)}, in another order or others); the trial has to be run again"
            )
        for metric, values in by_metric.items():
            values.append([float(row[metric]) for row in rows])
    return {metric: np.array(values) for metric, values in by_metric.items()}
