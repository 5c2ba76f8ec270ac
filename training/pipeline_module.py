"""Train and evaluate on every dataset in turn, from the same frozen base, into one JSON file.

run_training_evaluation_pipeline(
    [("data/a.jsonl", "data/test.jsonl"), ("data/b.jsonl", "data/test.jsonl")],
    "embedded", "lora_configs", "default", "results/summary.json",
)

results/summary.json                 written anew after every dataset
results/training.log · evaluation.log · pipeline.log · events.jsonl
results/trials/NAME/adapter/         in PEFT's format; steps.jsonl and predictions/ beside it
results/base/predictions/            the untrained model's answers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loracle.run_folder.views import PlainView, choose_view
from training.pipeline import Pipeline


def run_training_evaluation_pipeline(
    dataset_paths: Sequence[Any] | str | Path,
    model_path: str | Path,
    lora_config_dir: str | Path,
    config_name: str,
    result_output_path: str | Path,
    training_args: Mapping[str, Any] | None = None,
    evaluation_batch_size: int | None = None,
    evaluation_generation_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train an adapter on each dataset and score it beside the base, with plain progress lines.

    dataset_paths: of each dataset a path, a pair (train, eval), or a dict with train, eval and
        name. Without an evaluation file a tenth of the rows is held out, by shared passage and
        never by row; the results say so.
    model_path: a model folder, a hub id, or "embedded".
    lora_config_dir, config_name, training_args: as for train_model_on_dataset_with_progress.
    result_output_path: the JSON file, written atomically after every dataset; logs, adapters and
        predictions go to its folder.
    evaluation_batch_size, evaluation_generation_kwargs: batch_size and generation_kwargs of
        evaluate_model_on_dataset_with_progress.

    Returns what the JSON file holds:
        status    "completed", "completed_with_failures" or "failed"; "running" until the end
        datasets  a list in the given order. Of each: dataset, status, train_path, evaluation,
                  base and scores (exact_match and f1, 0 to 100), lift (scores minus base),
                  training (figures), adapter_path, predictions_path; or the reason of a failure
        summary   num_datasets, num_completed, num_failed, ranking (by the lift of F1),
                  best_dataset (None where none is above the base and the others), reason, seconds

    A dataset that fails is recorded, and the others go on.

    Raises:
        PlanError, ModelError: the arguments or the model cannot be used. Nothing was trained.
    """
    pipeline = Pipeline.of(
        dataset_paths,
        model_path,
        lora_config_dir,
        config_name,
        result_output_path,
        training_args,
        evaluation_batch_size,
        evaluation_generation_kwargs,
    )
    return pipeline.run(PlainView())


def run_pipeline_with_progress(
    dataset_paths: Sequence[Any] | str | Path,
    model_path: str | Path,
    lora_config_dir: str | Path,
    config_name: str,
    result_output_path: str | Path,
    training_args: Mapping[str, Any] | None = None,
    evaluation_batch_size: int | None = None,
    evaluation_generation_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The same as run_training_evaluation_pipeline, with live bars where there is a terminal."""
    pipeline = Pipeline.of(
        dataset_paths,
        model_path,
        lora_config_dir,
        config_name,
        result_output_path,
        training_args,
        evaluation_batch_size,
        evaluation_generation_kwargs,
    )
    return pipeline.run(choose_view())
