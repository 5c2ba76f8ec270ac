"""(c) The whole job: train and evaluate every candidate, and evaluate the base.

    .venv/bin/python benchmarks/whole_job.py --eval EVAL.json CANDIDATE.json ... \
        [--first-row 64] [--num-rows 64] [--num-eval-rows 48] [--epochs 2]

Against the sequential way: the base loaded again for each candidate, TRL, `generate` in batches of
8. Both sides read the same cut files; ours is the command `loracle run`, start to end, twice.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

from turns import ROOT, Peer, argument_parser, ratio, write_result

from loracle.model.embedded import embedded_model_folder


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("candidates", type=Path, nargs="+")
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--first-row", type=int, default=0, help="of the candidates, from 0")
    parser.add_argument("--num-rows", type=int, default=64)
    parser.add_argument("--num-eval-rows", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    folder = embedded_model_folder()
    with tempfile.TemporaryDirectory() as scratch:
        first, stop = arguments.first_row, arguments.first_row + arguments.num_rows
        candidates = [cut(path, first, stop, Path(scratch)) for path in arguments.candidates]
        evaluation = cut(arguments.eval, 0, arguments.num_eval_rows, Path(scratch))
        plan = Path(scratch) / "plan.yaml"
        plan.write_text(json.dumps(our_plan(candidates, evaluation, arguments.epochs)))
        ours = [our_run(plan, Path(scratch) / "first")]
        started = time.perf_counter()
        parts = []
        with Peer(
            "sequential_job.py",
            *("--model", folder, "--eval", evaluation, "--epochs", arguments.epochs),
            *("--out", Path(scratch) / "peer"),
        ) as peer:
            for candidate in candidates:
                parts.append(peer.ask(f"candidate {candidate}"))
                print(parts[-1])
            parts.append(peer.ask("base"))
        theirs = time.perf_counter() - started
        ours.append(our_run(plan, Path(scratch) / "second"))
    figures = {
        "num_candidates": len(arguments.candidates),
        "first_row": arguments.first_row,
        "num_rows": arguments.num_rows,
        "num_eval_rows": arguments.num_eval_rows,
        "epochs": arguments.epochs,
        "sequential_over_loracle": ratio([theirs, theirs], ours),
        "peer_parts": parts,
    }
    write_result(arguments.name, "whole_job", figures)


def cut(path: Path, first: int, stop: int, folder: Path) -> Path:
    """A file with rows `first` to `stop` of a JSON array."""
    rows = json.loads(path.read_text())[first:stop]
    file = folder / path.name
    file.write_text(json.dumps(rows, ensure_ascii=False))
    return file


def our_plan(candidates: list[Path], evaluation: Path, epochs: int) -> dict[str, object]:
    return {
        "model": "embedded",
        "candidates": [str(path) for path in candidates],
        "evaluation": [str(evaluation)],
        "training": {"epochs": epochs, "batch_size": 64, "learning_rate": 1e-3},
    }


def our_run(plan: Path, out: Path) -> float:
    started = time.perf_counter()
    command = [ROOT / ".venv/bin/loracle", "run", "--plan", plan, "--out", out]
    subprocess.run([str(part) for part in command], check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
