"""(c) The whole job: train and evaluate every candidate, and evaluate the base.

    .venv/bin/python benchmarks/whole_job.py --eval EVAL.json CANDIDATE.json ... \
        [--num-rows 64] [--num-eval-rows 48] [--epochs 2]

Against the sequential way: the base loaded anew for each candidate, TRL, `generate` in batches of
8. Both sides cut the files alike; ours is the command `loracle run`, start to end, twice.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

from turns import ROOT, Peer, argument_parser, ratio, write_result

from loracle.embedded import embedded_model_folder


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("candidates", type=Path, nargs="+")
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--num-rows", type=int, default=64)
    parser.add_argument("--num-eval-rows", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    folder = embedded_model_folder()
    with tempfile.TemporaryDirectory() as scratch:
        plan = Path(scratch) / "plan.yaml"
        plan.write_text(json.dumps(our_plan(arguments)))
        ours = [our_run(plan, Path(scratch) / "first")]
        started = time.perf_counter()
        parts = []
        cuts = ["--num-rows", arguments.num_rows, "--num-eval-rows", arguments.num_eval_rows]
        with Peer(
            "sequential_job.py",
            *("--model", folder, "--eval", arguments.eval, "--epochs", arguments.epochs),
            *("--out", Path(scratch) / "peer", *cuts),
        ) as peer:
            for candidate in arguments.candidates:
                parts.append(peer.ask(f"candidate {candidate}"))
                print(parts[-1])
            parts.append(peer.ask("base"))
        theirs = time.perf_counter() - started
        ours.append(our_run(plan, Path(scratch) / "second"))
    figures = {
        "num_candidates": len(arguments.candidates),
        "num_rows": arguments.num_rows,
        "num_eval_rows": arguments.num_eval_rows,
        "epochs": arguments.epochs,
        "sequential_over_loracle": ratio([theirs, theirs], ours),
        "peer_parts": parts,
    }
    write_result(arguments.name, "whole_job", figures)


def our_plan(arguments: object) -> dict[str, object]:
    values = vars(arguments)
    rows, eval_rows = values["num_rows"], values["num_eval_rows"]
    candidates = [{"path": str(p.resolve()), "limit": rows} for p in values["candidates"]]
    return {
        "model": "embedded",
        "candidates": candidates,
        "evaluation": [{"path": str(values["eval"].resolve()), "limit": eval_rows}],
        "training": {"epochs": values["epochs"], "batch_size": 64, "learning_rate": 1e-3},
    }


def our_run(plan: Path, out: Path) -> float:
    started = time.perf_counter()
    command = [ROOT / ".venv/bin/loracle", "run", "--plan", plan, "--out", out]
    subprocess.run([str(part) for part in command], check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
