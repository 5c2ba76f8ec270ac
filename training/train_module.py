"""Train a LoRA adapter on one dataset, on a model that the caller loaded.

model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
trained = train_model_on_dataset_with_progress(
    model, tokenizer, "data/a.jsonl", "lora_configs", "default"
)
trained["model"].save_pretrained("adapters/a")
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import Renderer
from loracle.errors import PlanError
from loracle.experiment.setup import TrainingSet, training_settings
from loracle.experiment.trial import Place
from loracle.files import JsonLinesWriter
from loracle.model.base import BaseModel
from loracle.model.placement import require_trainable
from loracle.model.self_test import run_self_test
from loracle.run_folder.reporter import Reporter
from loracle.run_folder.views import choose_view
from loracle.training.loop import MemoryEvent, StepRecord, num_steps_planned, train
from training.arguments import TrainingArguments, read_lora_settings, training_arguments
from training.attachment import frozen, put_on, take_off


class Trained(NamedTuple):
    """The base with its new adapter (a PeftModel), and the figures of the training."""

    adapted: Any
    figures: dict[str, Any]


def train_model_on_dataset_with_progress(
    model: Any,
    tokenizer: Any,
    train_dataset_path: str | Path,
    lora_config_dir: str | Path,
    config_name: str,
    dataset_index: int = 1,
    total_datasets: int = 1,
    training_args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a fresh adapter on the dataset, with live progress on the standard error stream.

    model: the base, or what an earlier training returned: its adapter is taken off first, so
        that every training starts from the same frozen base. The adapter lives inside this
        model until the next training.
    train_dataset_path: JSON or JSONL of `messages` rows, or of question, answer and context.
    lora_config_dir, config_name: `DIR/NAME.json` with r, lora_alpha, lora_dropout,
        target_modules, bias; any other field of peft.LoraConfig passes through.
    dataset_index, total_datasets: the place among others, from 1, for the progress display.
    training_args: num_train_epochs (3), per_device_train_batch_size and
        gradient_accumulation_steps (the effective batch is their product), learning_rate (1e-4),
        max_grad_norm (0.3), warmup_ratio (0.03); also max_steps, lr_scheduler_type,
        weight_decay, seed.

    Returns a dict:
        status             "completed"
        model              the PeftModel: evaluate it, or save it with save_pretrained
        dataset            the file's stem; dataset_path, dataset_index, total_datasets, lora_config
        num_examples, num_steps, supervised_tokens, tokens_read, tokens_computed
        final_loss, losses (one a step, nats a token), training_seconds, steps_per_second,
        examples_per_second
        batching           "forest" or "padded", with batching_reason

    Raises:
        PlanError, DataError, ModelError: what was given cannot be used.
        TrialError: the training failed; the base is as it was before.
    """
    arguments = training_arguments(training_args)
    lora_settings = read_lora_settings(lora_config_dir, config_name)
    examples = read_examples(train_dataset_path)
    place = place_of(Path(train_dataset_path).stem, dataset_index, total_datasets)
    with Reporter(None, choose_view(json_output=False)) as reporter:
        base = frozen(take_off(model), tokenizer)
        renderer = renderer_of(base)
        training_set = TrainingSet.of(place.trial, renderer.training_rows(examples))
        started = time.perf_counter()
        trained = train_adapter(base, training_set, lora_settings, arguments, place, reporter)
        seconds = time.perf_counter() - started
        reporter.emit("trial_finished", **asdict(place), seconds=seconds)
    return {
        "status": "completed",
        "model": trained.adapted,
        "dataset": place.trial,
        "dataset_path": str(train_dataset_path),
        "dataset_index": dataset_index,
        "total_datasets": total_datasets,
        "lora_config": config_name,
        **trained.figures,
    }


def place_of(name: str, dataset_index: int, total_datasets: int) -> Place:
    """The dataset's place among the others. Raises PlanError where there is no such place."""
    if not 1 <= dataset_index <= total_datasets:
        raise PlanError(
            f"dataset_index: found {dataset_index} with total_datasets {total_datasets}; expected "
            "1 to total_datasets"
        )
    return Place(name, dataset_index, total_datasets)


def renderer_of(base: BaseModel) -> Renderer:
    """The renderer of training and evaluation alike."""
    return Renderer(base.tokenizer, base.end_token_ids, max_length=base.max_length_tokens)


def train_adapter(
    base: BaseModel,
    training_set: TrainingSet,
    lora_settings: Mapping[str, Any],
    arguments: TrainingArguments,
    place: Place,
    reporter: Reporter,
    steps_path: Path | None = None,
) -> Trained:
    """Attach a fresh adapter to the bare base and train it; where that fails, take it off again.

    steps_path: where a row for each step goes; None is nowhere.
    """
    require_trainable(base.model)
    self_test = run_self_test(base)
    if not self_test.passed:
        reporter.emit("warning", message=f"padded batches: {self_test.detail}")
    adapted = put_on(base.model, lora_settings, arguments.seed, place.trial)
    try:
        figures = _train(
            base, adapted, training_set, arguments, self_test.passed, place, reporter, steps_path
        )
    except BaseException:
        take_off(adapted)
        raise
    batching = "forest" if self_test.passed else "padded"
    figures |= {"batching": batching, "batching_reason": self_test.detail}
    return Trained(adapted, figures)


def _train(
    base: BaseModel,
    adapted: Any,
    training_set: TrainingSet,
    arguments: TrainingArguments,
    forest: bool,
    place: Place,
    reporter: Reporter,
    steps_path: Path | None,
) -> dict[str, Any]:
    settings = training_settings(arguments.plan(), base.device.type, forest=forest)
    settings = replace(settings, seed=arguments.seed)
    sequences, groups = training_set.sequences, training_set.groups
    num_examples = sequences.num_sequences
    num_steps = num_steps_planned(sequences, groups, settings)
    reporter.emit(
        "trial_started",
        **asdict(place),
        candidate=training_set.name,
        seed=arguments.seed,
        num_examples=num_examples,
        num_steps=num_steps,
    )
    steps: list[StepRecord] = []
    started = time.perf_counter()
    with ExitStack() as stack:
        writer = stack.enter_context(JsonLinesWriter(steps_path)) if steps_path else None

        def on_step(record: StepRecord) -> None:
            row = asdict(record)
            if writer is not None:
                writer.write(row)
            steps.append(record)
            reporter.emit("step", trial=place.trial, num_steps=num_steps, **row)

        def on_memory(event: MemoryEvent) -> None:
            reporter.emit(
                "warning",
                message=f"{place.trial}: out of memory at step {event.step}; doing the step again "
                f"in micro-batches of {event.budget_tokens} tokens (the batch stays the same)",
            )

        train(base, adapted, sequences, groups, settings, on_step, on_memory)
    seconds = time.perf_counter() - started
    # An epoch's last batch may be smaller, so examples are counted by epochs and not by batches.
    num_trained = steps[-1].epoch * num_examples
    return {
        "num_examples": num_examples,
        "num_steps": len(steps),
        "batch_size": settings.batch_size,
        "supervised_tokens": training_set.num_supervised_tokens,
        "tokens_read": sum(step.tokens_read for step in steps),
        "tokens_computed": sum(step.tokens_computed for step in steps),
        "final_loss": steps[-1].loss,
        "losses": [step.loss for step in steps],
        "training_seconds": seconds,
        "steps_per_second": len(steps) / seconds,
        "examples_per_second": num_trained / seconds,
    }
