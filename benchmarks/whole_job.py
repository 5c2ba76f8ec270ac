"""(c) The whole job: train and evaluate every candidate, and evaluate the base.

    .venv/bin/python benchmarks/whole_job.py --eval EVAL.json CANDIDATE.json ... \
        [--first-row 64] [--num-rows 64] [--num-eval-rows 48] [--epochs 2]

Against the sequential way: the base loaded again for each candidate, TRL, `generate` in batches of
8. Both sides read the same cut files; ours is the command `loracle run`, start to end, twice. The
floor is that of training alone, measured after each of our runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from floor import measured_floor
from turns import (
    Peer,
    add_dtype,
    argument_parser,
    over_floor,
    precision,
    ratio,
    write_result,
)

from loracle.model.base import load_base, load_tokenizer
from loracle.model.embedded import embedded_model_folder
from loracle.model.loaded_form import LoadedForm
from loracle.training.loop import AUTO_BUDGET_TOKENS

_LORACLE = "from loracle.cli import main; main()"


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("candidates", type=Path, nargs="+")
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--first-row", type=int, default=0, help="of the candidates, from 0")
    parser.add_argument("--num-rows", type=int, default=64)
    parser.add_argument("--num-eval-rows", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=2)
    add_dtype(parser)
    arguments = parser.parse_args()
    dtype = precision(arguments.dtype)
    folder = embedded_model_folder()
    with tempfile.TemporaryDirectory() as scratch:
        first, stop = arguments.first_row, arguments.first_row + arguments.num_rows
        candidates = [cut(path, first, stop, Path(scratch)) for path in arguments.candidates]
        evaluation = cut(arguments.eval, 0, arguments.num_eval_rows, Path(scratch))
        plan = Path(scratch) / "plan.yaml"
        plan.write_text(json.dumps(our_plan(candidates, evaluation, arguments.epochs, dtype)))
        ours = [our_run(plan, Path(scratch) / "first")]
        floors = [training_floor_seconds(Path(scratch) / "first", dtype)]
        started = time.perf_counter()
        parts = []
        with Peer(
            "sequential_job.py",
            *("--model", folder, "--eval", evaluation, "--epochs", arguments.epochs),
            *("--dtype", dtype, "--eval-dtype", dtype, "--out", Path(scratch) / "peer"),
        ) as peer:
            for candidate in candidates:
                parts.append(peer.ask(f"candidate {candidate}"))
                print(parts[-1])
            parts.append(peer.ask("base"))
        theirs = time.perf_counter() - started
        ours.append(our_run(plan, Path(scratch) / "second"))
        floors.append(training_floor_seconds(Path(scratch) / "second", dtype))
    figures = {
        "num_candidates": len(arguments.candidates),
        "first_row": arguments.first_row,
        "num_rows": arguments.num_rows,
        "num_eval_rows": arguments.num_eval_rows,
        "epochs": arguments.epochs,
        "sequential_over_loracle": ratio([theirs, theirs], ours),
        "loracle_over_floor_of_training": over_floor(ours, floors),
        "peer_parts": parts,
    }
    write_result(arguments.name, "whole_job", figures, dtype)


def cut(path: Path, first: int, stop: int, folder: Path) -> Path:
    """A file with rows `first` to `stop` of a JSON array."""
    rows = json.loads(path.read_text())[first:stop]
    file = folder / path.name
    file.write_text(json.dumps(rows, ensure_ascii=False))
    return file


def our_plan(
    candidates: list[Path], evaluation: Path, epochs: int, dtype: str
) -> dict[str, object]:
    return {
        "model": {"name": "embedded", "dtype": dtype},
        "candidates": [str(path) for path in candidates],
        "evaluation": [str(evaluation)],
        "training": {"epochs": epochs, "batch_size": 64, "learning_rate": 1e-3},
    }


def our_run(plan: Path, out: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-c", _LORACLE, "run", "--plan", plan, "--out", out]
    subprocess.run([str(part) for part in command], check=True)
    return time.perf_counter() - started


def training_floor_seconds(run: Path, dtype: str) -> float:
    """The bare products of all training steps of a run; answering is not in it."""
    folder = str(embedded_model_folder())
    base = load_base(folder, folder, load_tokenizer(folder, None, False), LoadedForm(dtype))
    floor = measured_floor(base.model, AUTO_BUDGET_TOKENS["cpu"])
    num_tokens = sum(
        json.loads(line)["tokens_computed"]
        for steps in run.glob("trials/*/steps.jsonl")
        for line in steps.read_text().splitlines()
    )
    return floor.training_seconds(num_tokens, 0)


if __name__ == "__main__":
    main()
