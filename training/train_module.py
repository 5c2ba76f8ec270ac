"""Train a LoRA adapter on one dataset, on a model that the caller loaded.

model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
trained = train_model_on_dataset_with_progress(
    model, tokenizer, "data/a.jsonl", "lora_configs", "qwen_lora_config"
)
trained["model"].save_pretrained("adapters/a")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

if not __package__:
    import own_folder  # type: ignore[import-not-found]  # noqa: F401

from loracle.errors import PlanError, reworded
from loracle.experiment.alone import train_alone
from loracle.experiment.trial import Place
from loracle.migration.dataset_paths import entry_of, name_of_path
from loracle.migration.transformers_settings import training_arguments
from loracle.model.lora_files import read_lora_plan
from loracle.model.own_layers import name_of
from loracle.plan import load_unmeasured_plan
from loracle.run_folder.log_files import LogFiles
from loracle.run_folder.views import choose_view
from training.summary import head_of, training_figures
from training.words import in_our_words


@reworded(in_our_words)
def train_model_on_dataset_with_progress(
    model: Any,
    tokenizer: Any,
    train_dataset_path: str | Path,
    lora_config_dir: str | Path,
    config_name: str,
    dataset_index: int = 1,
    total_datasets: int = 1,
    training_args: Mapping[str, Any] | None = None,
    *,
    log_dir: str | Path = ".",
) -> dict[str, Any]:
    """Train a fresh adapter on the dataset, with live progress on the standard error stream.

    It starts from the frozen base, without an adapter that is on it. Each result owns its adapter:
    an earlier one still answers, and is saved, with its own weights.

    Args:
        model: The base, or a PeftModel, such as an earlier training's.
        train_dataset_path: A file or a hub's dataset, as `loracle run` takes it; `PATH#SPLIT`.
        lora_config_dir: The folder of `config_name`.json, with fields of peft.LoraConfig.
        dataset_index: The place among `total_datasets`, from 1, for the progress display.
        training_args: By transformers' names (loracle/migration/transformers_settings.py).
        log_dir: Where training.log and pipeline.log are; the working folder.

    Returns:
        status ("completed"), model (the PeftModel), dataset, dataset_path, dataset_index,
        total_datasets, lora_config, num_examples, num_steps, batch_size, supervised_tokens,
        tokens_read, tokens_computed, final_loss, losses (one a step, nats a token),
        training_seconds, steps_per_second, examples_per_second, batching ("forest" or "padded"),
        batching_reason, adapter_path (None without output_dir), initial_adapter_fingerprint and
        adapter_fingerprint.

    Raises:
        PlanError, DataError, ModelError, RunFolderError: what was given cannot be used.
        TrialError: the training failed. The base is as it was.
    """
    arguments = training_arguments(training_args)
    place = place_of(train_dataset_path, dataset_index, total_datasets)
    plan = load_unmeasured_plan(
        candidates=[entry_of(place.trial, train_dataset_path)],
        settings={
            "model": {"name": name_of(model)},
            "lora": read_lora_plan(lora_config_dir, config_name),
            **arguments.sections(),
        },
    )
    arguments.require_usable_with(model)
    view = LogFiles(choose_view(), Path(log_dir), arguments.logging_steps)
    trained = train_alone(plan, model, tokenizer, view, place, arguments.output_dir)
    return {
        **head_of(place, dataset_path=train_dataset_path),
        "model": trained.model,
        "lora_config": config_name,
        **training_figures(trained.outcome, trained.steps, plan.training.batch_size),
        "batching": "forest" if trained.is_forest else "padded",
        "batching_reason": trained.self_test,
        "adapter_path": str(trained.adapter) if arguments.output_dir else None,
    }


def place_of(path: str | Path, dataset_index: int, total_datasets: int) -> Place:
    """The dataset's place among the others. Raises PlanError if there is no such place."""
    if not isinstance(path, str | Path):
        raise PlanError(f"the dataset's path: found {type(path).__name__}; expected a path")
    if not 1 <= dataset_index <= total_datasets:
        raise PlanError(
            f"dataset_index: found {dataset_index} with total_datasets {total_datasets}; expected "
            "1 to total_datasets"
        )
    return Place(name_of_path(path), dataset_index, total_datasets)
