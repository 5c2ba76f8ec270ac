"""TRL's SFTTrainer, one optimizer step at each `step` command.

    trl_step.py --model DIR --rows FILE.json [--num-rows-per-step 64] [--micro-batch-size 8]

Answers `{"event": "ready", ...}` once the rows are tokenised, then to each `step`
`{"event": "step", "step": N, "seconds": S, "cpu_seconds": C, "loss": L, "num_targets": T}`. The
first step warms up: leave it out.

Configured as someone who knows TRL would on a CPU: loss on completions only,
no checkpointing of activations, no padding to the longest row of the set, the rows of a step
sorted by length so that micro-batches hardly pad. What padding-free batches and packing need
(flash attention) does not exist on a CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from channel import Channel, Stopwatch
from datasets import Dataset
from peft import LoraConfig
from rows import Message, prompt_of, read_rows
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
)
from trl import SFTConfig, SFTTrainer

_NOT_LEARNED = -100


@dataclass(frozen=True)
class StepSettings:
    """How one optimizer step is cut and computed."""

    num_rows_per_step: int = 64
    micro_batch_size: int = 8
    learning_rate: float = 1e-3
    num_epochs: float = 1.0
    max_steps: int = -1
    """-1: `num_epochs` decides."""
    schedule: str = "linear"
    warmup: float = 0.03
    """Below 1: a share of all steps."""
    dtype: str = "bfloat16"
    autocast: bool = False
    """bf16 autocast on top; only useful over fp32 weights."""
    attention: str = "sdpa"
    checkpoint_activations: bool = False
    """TRL's own default is True: less memory, and the forward pass twice."""
    sort_rows: bool = True
    """Sort the rows of every step by length. They stay the same rows."""


def load_base(model_path: str, dtype: str, attention: str = "sdpa") -> PreTrainedModel:
    """The base model from a local folder."""
    return AutoModelForCausalLM.from_pretrained(
        model_path, dtype=getattr(torch, dtype), attn_implementation=attention
    )


def lora_config() -> LoraConfig:
    """The adapter both sides of every benchmark train."""
    return LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def sort_within_steps(
    conversations: Sequence[list[Message]], settings: StepSettings
) -> list[list[Message]]:
    """Sort the rows of every optimizer step by length in characters, longest first.

    Longest first meets the largest micro-batch, and so the largest allocation, at once.
    """
    size = settings.num_rows_per_step
    ordered: list[list[Message]] = []
    for start in range(0, len(conversations), size):
        ordered += sorted(
            conversations[start : start + size],
            key=lambda messages: -sum(len(message["content"]) for message in messages),
        )
    return ordered


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[Message]],
    settings: StepSettings,
    output_folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> SFTTrainer:
    """A trainer over `conversations` in the given order, completion-only loss."""
    assert settings.num_rows_per_step % settings.micro_batch_size == 0
    if settings.sort_rows:
        conversations = sort_within_steps(conversations, settings)
    dataset = Dataset.from_list(
        [{"prompt": prompt_of(row), "completion": row[-1:]} for row in conversations]
    )
    arguments = SFTConfig(
        output_dir=str(output_folder),
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.num_rows_per_step // settings.micro_batch_size,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.num_epochs,
        max_steps=settings.max_steps,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        max_grad_norm=0.3,
        completion_only_loss=True,
        max_length=None,
        train_sampling_strategy="sequential",
        bf16=settings.autocast,
        use_cpu=True,
        activation_checkpointing=settings.checkpoint_activations,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora_config(),
        callbacks=list(callbacks),
    )
    trainer.train_dataset = without_tail_targets(trainer.train_dataset, tokenizer.eos_token_id)
    return trainer


def without_tail_targets(dataset: Dataset, end_token_id: int) -> Dataset:
    """Learn nothing behind the last end token.

    Templates put a newline there, which TRL would teach as well: Loracle ends with the end token,
    and both sides of a benchmark learn the same.
    """

    def cut(row: dict[str, list[int]]) -> dict[str, list[int]]:
        token_ids, labels = row["input_ids"], row["labels"]
        num_behind = token_ids[::-1].index(end_token_id) if end_token_id in token_ids else 0
        return {"labels": labels[: len(labels) - num_behind] + [_NOT_LEARNED] * num_behind}

    return dataset.map(cut)


def num_targets_of_steps(dataset: Dataset, num_rows_per_step: int) -> list[int]:
    """How many tokens every step learns: the first token of a row cannot be one."""
    targets = [sum(label != _NOT_LEARNED for label in row[1:]) for row in dataset["labels"]]
    starts = range(0, len(targets), num_rows_per_step)
    return [sum(targets[start : start + num_rows_per_step]) for start in starts]


class WaitForTheDriver(TrainerCallback):
    """Holds the trainer before each optimizer step until the driver asks for one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.num_targets: list[int] = []
        self._stopwatch = Stopwatch()
        self._times: dict[str, float] = {}

    def on_step_begin(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        if not self._channel.next_command():
            raise SystemExit(0)
        self._stopwatch = Stopwatch()

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        self._times = self._stopwatch.read()

    def on_log(
        self, args: Any, state: Any, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Comes right after each step, with its loss; and once at the end, without one."""
        if self._times:
            loss = float(logs["loss"])
            step = state.global_step
            num_targets = self.num_targets[(step - 1) % len(self.num_targets)]
            fields = {"loss": loss, "num_targets": num_targets}
            self._channel.send("step", step=step, **fields, **self._times)
            self._times = {}


def main() -> None:
    """Tokenise, say ready, then one step for each command until the rows or commands end."""
    arguments = _parse_arguments()
    channel = Channel()
    settings = StepSettings(
        num_rows_per_step=arguments.num_rows_per_step,
        micro_batch_size=arguments.micro_batch_size,
        dtype=arguments.dtype,
        autocast=arguments.autocast,
        attention=arguments.attention,
        checkpoint_activations=arguments.checkpoint_activations,
        sort_rows=not arguments.file_order,
        # Until the driver stops; after the last row the first comes again.
        max_steps=1_000_000,
        schedule="constant",
        warmup=0.0,
    )
    model = load_base(arguments.model, settings.dtype, settings.attention)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    conversations = read_rows(arguments.rows, arguments.num_rows)
    waiting = WaitForTheDriver(channel)
    trainer = make_trainer(model, tokenizer, conversations, settings, arguments.out, [waiting])
    waiting.num_targets = num_targets_of_steps(trainer.train_dataset, settings.num_rows_per_step)
    channel.send(
        "ready",
        num_rows=len(conversations),
        num_tokens=sum(len(row["input_ids"]) for row in trainer.train_dataset),
        num_trainable=trainer.model.num_parameters(only_trainable=True),
        num_threads=torch.get_num_threads(),
        packages={name: version(name) for name in ("trl", "torch", "transformers", "peft")},
    )
    trainer.train()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--rows", type=Path, required=True, help="JSON or JSONL")
    parser.add_argument("--num-rows", type=int, help="the first rows only")
    parser.add_argument("--num-rows-per-step", type=int, default=64)
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16", help="of the base weights")
    parser.add_argument("--autocast", action="store_true", help="bf16 autocast")
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--checkpoint-activations", action="store_true")
    parser.add_argument("--file-order", action="store_true", help="do not sort a step's rows")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/trl"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
