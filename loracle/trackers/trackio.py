"""Trackio: a run for each trial in the project $TRACKIO_PROJECT, else `loracle`, in a group.

Local by default (`trackio show`); TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL are
Trackio's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from loracle.trackers.client import Config, Experiment, SteppedRun


class Trackio:
    """Writes to Trackio's local store, or to the Space or server in its settings."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    @staticmethod
    def problem() -> str | None:
        return None

    def start(self, name: str, config: Config) -> _TrackioRun:
        import trackio

        run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "loracle"),
            group=self._experiment.name,
            # Runs in one project need unique names; the group is not part of them.
            name=f"{self._experiment.name}/{name}",
            config={**config, "plan_fingerprint": self._experiment.fingerprint},
            embed=False,
        )
        return _TrackioRun(run)


class _TrackioRun(SteppedRun):
    def finish(
        self, scores: Mapping[str, float], texts: Mapping[str, str], *, failed: bool
    ) -> None:
        found = {**scores, **texts, **({"failed": 1} if failed else {})}
        if found:
            self._run.log(found, step=self._last_step)
        self._run.finish()
