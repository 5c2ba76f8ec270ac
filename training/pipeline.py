"""The pipeline: dataset_paths as the candidates of one experiment, its record as one JSON file.

OUT/summary.json        what the functions return, written at every change
OUT/summary_run/        the run folder: loracle report, decide, export and resume take it
OUT/training.log · evaluation.log · pipeline.log
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loracle.data_check.datasets import read_datasets
from loracle.errors import PlanError
from loracle.experiment import run as experiment
from loracle.files import read_json, write_json
from loracle.plan import HOLDOUT, Plan
from loracle.plan.sections import ModelPlan
from loracle.report.run_record import RunRecord, TrialRecord, read_run
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.log_files import LogFiles
from loracle.run_folder.reporter import View
from training.arguments import (
    generation_arguments,
    read_lora_plan,
    read_lora_settings,
    training_arguments,
)
from training.inputs import Dataset, datasets_of
from training.plans import entry_of, in_our_words, named_as_here, plan_of
from training.summary import (
    evaluation_figures,
    lift_figures,
    per_cent,
    ranking_of,
    training_figures,
)

RESULTS_VERSION = 2
HELD_OUT_SHARE = 0.1
_ENDS = ("trial_finished", "trial_failed", "trial_skipped", "base_finished")


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
        path = Path(self.result_output_path)
        if path.is_dir():
            raise PlanError(f"result_output_path: {path} is a folder; name a file in it")
        return path

    def run(self, view: View) -> dict[str, Any]:
        """Run the experiment, or resume it; the JSON file tells how it stands at any time."""
        with _failed_start_is_marked(self.output_path), named_as_here():
            pipeline = _Pipeline.of(self)
        return pipeline.run(view)


@dataclass
class _Pipeline:
    """The checked arguments. failures: by dataset, why it is not in the plan."""

    given: Given
    datasets: list[Dataset]
    plan: Plan | None
    failures: dict[str, str]
    steps_between_lines: int

    @classmethod
    def of(cls, given: Given) -> _Pipeline:
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
        for note in generation.notes:
            warnings.warn(note, stacklevel=4)
        datasets = datasets_of(given.dataset_paths)
        sections = {
            "lora": read_lora_plan(given.lora_config_dir, given.config_name),
            "training": arguments.plan(),
            "generation": generation.plan,
            "seeds": [arguments.seed],
            "trackers": arguments.trackers,
        }
        model = _model_section(given, arguments.dtype)
        failures = _unreadable(datasets, _plan(model, datasets, sections))
        left = [dataset for dataset in datasets if dataset.name not in failures]
        plan = _plan(model, left, sections) if left else None
        return cls(given, datasets, plan, failures, arguments.logging_steps)

    @property
    def root(self) -> Path:
        path = self.given.output_path
        return path.with_name(f"{path.stem}_run")

    def run(self, view: View) -> dict[str, Any]:
        folder = Path(self.given.log_dir or self.given.output_path.parent)
        logged = LogFiles(_Telling(view, self._write), folder, self.steps_between_lines)
        if self.plan is None:
            return self._write("failed")
        with _failed_start_is_marked(self.given.output_path), named_as_here():
            self._write("running")
            try:
                experiment.run(self.plan, self.root, logged)
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
        plan = self.plan
        record = read_run(self.root, unfinished=True) if _is_begun(self.root) else None
        found = record.results if record is not None and status is None else None
        entries = [self._entry(i, dataset, record) for i, dataset in enumerate(self.datasets, 1)]
        entries = [entry for entry in entries if entry["status"] != "waiting"]
        num_completed = sum(entry["status"] == "completed" for entry in entries)
        ended = "completed" if num_completed else "failed"
        if 0 < num_completed < len(self.datasets):
            ended = "completed_with_failures"
        best = found["decisions"][0] if found is not None else None
        settings = read_lora_settings(self.given.lora_config_dir, self.given.config_name)
        return {
            "version": RESULTS_VERSION,
            "status": status or ended,
            "run_folder": str(self.root),
            "model_path": str(self.given.model_path),
            "lora_config": {"name": self.given.config_name, **settings},
            "training": {"seed": plan.seeds[0], **plan.training.model_dump()} if plan else None,
            "generation": plan.generation.model_dump() if plan else None,
            "datasets": entries,
            "summary": {
                "num_datasets": len(self.datasets),
                "num_completed": num_completed,
                "num_failed": sum(entry["status"] == "failed" for entry in entries),
                "ranking": ranking_of(entries),
                "best_dataset": best and best["winner"],
                "reason": best["sentence"]["en"] if best else "nothing is decided yet",
                "seconds": _seconds(record),
            },
            "decision": best,
        }

    def _entry(self, index: int, dataset: Dataset, record: RunRecord | None) -> dict[str, Any]:
        """How one dataset stands: waiting, failed with its reason, or completed."""
        head = {
            "dataset": dataset.name,
            "dataset_index": index,
            "total_datasets": len(self.datasets),
            "status": "failed",
            "train_path": str(dataset.train_path),
        }
        if dataset.name in self.failures:
            return {**head, "reason": in_our_words(self.failures[dataset.name])}
        trials = {trial.candidate: trial for trial in record.trials} if record else {}
        trial = trials.get(dataset.name)
        if trial is not None and trial.is_done:
            return {**head, "status": "completed", **self._figures(dataset, trial, record)}
        if trial is not None and trial.folder.failed.is_file():
            return {**head, "reason": in_our_words(read_json(trial.folder.failed)["reason"])}
        return {**head, "status": "waiting"}

    def _figures(
        self, dataset: Dataset, trial: TrialRecord, record: RunRecord | None
    ) -> dict[str, Any]:
        assert self.plan is not None and record is not None and trial.training is not None
        base, results = record.trials[0].summary, record.results or {}
        asked = dataset.evaluation_name or next(iter(trial.summary.evaluations))
        scores = evaluation_figures(trial.summary, asked, results.get("estimates", []))
        training = training_figures(trial.training, trial.steps, self.plan.training.batch_size)
        return {
            "evaluation": {
                "name": asked,
                "num_examples": scores["num_examples"],
                "batch_size": self.plan.generation.batch_size,
                **self._asked(dataset, record),
            },
            "base": per_cent(base.evaluations[asked].means),
            "scores": scores,
            "lift": lift_figures(trial.summary, base, asked, results.get("comparisons", [])),
            "training": training,
            "adapter_path": str(trial.folder.adapter),
            "predictions_path": str(trial.folder.predictions(asked)),
            "scores_path": str(trial.folder.scores(asked)),
        }

    def _asked(self, dataset: Dataset, record: RunRecord) -> dict[str, Any]:
        """Which rows are asked."""
        assert self.plan is not None
        if (holdout := self.plan.held_out) is None:
            return {"source": "file", "path": str(dataset.evaluation_path or "of other datasets")}
        return {
            "source": "held_out",
            "path": str(dataset.train_path),
            "share": holdout.share,
            "seed": holdout.seed,
            "rule": _held_out_rule(record),
        }


class _Telling:
    """A view that also has the JSON file written whenever a dataset ends."""

    def __init__(self, view: View, write: Any) -> None:
        self._view, self._write = view, write
        self.close = view.close

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        if kind in _ENDS:
            self._write()
        self._view.show(kind, fields, line)
