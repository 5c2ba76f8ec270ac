"""One training step over several processes of one core, against one process of one core.

    .venv/bin/python benchmarks/data_parallel.py ROWS.json [--replicas 2] [--steps 3] [--rounds 3]

ROWS.json: rows that share passages, as XQuAD's. Both sides take the same steps of the same rows,
in turns: while one computes, the processes of the other wait. The first step of every turn warms
up. The two adapters are compared, too.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
from turns import add_dtype, argument_parser, write_result

from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import Renderer
from loracle.experiment.setup import TrainingSet
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, load_base, load_tokenizer
from loracle.model.embedded import embedded_model_folder
from loracle.model.loaded_form import LoadedForm
from loracle.training.loop import AUTO_BUDGET_TOKENS, Following, StepRecord, TrainingSettings, train
from loracle.training.replicas import Replicas

LORA = {"r": 8, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"}


class Turn(NamedTuple):
    """What one training took, a step, and the weights that it ended with."""

    steps: list[StepRecord]
    weights: torch.Tensor


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of both sides")
    parser.add_argument("--batch-size", type=int, default=64)
    add_dtype(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = str(embedded_model_folder())
    base = load_base(
        "embedded",
        folder,
        load_tokenizer(folder, None, False),
        LoadedForm(arguments.dtype, device="cpu"),
    )
    rows = rendered(base, arguments.rows)
    settings = settings_of(arguments.steps + 1, arguments.batch_size)
    replicas = Replicas(base, base_fingerprint(base.model), arguments.replicas)
    alone: list[Turn] = []
    shared: list[Turn] = []
    try:
        turn(base, rows, settings_of(1, arguments.batch_size), replicas)
        for number in range(arguments.rounds):
            alone.append(turn(base, rows, settings, None))
            shared.append(turn(base, rows, settings, replicas))
            print(f"round {number}: alone {seconds(alone[-1])}, shared {seconds(shared[-1])}")
    finally:
        replicas.close()
    figures = compared(alone, shared)
    write_result(
        arguments.name,
        "data_parallel",
        {
            "rows_file": arguments.rows.name,
            "batch_size": arguments.batch_size,
            "processes": arguments.replicas,
            "threads_each": 1,
            **figures,
        },
        str(base.dtype).removeprefix("torch."),
    )


def rendered(base: BaseModel, path: Path) -> TrainingSet:
    rows = Renderer(base.tokenizer, base.end_token_ids).training_rows(read_examples(path))
    return TrainingSet.of(path.stem, rows)


def settings_of(num_steps: int, batch_size: int) -> TrainingSettings:
    return TrainingSettings(
        epochs=1, max_steps=num_steps, max_tokens=None, batch_size=batch_size,
        learning_rate=1e-4, schedule="constant", warmup_ratio=0.0, weight_decay=0.0,
        betas=(0.9, 0.999), eps=1e-8, max_grad_norm=0.3, grouped=True, forest=True,
        budget_tokens=AUTO_BUDGET_TOKENS["cpu"], gradient_checkpointing=False, seed=0,
    )  # fmt: skip


def turn(
    base: BaseModel, rows: TrainingSet, settings: TrainingSettings, replicas: Replicas | None
) -> Turn:
    """Train a fresh adapter for a few steps."""
    steps: list[StepRecord] = []
    with adapter.attached(base.model, adapter.lora_config(LORA), 0) as adapted:
        train(base, adapted, rows, settings, Following(steps.append, print), replicas)
        weights = [parameter.detach().flatten() for _, parameter in adapter.trainable(adapted)]
        return Turn(steps, torch.cat(weights).clone())


def seconds(turn: Turn) -> list[float]:
    """Of the steps after the first."""
    return [round(step.seconds, 2) for step in turn.steps[1:]]


def compared(alone: list[Turn], shared: list[Turn]) -> dict[str, Any]:
    ratios = [
        with_replicas.seconds / without.seconds
        for one, other in zip(alone, shared, strict=True)
        for without, with_replicas in zip(one.steps[1:], other.steps[1:], strict=True)
    ]
    difference = (shared[0].weights - alone[0].weights).norm() / alone[0].weights.norm()
    return {
        "shared_over_alone": {
            "median": round(statistics.median(ratios), 3),
            "steps": [round(ratio, 3) for ratio in ratios],
        },
        "alone_seconds": [seconds(turn) for turn in alone],
        "shared_seconds": [seconds(turn) for turn in shared],
        "tokens_computed_alone": [step.tokens_computed for step in alone[0].steps[1:]],
        "tokens_computed_shared": [step.tokens_computed for step in shared[0].steps[1:]],
        "adapter_relative_difference": float(difference),
    }


if __name__ == "__main__":
    main()
