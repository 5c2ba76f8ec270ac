"""Which of two datasets is worth fine-tuning on? With the embedded model and the demo's data.

    python examples/compare_two_datasets.py

The same call again finds its run and trains nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import loracle

DEMO = Path(__file__).parent / "demo"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare two of the demo's datasets.")
    parser.add_argument("--out", default="runs/clean-vs-small", help="the run folder")
    parser.add_argument("--steps", type=int, default=20, help="training steps of every candidate")
    parser.add_argument("--questions", type=int, default=80, help="questions to ask")
    arguments = parser.parse_args()

    run = loracle.run(
        [DEMO / "clean.jsonl", DEMO / "small.jsonl"],
        evaluation={"path": str(DEMO / "eval.jsonl"), "limit": arguments.questions},
        model="embedded",
        out=arguments.out,
        training={"max_steps": arguments.steps, "batch_size": 8, "learning_rate": 1e-3},
        generation={"max_new_tokens": 24},
    )

    print(run.decision)
    for reason in run.decision.reasons:
        print(f"  {reason}")
    print(run.estimates())
    print(f"Report: {run.report}")
    if (winner := run.decision.recommended) is not None:
        print(f"Adapter: {run.adapter(winner)}")


if __name__ == "__main__":
    main()
