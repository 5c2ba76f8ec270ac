"""A model that the caller loaded in 8 or 4 bits, with a device map, as the description shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from loracle.model.base import base_fingerprint
from tests import tiny
from tests.original.conftest import GENERATION_KWARGS, TRAINING_ARGS, question_rows, write_rows
from training.evaluate_module import evaluate_model_on_dataset_with_progress
from training.train_module import train_model_on_dataset_with_progress

LOADED = {
    "8-bit, float16": (BitsAndBytesConfig(load_in_8bit=True), torch.float16),
    "4-bit, bfloat16": (
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        torch.bfloat16,
    ),
}


@pytest.mark.parametrize("how", LOADED)
def test_a_model_quantised_by_the_caller_is_trained_and_evaluated(how: str, tmp_path: Path) -> None:
    folder = tiny.save_model(tmp_path / "model", hidden_size=64, intermediate_size=128)
    quantization, dtype = LOADED[how]
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantization, device_map="auto", dtype=dtype
    )
    before = base_fingerprint(model)
    rows = write_rows(tmp_path / "a.jsonl", question_rows(2, 2))
    (tmp_path / "configs").mkdir()
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (tmp_path / "configs" / "small.json").write_text(json.dumps(settings))
    trained = train_model_on_dataset_with_progress(
        model,
        tiny.tokenizer(),
        rows,
        tmp_path / "configs",
        "small",
        training_args={**TRAINING_ARGS, "max_steps": 1},
    )
    assert trained["status"] == "completed"
    assert trained["batching"] == "forest", trained["batching_reason"]
    scores = evaluate_model_on_dataset_with_progress(
        trained["model"], tiny.tokenizer(), rows, generation_kwargs=GENERATION_KWARGS
    )
    assert 0 <= scores["f1"] <= 100
    assert base_fingerprint(trained["model"].unload()) == before


@pytest.mark.slow
def test_the_description_s_own_loading_trains_on_the_forest(tmp_path: Path) -> None:
    """The embedded model in 8 bits and float16, with the shipped LoRA config: one real step."""
    embedded = pytest.importorskip("loracle.model.embedded")
    folder = str(embedded.embedded_model_folder())
    quantization, dtype = LOADED["8-bit, float16"]
    model = AutoModelForCausalLM.from_pretrained(
        folder, device_map="auto", torch_dtype=dtype, quantization_config=quantization
    )
    trained = train_model_on_dataset_with_progress(
        model,
        AutoTokenizer.from_pretrained(folder),
        write_rows(tmp_path / "a.jsonl", question_rows(1, 2)),
        Path(__file__).resolve().parents[2] / "lora_configs",
        "qwen_lora_config",
        training_args={**TRAINING_ARGS, "max_steps": 1},
    )
    assert trained["num_steps"] == 1
    assert trained["batching"] == "forest", trained["batching_reason"]
    assert trained["adapter_fingerprint"] != trained["initial_adapter_fingerprint"]
