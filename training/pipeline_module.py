"""Train and evaluate on every dataset, from the same frozen base, into one JSON file.

run_training_evaluation_pipeline(
    [("data/a.jsonl", "data/test.jsonl"), ("data/b.jsonl", "data/test.jsonl")],
    "embedded", "lora_configs", "qwen_lora_config", "results/summary.json",
)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

if not __package__:
    import own_folder  # type: ignore[import-not-found]  # noqa: F401

from loracle.run_folder.views import PlainView, choose_view
from training.pipeline import Given

P = ParamSpec("P")


def run_training_evaluation_pipeline(
    dataset_paths: Sequence[Any] | str | Path,
    model_path: str | Path,
    lora_config_dir: str | Path,
    config_name: str,
    result_output_path: str | Path,
    training_args: Mapping[str, Any] | None = None,
    evaluation_batch_size: int | None = None,
    evaluation_generation_kwargs: Mapping[str, Any] | None = None,
    *,
    log_dir: str | Path | None = None,
    quantization: str | None = None,
    device_map: Any = None,
) -> dict[str, Any]:
    """Train an adapter on each dataset and score it beside the base, with plain progress lines.

    The same call again resumes: finished datasets are taken from the run folder,
    `result_output_path` with `_run` in place of its ending. A dataset that fails is recorded with
    its reason, and the others still run.

    Args:
        dataset_paths: For each dataset a path, a pair (train, eval), or a dict with train, eval,
            name and split. All are measured on all evaluation files; if none is named, on a tenth
            of the rows, held out by shared passage.
        model_path: A model folder, a hub's id, or "embedded".
        lora_config_dir: As for train_model_on_dataset_with_progress; so are config_name and
            training_args.
        result_output_path: The JSON file.
        evaluation_batch_size: As batch_size of evaluate_model_on_dataset_with_progress; so is
            evaluation_generation_kwargs.
        log_dir: Where the three logs are; None puts them beside the JSON file.
        quantization: The plan's model.quantization.
        device_map: The plan's model.device_map.

    Returns:
        What the JSON file holds: status ("running", "interrupted", "completed",
        "completed_with_failures" or "failed"), run_folder, model_path, lora_config, training,
        generation, datasets (for each: dataset, status, train_path, evaluation, base, scores,
        lift, training, adapter_path, predictions_path, scores_path; or the reason of a failure),
        summary (num_datasets, num_completed, num_failed, ranking, best_dataset, reason, seconds)
        and decision, as results.json of the run has it.

    Raises:
        PlanError, DataError, ModelError, RunFolderError: what was given cannot be used, or
            result_output_path belongs to other arguments. Nothing was trained.
    """
    return Given(**locals()).run(PlainView())


def _with_bars(plain: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any]]:
    """A function of the same arguments, with live bars on a terminal."""

    @functools.wraps(plain, assigned=("__module__",))
    def run_pipeline_with_progress(*arguments: P.args, **named: P.kwargs) -> dict[str, Any]:
        """The same as run_training_evaluation_pipeline, with live bars on a terminal."""
        bound = inspect.signature(plain).bind(*arguments, **named)
        bound.apply_defaults()
        return Given(**bound.arguments).run(choose_view())

    return run_pipeline_with_progress


run_pipeline_with_progress = _with_bars(run_training_evaluation_pipeline)
