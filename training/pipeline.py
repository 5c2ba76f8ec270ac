"""The pipeline: dataset_paths as the candidates of one experiment, its record as one JSON file.

OUT/summary.json        what the functions return, written at every change
OUT/summary_run/        the run folder: loracle report, decide, export and resume take it
OUT/training.log · evaluation.log · pipeline.log
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loracle.data.holdout import rule_in_words
from loracle.data_check.usable import UsablePart, usable_part
from loracle.errors import PlanError, reworded
from loracle.experiment import run as experiment
from loracle.experiment.trial import Place
from loracle.files import json_object_at, write_json
from loracle.forecast.batch import batch_size_taken
from loracle.migration.dataset_paths import DatasetPaths, datasets_of, entry_of
from loracle.migration.transformers_settings import generation_arguments, training_arguments
from loracle.model.lora_files import peft_settings, read_lora_plan
from loracle.plan import Plan, load_unmeasured_plan
from loracle.report.run_record import RunRecord, TrialRecord, read_run
from loracle.run_folder.log_files import LogFiles, Telling
from loracle.run_folder.reporter import View
from training.summary import (
    evaluation_figures,
    head_of,
    lift_figures,
    per_cent,
    ranking_of,
    training_figures,
)
from training.words import in_our_words

RESULTS_VERSION = 2
_HELD_OUT_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_TELLING = ("run_started", "trial_finished", "trial_failed", "trial_skipped")
"""Events at which the JSON file says something new."""


@dataclass(frozen=True)
class Given:
    """The arguments of both functions, as they were given."""

    dataset_paths: Sequence[Any] | str | Path
    model_path: Any
    lora_config_dir: str | Path
    config_name: str
    result_output_path: str | Path
    training_args: Mapping[str, Any] | None
    evaluation_batch_size: int | None
    evaluation_generation_kwargs: Mapping[str, Any] | None
    log_dir: str | Path | None
    quantization: str | None
    device_map: Any

    @property
    def output_path(self) -> Path:
        return Path(self.result_output_path)

    @reworded(in_our_words)
    def run(self, view: View) -> dict[str, Any]:
        """Run the experiment, or resume it; the JSON file tells how it stands at any time."""
        if not isinstance(self.result_output_path, str | Path):
            raise PlanError(
                f"result_output_path: found {self.result_output_path!r}; expected a path"
            )
        path = self.output_path
        if path.is_dir():
            raise PlanError(f"result_output_path: {path} is a folder; name a file in it")
        try:
            return _pipeline_of(self).run(view)
        except Exception as error:
            # No file of an earlier run may stand as completed after a start that failed.
            if path.is_file():
                before, reason = json_object_at(path), in_our_words(str(error))
                marks = {"status": "failed", "reason": reason, "was": before.get("status")}
                write_json(path, {**before, **marks})
            raise


@dataclass(frozen=True)
class _Pipeline:
    """The checked arguments. asked: the plan of all datasets; usable: the part that can be run."""

    given: Given
    datasets: list[DatasetPaths]
    asked: Plan
    usable: UsablePart
    notes: list[str]
    steps_between_lines: int

    @property
    def root(self) -> Path:
        path = self.given.output_path
        return path.with_name(f"{path.stem}_run")

    def run(self, view: View) -> dict[str, Any]:
        folder = Path(self.given.log_dir or self.given.output_path.parent)
        telling = Telling(view, _TELLING, self._write)
        logged = LogFiles(telling, folder, self.steps_between_lines)
        for note in self.notes:
            logged.show("warning", {"message": note}, f"warning: {note}")
        if self.usable.plan is None:
            return self._write("failed")
        try:
            experiment.run(self.usable.plan, self.root, logged)
        except KeyboardInterrupt:
            self._write("interrupted")
            raise
        return self._write(None)

    def _write(self, status: str | None = "running") -> dict[str, Any]:
        """Write the file from the run's record. status: None takes how it ended."""
        results = self._results(status)
        write_json(self.given.output_path, results)
        return results

    def _results(self, status: str | None) -> dict[str, Any]:
        record = read_run(self.root, unfinished=True) if self.usable.plan else None
        plan, found = self.asked, record.results if record is not None and status is None else None
        entries = [self._entry(i, dataset, record) for i, dataset in enumerate(self.datasets, 1)]
        entries = [entry for entry in entries if entry["status"] != "waiting"]
        num_completed = sum(entry["status"] == "completed" for entry in entries)
        ended = "completed" if num_completed else "failed"
        if 0 < num_completed < len(self.datasets):
            ended = "completed_with_failures"
        best = found["decisions"][0] if found is not None else None
        return {
            "version": RESULTS_VERSION,
            "status": status or ended,
            "run_folder": str(self.root),
            "model_path": str(self.given.model_path),
            "lora_config": {"name": self.given.config_name, **peft_settings(plan.lora)},
            "training": {"seed": plan.seeds[0], **plan.training.model_dump()},
            "generation": plan.generation.model_dump(),
            "datasets": entries,
            "summary": {
                "num_datasets": len(self.datasets),
                "num_completed": num_completed,
                "num_failed": len(entries) - num_completed,
                "ranking": ranking_of(entries),
                "best_dataset": best and best["winner"],
                "reason": best["sentence"]["en"] if best else "nothing is decided yet",
                "seconds": record.seconds if record else 0,
            },
            "decision": best,
        }

    def _entry(self, index: int, dataset: DatasetPaths, record: RunRecord | None) -> dict[str, Any]:
        """How one dataset stands: waiting, failed with its reason, or completed."""
        trials = {trial.candidate: trial for trial in record.trials} if record else {}
        trial, reason = trials.get(dataset.name), self.usable.failures.get(dataset.name)
        rest: dict[str, Any] = {}
        if record is not None and trial is not None and trial.is_done:
            rest = self._figures(dataset, trial, record)
        elif reason := reason or (trial.folder.failure() if trial else None):
            rest = {"reason": in_our_words(reason)}
        status = "failed" if reason else "completed" if rest else "waiting"
        place = Place(dataset.name, index, len(self.datasets))
        return {**head_of(place, status, train_path=dataset.train_path), **rest}

    def _figures(
        self, dataset: DatasetPaths, trial: TrialRecord, record: RunRecord
    ) -> dict[str, Any]:
        assert trial.training is not None, "a trial has a seed"
        base, results = record.trials[0].summary, record.results or {}
        asked = dataset.evaluation_name or next(iter(trial.summary.evaluations))
        scores = evaluation_figures(trial.summary, asked, results.get("estimates", []))
        held = (record.check or {}).get("holdout")
        source = {"source": "file", "path": str(dataset.evaluation_path or "of other datasets")}
        if held is not None:
            source = {"source": "held_out", "path": str(dataset.train_path)}
            source |= {"share": held["share"], "seed": held["seed"], "rule": rule_in_words(held)}
        return {
            "evaluation": {
                "name": asked,
                "num_examples": scores["num_examples"],
                "batch_size": batch_size_taken(self.asked.generation.batch_size, self.root),
                **source,
            },
            "base": per_cent(base.evaluations[asked].means),
            "scores": scores,
            "lift": lift_figures(trial.summary, base, asked, results.get("comparisons", [])),
            "training": training_figures(
                trial.training, trial.steps, self.asked.training.batch_size
            ),
            "adapter_path": str(trial.folder.adapter),
            "predictions_path": str(trial.folder.predictions(asked)),
            "scores_path": str(trial.folder.scores(asked)),
        }


def _pipeline_of(given: Given) -> _Pipeline:
    """Check the arguments and read the files; one that cannot be read fails alone."""
    arguments = training_arguments(given.training_args)
    if arguments.output_dir is not None:
        raise PlanError(
            "training_args.output_dir: a pipeline keeps its run beside result_output_path; "
            "leave it out"
        )
    generation = generation_arguments(
        given.evaluation_generation_kwargs, given.evaluation_batch_size, "evaluation_batch_size"
    )
    datasets = datasets_of(given.dataset_paths)
    asked = {one.evaluation_name: one.evaluation_path for one in datasets if one.evaluation_path}
    plan = load_unmeasured_plan(
        candidates=[entry_of(one.name, one.train_path, one.split) for one in datasets],
        evaluations=[entry_of(name or "", path) for name, path in asked.items()],
        settings={
            "model": _model_section(given, arguments.dtype),
            "lora": read_lora_plan(given.lora_config_dir, given.config_name),
            "generation": generation.plan,
            **arguments.sections(),
        },
    )
    evaluations = {one.name: one.evaluation_name for one in datasets}
    usable = usable_part(plan, evaluations, _HELD_OUT_SHARES)
    return _Pipeline(given, datasets, plan, usable, generation.notes, arguments.logging_steps)


def _model_section(given: Given, dtype: str | None) -> dict[str, Any]:
    if not isinstance(given.model_path, str | Path):
        raise PlanError(
            f"model_path: found {type(given.model_path).__name__}; expected a folder, a hub's id "
            "or embedded. For a model in memory, call train_model_on_dataset_with_progress"
        )
    asked = {"quantization": given.quantization, "device_map": given.device_map, "dtype": dtype}
    asked = {key: value for key, value in asked.items() if value is not None}
    return {"name": str(given.model_path), **asked}
