"""How much work every trial is, and how much of it is left, by the files of its attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from loracle.experiment.planned import Planned
from loracle.experiment.setup import Place, Rendered, training_settings
from loracle.forecast.record import Forecast, read_forecast
from loracle.plan import BASE_NAME
from loracle.run_folder.folder import RunFolder, TrialFolder
from loracle.training.loop import num_steps_planned

# Of a trial whose training is done; its answers take this share of it, about.
_ANSWERING_SHARE = 0.1


class Workload:
    """The work of the trials of a run. Places and steps have the name of their trial as key."""

    def __init__(self, planned: Planned, folder: RunFolder, rendered: Rendered) -> None:
        plan = planned.data.plan
        self._folder = folder
        self.places: Mapping[str, Place] = {p.trial: p for _, _, p in planned.trials}
        self._names = {
            place.trial: (plan.candidates[index].name, seed)
            for index, seed, place in planned.trials
        }
        settings = training_settings(plan.training, "cpu", forest=True)
        sets = rendered.training_sets
        self.num_steps: Mapping[str, int] = {
            trial: num_steps_planned(
                sets[name].sequences, sets[name].groups, replace(settings, seed=seed)
            )
            for trial, (name, seed) in self._names.items()
            if name in sets
        }
        self.num_questions = sum(len(asked.examples) for asked in rendered.evaluations)
        self._mean_tokens = {name: float(s.sequences.lengths.mean()) for name, s in sets.items()}

    def trial_folder(self, trial: str) -> TrialFolder:
        """Where a trial is, or the base's evaluation."""
        return self._folder.base if trial == BASE_NAME else self._folder.trial(*self._names[trial])

    def predicted(self, trials: Sequence[str]) -> dict[str, float]:
        """What is left to do, by trial: in seconds if the run has a forecast, else in tokens."""
        recorded = read_forecast(self._folder.root)
        forecast = recorded.forecast if recorded else None
        whole = {trial: self._whole(trial, forecast) for trial in trials}
        return {trial: work * self.share_left(trial) for trial, work in whole.items()}

    def _whole(self, trial: str, forecast: Forecast | None) -> float:
        # One that may not be trained on is refused at once.
        if trial != BASE_NAME and trial not in self.num_steps:
            return 0.0
        name = trial if trial == BASE_NAME else self._names[trial][0]
        if forecast is None:
            return self.num_steps.get(trial, 0) * self._mean_tokens.get(name, 0.0)
        if trial == BASE_NAME:
            return forecast.base_answering_seconds
        seconds = {c.name: c.training_seconds + c.answering_seconds for c in forecast.candidates}
        return seconds[name]

    def share_left(self, trial: str) -> float:
        """What a new attempt has to do of a trial, about: from its last checkpoint on."""
        folder = self.trial_folder(trial)
        if folder.done.exists():
            return 0.0
        if (folder.root / "training.json").exists():
            return _ANSWERING_SHARE
        steps = [int(path.name.removeprefix("step-")) for path in folder.checkpoint.glob("step-*")]
        num_steps = self.num_steps.get(trial, 0)
        return 1.0 - min(1.0, max(steps, default=0) / num_steps) if num_steps else 1.0
