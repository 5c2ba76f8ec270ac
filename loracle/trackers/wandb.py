"""Weights & Biases: a run for each trial in the project $WANDB_PROJECT, else `loracle`, in a group.

Other settings are W&B's own: WANDB_MODE=offline keeps everything in RUN/wandb, WANDB_ENTITY,
WANDB_BASE_URL.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from loracle.trackers.client import Config, Experiment, SteppedRun, speaking_to_stderr


class WeightsAndBiases:
    """Uses a W&B server, or writes files that `wandb sync` sends later."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    @staticmethod
    def problem() -> str | None:
        import wandb

        if os.environ.get("WANDB_MODE", "online") not in ("online", "shared", "run"):
            return None
        # Without it, the first run would prompt for a key on the terminal, in the middle of the
        # work.
        with speaking_to_stderr():
            logged_in = wandb.login(prompt=False, verify=False)
        if logged_in:
            return None
        return "there is no API key; run `wandb login`, or set WANDB_MODE=offline"

    def start(self, name: str, config: Config) -> _WandbRun:
        import wandb

        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "loracle"),
            group=self._experiment.name,
            name=name,
            dir=str(self._experiment.folder),
            config={**config, "plan_fingerprint": self._experiment.fingerprint},
            # Its own run object, whatever else in this process uses wandb.
            reinit="create_new",
            # It must not record the terminal, nor write advice on it.
            settings=wandb.Settings(console="off", quiet=True),
        )
        return _WandbRun(run)


class _WandbRun(SteppedRun):
    def finish(
        self, scores: Mapping[str, float], texts: Mapping[str, str], *, failed: bool
    ) -> None:
        self._run.summary.update({**scores, **texts})
        self._run.finish(exit_code=int(failed))
