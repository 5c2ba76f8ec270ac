"""TensorBoard: event files in RUN/tensorboard/TRIAL, read by `tensorboard --logdir RUN`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracle.trackers.client import Config, Experiment

# How long a written value may stay in memory, so that a page shows the run live.
_FLUSH_SECONDS = 10


class TensorBoard:
    """Writes through torch's SummaryWriter, which needs the `tensorboard` package."""

    def __init__(self, experiment: Experiment) -> None:
        self._folder = experiment.folder / "tensorboard"

    @staticmethod
    def problem() -> str | None:
        return None

    def start(self, name: str, config: Config) -> _TensorBoardRun:
        folder = self._folder / name
        # Left by an earlier attempt at the same trial: its steps would mix with the new ones.
        if folder.exists():
            shutil.rmtree(folder)
        return _TensorBoardRun(folder, config)


class _TensorBoardRun:
    def __init__(self, folder: Path, config: Config) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), flush_secs=_FLUSH_SECONDS)
        self._config = config
        self._last_step = 0
        lines = [f"    {key}: {value}" for key, value in config.items()]
        # Indented by four spaces, so Markdown shows it unchanged.
        self._writer.add_text("config", "\n".join(lines))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._last_step = step

    def finish(
        self, scores: Mapping[str, float], texts: Mapping[str, str], *, failed: bool
    ) -> None:
        for name, value in scores.items():
            self._writer.add_scalar(name, value, self._last_step)
        for name, text in texts.items():
            self._writer.add_text(name, text)
        if scores:
            self._add_hyperparameters(scores)
        self._writer.close()

    def _add_hyperparameters(self, scores: Mapping[str, float]) -> None:
        """Fill the page that compares runs by their settings. `add_hparams` would create another
        run for it, with its own folder."""
        from torch.utils.tensorboard.summary import hparams

        summaries = hparams(  # type: ignore[no-untyped-call]
            dict(self._config), dict.fromkeys(scores, 0.0)
        )
        for summary in summaries:
            self._writer.file_writer.add_summary(summary)
