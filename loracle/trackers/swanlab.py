"""SwanLab: a run for each trial in the project $SWANLAB_PROJECT, else `loracle`, in a group.

Other settings are SwanLab's own: SWANLAB_MODE=offline or local keeps everything in RUN/swanlog,
SWANLAB_WORKSPACE, SWANLAB_API_HOST.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from loracle.trackers.client import Config, Experiment, SteppedRun


class SwanLab:
    """Uses SwanLab, or writes files that `swanlab sync` sends later. One run at a time."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    @staticmethod
    def problem() -> str | None:
        import swanlab

        settings = swanlab.Settings()
        # Without it, the first run would prompt for a key on the terminal, in the middle of the
        # work.
        if settings.mode == "online" and settings.api_key is None:
            return "there is no API key; run `swanlab login`, or set SWANLAB_MODE=offline"
        return None

    def start(self, name: str, config: Config) -> _SwanLabRun:
        import swanlab

        run = swanlab.init(
            project=os.environ.get("SWANLAB_PROJECT", "loracle"),
            group=self._experiment.name,
            name=name,
            log_dir=str(self._experiment.folder / "swanlog"),
            config={**config, "plan_fingerprint": self._experiment.fingerprint},
            # It must not record the terminal, nor prompt on it.
            settings=swanlab.Settings(interactive=False, terminal={"proxy_type": "none"}),
        )
        return _SwanLabRun(run)


class _SwanLabRun(SteppedRun):
    def finish(
        self, scores: Mapping[str, float], texts: Mapping[str, str], *, failed: bool
    ) -> None:
        import swanlab

        found = {**scores, **{name: swanlab.Text(text) for name, text in texts.items()}}
        if found:
            self._run.log(found, step=self._last_step)
        if failed:
            self._run.finish(state="crashed", error=texts.get("reason", "stopped"))
        else:
            self._run.finish()
