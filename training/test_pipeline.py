"""Does the whole chain work here? A smoke test with two tiny datasets, not part of the test suite.

    cd training && python test_pipeline.py [--model embedded] [--keep results]
    cd training && pytest test_*.py        the same parts; LORACLE_SMOKE_MODEL names another model

Prints PASS or FAIL for each part. Exit codes: 0 all passed, 1 a part failed, 2 the model cannot
be used.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# Run by its path, python looks for modules in training/ and not above it.
sys.path.insert(0, str(REPOSITORY))

from loracle.data.hubs.fetching import fetch_plan_model  # noqa: E402
from loracle.errors import LoracleError, UserError  # noqa: E402
from loracle.experiment.setup import load_model  # noqa: E402
from loracle.model.base import BaseModel  # noqa: E402
from loracle.plan import load_unmeasured_plan  # noqa: E402
from training.evaluate_module import evaluate_model_on_dataset_with_progress  # noqa: E402
from training.pipeline_module import run_pipeline_with_progress  # noqa: E402
from training.train_module import train_model_on_dataset_with_progress  # noqa: E402

LORA_CONFIG_DIR = REPOSITORY / "lora_configs"
CONFIG_NAME = "qwen_lora_config"
TRAINING_ARGS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
}
GENERATION_KWARGS = {"max_new_tokens": 8}

CAPITALS = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "Norway": "Oslo",
    "Egypt": "Cairo",
    "Cuba": "Havana",
    "Ghana": "Accra",
}


@dataclass
class Bench:
    """What the parts share. `trained`: what training returned, for the parts after it."""

    model: Any
    tokenizer: Any
    model_path: str
    folder: Path
    trained: dict[str, Any] = field(default_factory=dict)

    @property
    def datasets(self) -> tuple[Path, Path, Path]:
        """Rows of question, answer and context; rows of messages; the questions to measure on."""
        return (
            self.folder / "capitals.jsonl",
            self.folder / "chat.jsonl",
            self.folder / "test.jsonl",
        )


def loaded(name: str) -> BaseModel:
    """The model of that name, as the pipeline loads it. Raises ModelError."""
    plan = load_unmeasured_plan(candidates=["unused.jsonl"], model=name)
    fetched = fetch_plan_model(plan.model, None)
    return load_model(plan, fetched.folder if fetched else None)


def write_datasets(bench: Bench) -> None:
    """Write the two training files and the evaluation file."""
    question_rows: list[dict[str, Any]] = [
        {
            "context": f"The capital of {country} is {capital}.",
            "question": f"What is the capital of {country}?",
            "answer": capital,
        }
        for country, capital in CAPITALS.items()
    ]
    chat_rows: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": f"Where is {capital}?"},
                {"role": "assistant", "content": f"In {country}."},
            ]
        }
        for country, capital in CAPITALS.items()
    ]
    for path, rows in zip(
        bench.datasets, (question_rows[:6], chat_rows, question_rows[6:]), strict=True
    ):
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def check_training(bench: Bench) -> str:
    """Training returns an adapter and a finite loss."""
    bench.trained = train_model_on_dataset_with_progress(
        bench.model,
        bench.tokenizer,
        bench.datasets[0],
        LORA_CONFIG_DIR,
        CONFIG_NAME,
        training_args=TRAINING_ARGS,
        log_dir=bench.folder,
    )
    _require(math.isfinite(bench.trained["final_loss"]), "the loss is finite")
    _require(bench.trained["num_steps"] == 2, "6 rows in batches of 8, 2 epochs, are 2 steps")
    return f"loss {bench.trained['losses'][0]:.3f} -> {bench.trained['final_loss']:.3f}"


def check_evaluation(bench: Bench) -> str:
    """The adapter answers every question, and the scores are per cent."""
    scores = evaluate_model_on_dataset_with_progress(
        bench.trained["model"],
        bench.tokenizer,
        bench.datasets[2],
        generation_kwargs=GENERATION_KWARGS,
        log_dir=bench.folder,
    )
    _require(scores["has_adapter"], "the adapter answers")
    _require(len(scores["predictions"]) == 2, "both questions are answered")
    _require(0 <= scores["exact_match"] <= scores["f1"] <= 100, "EM and F1 are per cent")
    return f"EM {scores['exact_match']:.1f}, F1 {scores['f1']:.1f}"


def check_pipeline(bench: Bench) -> str:
    """Two datasets are trained on and measured, a third one that is not there fails alone."""
    questions, chat, test = bench.datasets
    output_path = bench.folder / "results" / "summary.json"
    results = run_pipeline_with_progress(
        [(questions, test), (chat, test), (bench.folder / "missing.jsonl", test)],
        bench.model_path,
        LORA_CONFIG_DIR,
        CONFIG_NAME,
        output_path,
        training_args=TRAINING_ARGS,
        evaluation_generation_kwargs=GENERATION_KWARGS,
    )
    found = [entry["status"] for entry in results["datasets"]]
    _require(found == ["completed", "completed", "failed"], f"two of three work; found {found}")
    written = json.loads(output_path.read_text(encoding="utf-8"))
    _require(written == results, "the file holds what is returned")
    for name in ("training.log", "evaluation.log", "pipeline.log"):
        _require((output_path.parent / name).stat().st_size > 0, f"{name} is written")
    return str(results["summary"]["reason"])


PARTS: dict[str, Callable[[Bench], str]] = {
    "train_module": check_training,
    "evaluate_module": check_evaluation,
    "pipeline_module": check_pipeline,
}


def run_parts(bench: Bench) -> int:
    """Run every part; returns how many failed."""
    num_failed = 0
    for name, check in PARTS.items():
        try:
            outcome = f"PASS {name}: {check(bench)}"
        except LoracleError as error:
            outcome = f"FAIL {name}: {error}"
        # Whatever it is, the next part is still worth running.
        except Exception:  # noqa: BLE001
            outcome = f"FAIL {name}:\n{traceback.format_exc()}"
        num_failed += outcome.startswith("FAIL")
        print(outcome, flush=True)
    return num_failed


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="embedded", help="a folder, a hub id, or embedded")
    parser.add_argument("--keep", type=Path, help="keep datasets and results in this folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            base = loaded(options.model)
        except UserError as error:
            print(f"FAIL model: {error}")
            return 2
        bench = Bench(base.model, base.tokenizer, options.model, folder)
        write_datasets(bench)
        num_failed = run_parts(bench)
    print(f"{len(PARTS) - num_failed} of {len(PARTS)} parts passed")
    return 1 if num_failed else 0


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    name = os.environ.get("LORACLE_SMOKE_MODEL", "embedded")
    base = loaded(name)
    shared = Bench(base.model, base.tokenizer, name, tmp_path_factory.mktemp("smoke"))
    write_datasets(shared)
    return shared


def test_training_returns_an_adapter_and_a_finite_loss(bench: Bench) -> None:
    check_training(bench)


def test_the_adapter_answers_every_question(bench: Bench) -> None:
    if not bench.trained:
        check_training(bench)
    check_evaluation(bench)


def test_a_missing_dataset_fails_alone_in_the_pipeline(bench: Bench) -> None:
    check_pipeline(bench)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"not so: {what}")


if __name__ == "__main__":
    sys.exit(main())
