"""MLflow: an experiment with the run folder's name, with a run for each trial.

The server is MLflow's own setting, MLFLOW_TRACKING_URI. The experiment's description contains the
decision.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from loracle.trackers.client import Config, Experiment

# MLflow's own limit for one request.
_MAX_PARAMS = 100
_DESCRIPTION_TAG = "mlflow.note.content"
# What it does not accept in a name. Letters of any script are allowed.
_FOREIGN = re.compile(r"[^\w/.\- ]")
# Its default settings wait for minutes when the server is gone, and training would wait too.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MLflow:
    """Uses a tracking server, or a file store if the full `mlflow` is installed."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._experiment_id: str | None = None
        self._client: Any = None

    @staticmethod
    def problem() -> str | None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            MlflowClient()
        # ImportError: the store's own packages, which mlflow-skinny lacks.
        except (MlflowException, ImportError) as error:
            reason = str(error).strip().split("\n")[0]
            return (
                f"{reason.rstrip('.')}; set MLFLOW_TRACKING_URI to a server (http://...), or "
                "install the full `mlflow` to keep runs in a local file"
            )
        return None

    def start(self, name: str, config: Config) -> _MlflowRun:
        from mlflow.entities import Param

        client, experiment_id = self._opened()
        run = client.create_run(
            experiment_id,
            run_name=name,
            tags={"loracle.plan_fingerprint": self._experiment.fingerprint},
        )
        params = [Param(_named(key), str(value)) for key, value in config.items()]
        for first in range(0, len(params), _MAX_PARAMS):
            client.log_batch(run.info.run_id, params=params[first : first + _MAX_PARAMS])
        return _MlflowRun(client, experiment_id, run.info.run_id)

    def _opened(self) -> tuple[Any, str]:
        if self._experiment_id is None:
            from mlflow import MlflowClient

            for setting, value in _PATIENCE.items():
                os.environ.setdefault(setting, value)
            self._client = MlflowClient()
            known = self._client.get_experiment_by_name(self._experiment.name)
            self._experiment_id = (
                known.experiment_id
                if known is not None
                else self._client.create_experiment(self._experiment.name)
            )
        return self._client, self._experiment_id


class _MlflowRun:
    def __init__(self, client: Any, experiment_id: str, run_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._run_id = run_id
        self._last_step = 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(_named(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)
        self._last_step = step

    def finish(
        self, scores: Mapping[str, float], texts: Mapping[str, str], *, failed: bool
    ) -> None:
        if scores:
            self.log(scores, self._last_step)
        for name, text in texts.items():
            self._client.set_tag(self._run_id, _named(name), text)
        if decision := texts.get("decision"):
            self._client.set_experiment_tag(self._experiment_id, _DESCRIPTION_TAG, decision)
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")


def _named(name: str) -> str:
    return _FOREIGN.sub("_", name)
