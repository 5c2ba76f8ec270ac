"""Experiment trackers: TensorBoard, Weights & Biases, MLflow, SwanLab, Trackio. Off by default.

    plan: trackers: [tensorboard, mlflow]

A tracker follows the events of the run (run_folder/events.py) through its own client, so a run
without one imports no client and opens no connection. It gets one run for the base and for each
trial, all under the experiment's name, and a final run, `decision`, with the decision in words:

    config     the plan, one flat name for each value; the trial's own candidate as `candidate.*`
    by step    train/loss, train/gradient_norm, train/learning_rate, train/tokens_per_second, ...
    at the end eval/EVALUATION/METRIC, the means over the questions

Unusable trackers are reported before any training. A tracker that fails later is dropped with a
warning: the run folder contains everything it would have received.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from loracle.errors import MissingExtraError, PlanError
from loracle.trackers import mlflow, swanlab, tensorboard, trackio, wandb
from loracle.trackers.client import Experiment, Tracker
from loracle.trackers.listening import TrackerListener

# By name: the client's module, and the class that speaks to it.
_CLIENTS: dict[str, tuple[str, type[Tracker]]] = {
    "tensorboard": ("tensorboard", tensorboard.TensorBoard),
    "wandb": ("wandb", wandb.WeightsAndBiases),
    "mlflow": ("mlflow", mlflow.MLflow),
    "swanlab": ("swanlab", swanlab.SwanLab),
    "trackio": ("trackio", trackio.Trackio),
}


def check_trackers(names: Sequence[str]) -> None:
    """Raise unless every tracker is installed and can be used without prompting on the terminal.

    Raises:
        MissingExtraError: one is not installed; the message has the command that installs all
        missing ones.
        PlanError: one is installed but lacks a login or an address.
    """
    missing = [name for name in names if find_spec(_CLIENTS[name][0]) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"trackers: {', '.join(missing)} {verb} not installed; "
            f"run: pip install 'loracle[{','.join(missing)}]'"
        )
    problems = [
        f"trackers: {name}: {problem}"
        for name in names
        if (problem := _CLIENTS[name][1].problem()) is not None
    ]
    if problems:
        raise PlanError(problems)


def listen(
    names: Sequence[str], experiment: Experiment, frozen_plan: Mapping[str, Any]
) -> list[TrackerListener]:
    """A listener for each tracker. Nothing is imported or opened before the first event."""
    return [TrackerListener(name, _CLIENTS[name][1](experiment), frozen_plan) for name in names]
