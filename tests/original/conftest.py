"""Files as a user of the original system has them, and a tiny model in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

TRAINING_ARGS = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
GENERATION_KWARGS = {"max_new_tokens": 6}


def question_rows(num_passages: int = 4, num_questions: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "id": f"p{p}q{q}",
            "context": f"Box {p} holds {p + 3} red pens and {p} cups.",
            "question": f"How many in {'abcdefghi'[q]}?",
            "answer": f"{p} of {q}",
        }
        for p in range(num_passages)
        for q in range(num_questions)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The functions write their logs into the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train_path(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "boxes.jsonl", question_rows())


@pytest.fixture
def eval_path(tmp_path: Path) -> Path:
    rows = question_rows(num_passages=2, num_questions=2)
    return write_rows(tmp_path / "test.jsonl", [{**row, "id": f"t-{row['id']}"} for row in rows])


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes lora_configs/NAME.json; returns the folder."""

    def write(name: str = "small", **changes: Any) -> Path:
        folder = tmp_path / "lora_configs"
        folder.mkdir(exist_ok=True)
        config = {
            "r": 4,
            "lora_alpha": 8,
            "lora_dropout": 0.0,
            "target_modules": ["q_proj", "v_proj"],
            "bias": "none",
            **changes,
        }
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def config_dir(write_config: Callable[..., Path]) -> Path:
    return write_config()


@pytest.fixture
def model() -> Any:
    return tiny.model(num_hidden_layers=2, hidden_size=32)


@pytest.fixture
def tokenizer() -> Any:
    return tiny.tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return tiny.save_model(folder, num_hidden_layers=2, hidden_size=32)
