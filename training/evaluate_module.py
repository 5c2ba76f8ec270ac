"""Answer a dataset's questions and score the answers by Exact Match and F1.

scores = evaluate_model_on_dataset_with_progress(trained["model"], tokenizer, "data/test.jsonl")
scores["exact_match"], scores["f1"]    # per cent, as the SQuAD script prints them
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if not __package__:
    import own_folder  # type: ignore[import-not-found]  # noqa: F401

from loracle.errors import reworded
from loracle.experiment.alone import answer_alone
from loracle.migration.dataset_paths import entry_of
from loracle.migration.transformers_settings import generation_arguments
from loracle.model.own_layers import name_of
from loracle.plan import load_untrained_plan
from loracle.run_folder.log_files import LogFiles
from loracle.run_folder.views import choose_view
from training.summary import evaluation_figures, head_of, per_cent
from training.train_module import place_of
from training.words import in_our_words


@reworded(in_our_words)
def evaluate_model_on_dataset_with_progress(
    model: Any,
    tokenizer: Any,
    eval_dataset_path: str | Path,
    dataset_index: int = 1,
    total_datasets: int = 1,
    batch_size: int | None = None,
    generation_kwargs: Mapping[str, Any] | None = None,
    *,
    log_dir: str | Path = ".",
) -> dict[str, Any]:
    """Answer every question and score, with live progress on the standard error stream.

    Args:
        model: The base, which answers with the adapter that is on it, if one is; or a PeftModel,
            which answers with its own. The model stays as it is.
        eval_dataset_path: A file or a hub's dataset, as for training. The last assistant turn is
            what is asked for.
        dataset_index: The place among `total_datasets`, from 1, for the progress display.
        batch_size: Prompts answered together. None takes the recommended one, which is reported.
        generation_kwargs: By transformers' names:
            max_new_tokens (40), repetition_penalty (1.1), do_sample, num_beams, ...
        log_dir: Where evaluation.log and pipeline.log are; the working folder.

    Returns:
        status ("completed"), exact_match, em (the same) and f1 (0 to 100), with `intervals`,
        num_examples, finish_reasons, scripts, batch_size, evaluation_seconds, rows_per_second,
        has_adapter, predictions (id, prediction, answers, finish_reason, exact_match, f1),
        dataset, dataset_path, dataset_index, total_datasets.

    Raises:
        PlanError, DataError, ModelError: what was given cannot be used.
    """
    generation = generation_arguments(generation_kwargs, batch_size, "batch_size")
    for note in generation.notes:
        # The caller's line is above this function and what rewords its errors.
        warnings.warn(note, stacklevel=3)
    place = place_of(eval_dataset_path, dataset_index, total_datasets)
    plan = load_untrained_plan(
        evaluations=[entry_of(place.trial, eval_dataset_path)],
        settings={"model": {"name": name_of(model)}, "generation": generation.plan},
    )
    label = f"{place.index}/{place.num_trials}"
    found = answer_alone(plan, model, tokenizer, LogFiles(choose_view(), Path(log_dir)), label)
    rows = zip(found.predictions[place.trial], found.scores[place.trial], strict=True)
    return {
        **head_of(place, dataset_path=eval_dataset_path),
        "has_adapter": found.has_adapter,
        **evaluation_figures(found.summary, place.trial, found.estimates),
        "batch_size": found.batch_size,
        "predictions": [
            {key: row[key] for key in ("id", "prediction", "answers", "finish_reason")}
            | per_cent(score)
            for row, score in rows
        ],
    }
