"""(a) A training step of 64 rows, against TRL's SFTTrainer: same rows, targets, LoRA, precision.

    .venv/bin/python benchmarks/training_step.py ROWS.json [--steps 3] [--name training_step-xquad]

Both sides take the same rows of the file in each step, in turns, and the bare products of the
model's linear layers after them (floor.py). The first step of every side warms up. It also shows
that both learn the same: as many targets, and the same loss, which the adapter cannot change yet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from floor import measured_floor
from turns import (
    Peer,
    UnequalSidesError,
    add_dtype,
    argument_parser,
    over_floor,
    precision,
    ratio,
    write_result,
)

from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import Renderer
from loracle.experiment.setup import TrainingSet
from loracle.forest.attention.interface import ATTENTION_NAME, attention_implementation
from loracle.forest.trie import Sequences
from loracle.model import adapter
from loracle.model.base import BaseModel, input_casting_off, load_base, load_tokenizer
from loracle.model.embedded import embedded_model_folder
from loracle.model.loaded_form import LoadedForm
from loracle.training.loop import AUTO_BUDGET_TOKENS, accumulate_gradient
from loracle.training.micro_batches import take

LORA = {"r": 8, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"}

# Losses of the two sides may differ by this share. In the first step the adapter adds nothing:
# only rounding differs. Later ones start from different random adapters.
FIRST_LOSS_TOLERANCE = {"bfloat16": 0.02, "float32": 0.0005}
LATER_LOSS_TOLERANCE = 0.1


class Turn(NamedTuple):
    """One step of both sides, over the same rows."""

    our_seconds: float
    peer_seconds: float
    floor_seconds: float
    tokens_read: int
    tokens_computed: int
    num_targets: int
    peer_num_targets: int
    our_loss: float
    peer_loss: float


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of every side")
    parser.add_argument("--rows-per-step", type=int, default=64)
    add_dtype(parser)
    parser.add_argument("--peer", nargs="*", default=[], help="more options for trl_step.py")
    arguments = parser.parse_args()
    dtype = precision(arguments.dtype)
    folder = str(embedded_model_folder())
    base = load_base(folder, folder, load_tokenizer(folder, None, False), LoadedForm(dtype))
    data = rendered(base, arguments.rows)
    options: list[object] = ["--model", folder, "--rows", arguments.rows, "--dtype", dtype]
    size = arguments.rows_per_step
    options += ["--num-rows-per-step", size]
    options += [f"--{option}" for option in arguments.peer]
    with Peer("trl_step.py", *options) as peer:
        turns = [
            checked(turn, dtype, is_first=number == 0)
            for number, turn in enumerate(in_turns(base, data, peer, arguments.steps + 1, size))
        ][1:]
    ours, floors = ([turn[i] for turn in turns] for i in (0, 2))
    figures = {
        "rows_file": arguments.rows.name,
        "rows_per_step": size,
        "trl_over_loracle": ratio([turn.peer_seconds for turn in turns], ours),
        "loracle_over_floor": over_floor(ours, floors),
        "peer_packages": peer.ready["packages"],
        "rows": [turn._asdict() for turn in turns],
    }
    write_result(arguments.name, "training_step", figures, dtype)


def in_turns(
    base: BaseModel, data: Sequences, peer: Peer, num_steps: int, num_rows: int
) -> Iterator[Turn]:
    """Our step, the peer's, and the bare products, again and again."""
    adapted = adapter.attach(base.model, adapter.lora_config(LORA), 0)
    parameters = [p for _, p in adapter.trainable(adapted)]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    casting_off = input_casting_off(base.dtype, adapted)
    with attention_implementation(base.model, ATTENTION_NAME), casting_off:
        adapted.train()
        for step in range(num_steps):
            batch = take(data, np.arange(step * num_rows, (step + 1) * num_rows))
            started = time.perf_counter()
            loss, num_computed = our_step(base, adapted, optimizer, batch)
            seconds = time.perf_counter() - started
            answer = peer.ask("step")
            assert batch.weights is not None
            num_targets = int((batch.weights != 0).sum())
            floor = measured_floor(base.model, AUTO_BUDGET_TOKENS["cpu"])
            turn = Turn(
                our_seconds=seconds,
                peer_seconds=answer["seconds"],
                floor_seconds=floor.training_seconds(num_computed, num_targets),
                tokens_read=len(batch.token_ids),
                tokens_computed=num_computed,
                num_targets=num_targets,
                peer_num_targets=answer["num_targets"],
                our_loss=loss,
                peer_loss=answer["loss"],
            )
            print(f"step {step}: {turn}")
            yield turn


def checked(turn: Turn, dtype: str, *, is_first: bool) -> Turn:
    """The turn. Raises UnequalSidesError if the two sides did not learn the same."""
    if turn.num_targets != turn.peer_num_targets:
        raise UnequalSidesError(
            f"Loracle learned {turn.num_targets} tokens, TRL {turn.peer_num_targets}: the targets "
            "differ; compare what the two sides make of the first rows"
        )
    tolerance = FIRST_LOSS_TOLERANCE[dtype] if is_first else LATER_LOSS_TOLERANCE
    if abs(turn.our_loss / turn.peer_loss - 1) > tolerance:
        raise UnequalSidesError(
            f"Loracle's loss is {turn.our_loss:.4f}, TRL's {turn.peer_loss:.4f}: more than "
            f"{tolerance:.2%} apart, so the two sides do not learn the same"
        )
    return turn


def rendered(base: BaseModel, path: Path) -> Sequences:
    rows = Renderer(base.tokenizer, base.end_token_ids).training_rows(read_examples(path))
    return TrainingSet.of(path.stem, rows).sequences


def our_step(
    base: BaseModel, adapted: Any, optimizer: torch.optim.Optimizer, batch: Sequences
) -> tuple[float, int]:
    """What `loracle.training.loop.train` does in one step."""
    optimizer.zero_grad(set_to_none=True)
    loss, num_computed = accumulate_gradient(
        base, adapted, batch, budget_tokens=AUTO_BUDGET_TOKENS["cpu"], forest=True, seed=0
    )
    torch.nn.utils.clip_grad_norm_([p for _, p in adapter.trainable(adapted)], 0.3)
    optimizer.step()
    return float(loss), num_computed


if __name__ == "__main__":
    main()
