"""(a) A training step of 64 rows, against TRL's SFTTrainer: same rows, same LoRA, bf16.

    .venv/bin/python benchmarks/training_step.py ROWS.json [--steps 3] [--name training_step-xquad]

Both sides take the same rows of the file in each step, in turns; the first step of every warms up.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import Peer, argument_parser, ratio, write_result

from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import Renderer
from loracle.experiment.setup import TrainingSet
from loracle.forest.attention.interface import ATTENTION_NAME, attention_implementation
from loracle.forest.trie import Sequences
from loracle.model import adapter
from loracle.model.base import BaseModel, input_casting_off, load_base, load_tokenizer
from loracle.model.embedded import embedded_model_folder
from loracle.training.loop import AUTO_BUDGET_TOKENS, accumulate_gradient, take

ROWS_PER_STEP = 64
LORA = {"r": 8, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of every side")
    parser.add_argument("--peer", nargs="*", default=[], help="more options for trl_step.py")
    arguments = parser.parse_args()
    folder = str(embedded_model_folder())
    base = load_base(folder, folder, load_tokenizer(folder, None, False), dtype="bfloat16")
    data = rendered(base, arguments.rows)
    ours: list[float] = []
    theirs: list[float] = []
    counts: dict[str, Any] = {}
    options = [f"--{option}" for option in arguments.peer]
    with Peer("trl_step.py", "--model", folder, "--rows", arguments.rows, *options) as peer:
        adapted = adapter.attach(base.model, adapter.lora_config(LORA), 0)
        optimizer = torch.optim.AdamW([p for _, p in adapter.trainable(adapted)], lr=1e-3)
        casting_off = input_casting_off(base.dtype, adapted)
        with attention_implementation(base.model, ATTENTION_NAME), casting_off:
            adapted.train()
            for step in range(arguments.steps + 1):
                first = step * ROWS_PER_STEP
                batch = take(data, np.arange(first, first + ROWS_PER_STEP))
                started = time.perf_counter()
                loss, num_computed = our_step(base, adapted, optimizer, batch)
                seconds = time.perf_counter() - started
                answer = peer.ask("step")
                print(f"step {step}: ours {seconds:.2f} s, TRL {answer['seconds']:.2f} s")
                if step:
                    ours.append(seconds)
                    theirs.append(answer["seconds"])
                    counts.setdefault("rows", []).append(
                        {
                            "tokens_read": len(batch.token_ids),
                            "tokens_computed": num_computed,
                            "our_loss": loss,
                            "peer_loss": answer["loss"],
                        }
                    )
    figures = {"rows_file": arguments.rows.name, "trl_over_loracle": ratio(theirs, ours), **counts}
    write_result(arguments.name, "training_step", figures)


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
