"""The code blocks of the original description, with only paths and the model's folder changed.

They run on the embedded model: the pipeline on all of it, the others on its first layers. The
settings are those of the description: lora_configs/qwen_lora_config.json, training_args,
generation_kwargs. Its way of loading a model in 8 bits is in test_quantised_models.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from loracle.errors import DataError
from loracle.model import source
from tests import cut_model
from tests.original.conftest import write_rows
from training.evaluate_module import evaluate_model_on_dataset_with_progress
from training.pipeline_module import run_pipeline_with_progress, run_training_evaluation_pipeline
from training.train_module import train_model_on_dataset_with_progress

LORA_CONFIG_DIR = str(Path(__file__).resolve().parents[2] / "lora_configs")

training_args = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "learning_rate": 2e-4,
    "max_grad_norm": 0.3,
    "warmup_ratio": 0.03,
}

generation_kwargs = {
    "max_new_tokens": 40,
    "do_sample": False,
    "temperature": 1.0,
    "repetition_penalty": 1.1,
    "num_beams": 1,
    "early_stopping": True,
}

CITIES = (("France", "Paris"), ("Japan", "Tokyo"), ("Kenya", "Nairobi"), ("Peru", "Lima"))


@pytest.fixture
def datasets(tmp_path: Path) -> tuple[str, str]:
    rows = [
        {
            "context": f"{place} is a country. Its capital, the seat of its government, is {city}.",
            "question": f"What is the capital of {place}?",
            "answer": city,
        }
        for place, city in CITIES
    ]
    trained = write_rows(tmp_path / "train.json", rows[:3])
    return str(trained), str(write_rows(tmp_path / "eval.json", rows[3:]))


@pytest.fixture
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = str(cut_model.folder(tmp_path_factory))
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="auto")
    return model, AutoTokenizer.from_pretrained(folder)


def test_the_lora_config_is_the_descriptions() -> None:
    config = json.loads((Path(LORA_CONFIG_DIR) / "qwen_lora_config.json").read_text())
    assert config == {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "bias": "none",
    }


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:generation_kwargs.early_stopping")
def test_usage_train_then_evaluate(
    embedded: tuple[Any, Any], datasets: tuple[str, str], tmp_path: Path
) -> None:
    model, tokenizer = embedded
    train_result = train_model_on_dataset_with_progress(
        model=model,
        tokenizer=tokenizer,
        train_dataset_path=datasets[0],
        lora_config_dir=LORA_CONFIG_DIR,
        config_name="qwen_lora_config",
        dataset_index=1,
        total_datasets=1,
        training_args=training_args,
    )
    eval_result = evaluate_model_on_dataset_with_progress(
        model=train_result["model"],
        tokenizer=tokenizer,
        eval_dataset_path=datasets[1],
        dataset_index=1,
        total_datasets=1,
        batch_size=None,
        generation_kwargs=generation_kwargs,
    )
    assert train_result["num_steps"] == 1
    assert 0 <= eval_result["em"] == eval_result["exact_match"] <= eval_result["f1"] <= 100
    for name in ("training.log", "evaluation.log", "pipeline.log"):
        assert (tmp_path / name).stat().st_size > 0


def require_pipeline(function: Any, datasets: tuple[str, str], tmp_path: Path) -> None:
    results = function(
        dataset_paths=[datasets],
        model_path="embedded",
        lora_config_dir=LORA_CONFIG_DIR,
        config_name="qwen_lora_config",
        result_output_path=str(tmp_path / "results" / "pipeline_results.json"),
        training_args=training_args,
        evaluation_batch_size=None,
        evaluation_generation_kwargs=generation_kwargs,
    )
    assert results["status"] == "completed"
    assert json.loads((tmp_path / "results" / "pipeline_results.json").read_text()) == results


@pytest.mark.long
def test_usage_the_pipeline(datasets: tuple[str, str], tmp_path: Path) -> None:
    require_pipeline(run_training_evaluation_pipeline, datasets, tmp_path)


@pytest.mark.long
def test_usage_the_pipeline_with_progress(
    datasets: tuple[str, str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = cut_model.folder(tmp_path_factory)
    monkeypatch.setattr(source, "embedded_model_folder", lambda: cut)
    require_pipeline(run_pipeline_with_progress, datasets, tmp_path)


def test_usage_the_pipeline_with_a_file_of_one_row_names_the_way_out(tmp_path: Path) -> None:
    row = {"context": "Peru.", "question": "What?", "answer": "A country"}
    with pytest.raises(DataError, match=r"name an evaluation file: \(train, eval\)"):
        run_training_evaluation_pipeline(
            dataset_paths=[str(write_rows(tmp_path / "one.json", [row]))],
            model_path="embedded",
            lora_config_dir=LORA_CONFIG_DIR,
            config_name="qwen_lora_config",
            result_output_path=str(tmp_path / "results.json"),
            training_args=training_args,
            evaluation_generation_kwargs=generation_kwargs,
        )


@pytest.mark.slow
def test_eight_datasets_in_a_row_grow_by_less_than_50_mb_after_the_third(
    datasets: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loracle.experiment import attempt

    sizes: list[int] = []
    attempt_run_trial = attempt.run_trial

    def measured(*arguments: Any) -> Any:
        summary = attempt_run_trial(*arguments)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(pages * 4096)
        return summary

    monkeypatch.setattr(attempt, "run_trial", measured)
    text = Path(datasets[0]).read_text()
    paths = []
    for i in range(8):
        (tmp_path / f"d{i}.json").write_text(text)
        paths.append((str(tmp_path / f"d{i}.json"), datasets[1]))
    run_training_evaluation_pipeline(
        *(paths, "embedded", LORA_CONFIG_DIR, "qwen_lora_config", tmp_path / "results.json"),
        training_args=training_args,
        evaluation_generation_kwargs=generation_kwargs,
    )
    assert len(sizes) == 8
    # The level, and not what one moment has: freed memory goes back with some delay.
    assert median(sizes[-3:]) - sizes[2] < 50e6, str([size // 10**6 for size in sizes])
