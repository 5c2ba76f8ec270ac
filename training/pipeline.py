"""The pipeline: the datasets in turn, from one frozen base; a failing one is recorded.

Pipeline.of(arguments) -> read the files -> load the model -> of each dataset:
split, base's scores, train, save, score, take the adapter off, write the results
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loracle.data.rendering.renderer import Renderer
from loracle.errors import LoracleError, PlanError, TrialError, UserError
from loracle.experiment.setup import DraftPool, EvaluationSet, generation_settings
from loracle.experiment.trial import Place
from loracle.files import write_json
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, load_base, load_tokenizer
from loracle.model.source import model_source
from loracle.plan import ModelPlan
from loracle.run_folder.folder import RunFolder, TrialFolder
from loracle.run_folder.reporter import Reporter, View
from training.arguments import (
    Generation,
    TrainingArguments,
    generation_arguments,
    read_lora_settings,
    training_arguments,
)
from training.attachment import Standing, take_off
from training.datasets import Content, DatasetPaths, datasets_of, read_dataset, split
from training.evaluate_module import answer_and_score
from training.summary import RESULTS_VERSION, completed_entry, failed_entry, summarize
from training.train_module import renderer_of, train_adapter


@dataclass
class _Session:
    """What the datasets share once the model is loaded. `base_scores`: by evaluation set."""

    base: BaseModel
    fingerprint: str
    renderer: Renderer
    reporter: Reporter
    drafts: DraftPool = field(default_factory=DraftPool)
    base_scores: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, base: BaseModel, reporter: Reporter) -> _Session:
        return cls(base, base_fingerprint(base.model), renderer_of(base), reporter)


@dataclass(frozen=True)
class Pipeline:
    """The checked arguments."""

    datasets: list[DatasetPaths]
    model_path: str
    config_name: str
    lora_settings: dict[str, Any]
    arguments: TrainingArguments
    generation: Generation
    output_path: Path

    @classmethod
    def of(
        cls,
        dataset_paths: Sequence[Any] | str | Path,
        model_path: str | Path,
        lora_config_dir: str | Path,
        config_name: str,
        result_output_path: str | Path,
        training_args: Mapping[str, Any] | None,
        batch_size: int | None,
        generation_kwargs: Mapping[str, Any] | None,
    ) -> Pipeline:
        output_path = Path(result_output_path)
        if output_path.is_dir():
            raise PlanError(f"result_output_path: {output_path} is a folder; name a file in it")
        return cls(
            datasets_of(dataset_paths),
            str(model_path),
            config_name,
            read_lora_settings(lora_config_dir, config_name),
            training_arguments(training_args),
            generation_arguments(generation_kwargs, batch_size, "evaluation_batch_size"),
            output_path,
        )

    def run(self, view: View) -> dict[str, Any]:
        """Load the model, take the datasets in turn, write the results."""
        folder = RunFolder(self.output_path.parent)
        folder.root.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with Reporter(folder, view) as reporter:
            names = [dataset.name for dataset in self.datasets]
            run = str(self.output_path)
            reporter.emit("run_started", run=run, num_trials=len(names), candidates=names)
            for note in self.generation.notes:
                reporter.emit("warning", message=note)
            contents = [_content(dataset) for dataset in self.datasets]
            session = None
            # With nothing to train on, no model is loaded.
            if any(isinstance(content, Content) for content in contents):
                session = _Session.of(load_model(self.model_path), reporter)
            entries: list[dict[str, Any]] = []
            for index, content in enumerate(contents, start=1):
                place = Place(names[index - 1], index, len(names))
                entries.append(self._attempt(session, content, place, folder, reporter))
                results = self._results(entries, time.perf_counter() - started)
                write_json(self.output_path, results)
            reporter.emit(
                "run_finished",
                run=run,
                num_failed=results["summary"]["num_failed"],
                seconds=time.perf_counter() - started,
            )
        return results

    def _attempt(
        self,
        session: _Session | None,
        content: Content | str,
        place: Place,
        folder: RunFolder,
        reporter: Reporter,
    ) -> dict[str, Any]:
        """One dataset's entry in the results. A failure is its outcome: the others go on."""
        dataset = self.datasets[place.index - 1]
        started = time.perf_counter()
        try:
            if isinstance(content, str):
                raise TrialError(content)
            assert session is not None, "there is a model where any dataset could be read"
            entry = self._train_and_evaluate(session, dataset, content, place, folder)
        # Whatever a model, a driver or a disk throws must not take the other datasets with it.
        except Exception as error:  # noqa: BLE001
            known = isinstance(error, LoracleError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            reporter.emit("trial_failed", **asdict(place), reason=reason)
            return failed_entry(dataset, place, reason)
        seconds = time.perf_counter() - started
        reporter.emit("trial_finished", **asdict(place), seconds=seconds)
        return entry

    def _train_and_evaluate(
        self,
        session: _Session,
        dataset: DatasetPaths,
        content: Content,
        place: Place,
        folder: RunFolder,
    ) -> dict[str, Any]:
        _require_unchanged(session)
        trial = TrialFolder(folder.root / "trials" / dataset.name)
        if removed := trial.clear():
            message = f"{trial.root}: {len(removed)} files of an earlier run removed"
            session.reporter.emit("warning", message=message)
        parts = split(dataset, content, session.renderer, self.generation.plan.max_new_tokens)
        base_scores = self._base_scores(session, parts.evaluation, folder)
        trained = train_adapter(
            session.base,
            parts.training,
            self.lora_settings,
            self.arguments,
            place,
            session.reporter,
            trial.steps,
        )
        try:
            adapter.save(trained.adapted, trial.adapter)
            predictions_path = trial.predictions(parts.evaluation.name)
            standing = Standing(session.base, trained.adapted)
            scores = self._answer(
                session, standing, parts.evaluation, place.trial, predictions_path
            )
        finally:
            take_off(trained.adapted)
        return completed_entry(
            dataset, place, base_scores, trained.figures, scores, trial.adapter, predictions_path
        )

    def _base_scores(
        self, session: _Session, evaluation: EvaluationSet, folder: RunFolder
    ) -> dict[str, Any]:
        """The untrained model's scores; the same questions are asked once."""
        if evaluation.name not in session.base_scores:
            session.reporter.emit("base_started")
            started = time.perf_counter()
            session.base_scores[evaluation.name] = self._answer(
                session,
                Standing(session.base, None),
                evaluation,
                "base",
                folder.base.predictions(evaluation.name),
            )
            seconds = time.perf_counter() - started
            session.reporter.emit("base_finished", seconds=seconds)
        return session.base_scores[evaluation.name]

    def _answer(
        self,
        session: _Session,
        standing: Standing,
        evaluation: EvaluationSet,
        trial: str,
        predictions_path: Path,
    ) -> dict[str, Any]:
        settings = generation_settings(
            self.generation.plan, session.base.device.type, answer_nll=False
        )
        return answer_and_score(
            standing,
            evaluation,
            settings,
            session.drafts,
            trial=trial,
            reporter=session.reporter,
            predictions_path=predictions_path,
        )

    def _results(self, entries: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
        summary = summarize(entries, len(self.datasets), seconds)
        return {
            "version": RESULTS_VERSION,
            "status": summary.pop("status"),
            "model_path": self.model_path,
            "lora_config": {"name": self.config_name, **self.lora_settings},
            "training": {"seed": self.arguments.seed, **self.arguments.plan().model_dump()},
            "generation": self.generation.plan.model_dump(),
            "datasets": list(entries),
            "summary": summary,
        }


def _content(dataset: DatasetPaths) -> Content | str:
    """The dataset's rows, or why it has none."""
    try:
        return read_dataset(dataset)
    except UserError as error:
        return str(error)


def load_model(model_path: str) -> BaseModel:
    """The frozen base at model_path: a folder, a hub id (ms://org/name is ModelScope's), or
    "embedded". Raises ModelError."""
    source = model_source(ModelPlan(name=model_path))
    tokenizer = load_tokenizer(source, revision=None, trust_remote_code=False)
    return load_base(model_path, source, tokenizer)


def _require_unchanged(session: _Session) -> None:
    if base_fingerprint(session.base.model) != session.fingerprint:
        raise TrialError(
            "an earlier dataset's training changed the base's weights, so this one would not "
            "start from the same model; look at the first failure"
        )
