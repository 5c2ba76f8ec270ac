"""A run's events for tests of what records and shows them, and the lines they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loracle.run_folder.reporter import Reporter

STEP = {
    "trial": "noisy",
    "step": 14,
    "num_steps": 56,
    "epoch": 0.5,
    "loss": 0.8123,
    "gradient_norm": 0.2,
    "learning_rate": 1e-3,
    "tokens_read": 8620,
    "tokens_computed": 2300,
    "seconds": 2.0,
}
STARTED = {
    "trial": "noisy",
    "index": 2,
    "num_trials": 5,
    "candidate": "noisy",
    "seed": 0,
    "num_examples": 1200,
    "num_steps": 56,
}
ANSWERED = {
    "trial": "noisy",
    "evaluation": "test",
    "num_done": 64,
    "num_examples": 301,
    "num_tokens": 1980,
}
FINISHED = {"run": "demo", "num_failed": 1, "seconds": 3725.0, "report": "demo/report.html"}

# One event of every kind, in the order of a run.
A_RUN: list[tuple[str, dict[str, Any]]] = [
    ("run_started", {"run": "demo", "num_trials": 5, "candidates": ["clean", "noisy"]}),
    ("dataset_read", {"name": "clean", "description": "889 rows of messages, JSON"}),
    ("checked", {"message": "clean: 889 read · 889 kept · 0 dropped · 0 shortened"}),
    ("batch_size_chosen", {"batch_size": 64}),
    ("work_planned", {"num_steps": {"clean": 40, "noisy": 56}, "num_questions": 301}),
    ("base_started", {}),
    ("base_finished", {"seconds": 4.2}),
    ("trial_skipped", {"trial": "clean", "index": 1, "num_trials": 5, "reason": "it is done"}),
    ("trial_placed", {"trial": "noisy", "device": "node7 GPU 1"}),
    ("trial_started", STARTED),
    ("trial_resumed", {"trial": "noisy", "step": 13, "num_steps": 56}),
    ("step", STEP),
    ("evaluation_started", {"trial": "noisy", "evaluation": "test", "num_examples": 301}),
    ("evaluated", ANSWERED),
    ("scored", {"trial": "noisy", "evaluation": "test", "means": {"f1": 0.61, "answer_nll": 2.5}}),
    ("trial_finished", {"trial": "noisy", "index": 2, "num_trials": 5, "seconds": 80.0}),
    ("warning", {"message": "memory ran out at step 3"}),
    ("trial_failed", {"trial": "odd", "index": 3, "num_trials": 5, "reason": "loss is nan"}),
    ("decided", {"evaluation": "test", "sentence": "Use noisy."}),
    ("run_finished", FINISHED),
]
LINES = [
    "demo started: 5 trials of clean, noisy",
    "clean: 889 rows of messages, JSON",
    "clean: 889 read · 889 kept · 0 dropped · 0 shortened",
    "questions answered together: 64, as recommended",
    "planned: 96 training steps, 903 answers",
    "[base] the untrained model",
    "[base] done in 4.2 s",
    "[1/5 clean] skipped: it is done",
    "[noisy] goes to node7 GPU 1",
    "[2/5 noisy] started: 1,200 examples, 56 steps",
    "[2/5 noisy] resumes after step 13/56",
    "[2/5 noisy] step 14/56 · loss 0.812 · 4,310 tokens/s · ETA 1 min 24 s",
    "[2/5 noisy] test: 301 questions",
    "[2/5 noisy] test: 64/301 answered · 1,980 tokens",
    "[2/5 noisy] test: f1 61.0 · answer_nll 2.500",
    "[2/5 noisy] done in 1 min 20 s",
    "warning: memory ran out at step 3",
    "[3/5 odd] failed: loss is nan",
    "Use noisy.",
    "demo finished in 1 h 02 min; 1 failed; report: demo/report.html",
]


def emit_all(reporter: Reporter) -> None:
    for kind, fields in A_RUN:
        reporter.emit(kind, **fields)


def log_lines(path: Path) -> list[str]:
    """The lines of a log without their times."""
    return [line.partition(" ")[2] for line in path.read_text(encoding="utf-8").splitlines()]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
