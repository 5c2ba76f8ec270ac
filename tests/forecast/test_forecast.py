"""Forecasts against what training really does: tokens to the token, memory to the byte kept."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loracle.errors import PlanError
from loracle.forecast.batch import recommended_batch_size
from loracle.forecast.choosing import chosen
from loracle.forecast.counting import counted_shape
from loracle.forecast.foresee import Request, foresee, largest_micro_batch
from loracle.forecast.machines import Machine, named_machine, process_bytes
from loracle.forecast.record import (
    Forecast,
    ForecastRecord,
    read_forecast,
    write_forecast,
)
from loracle.forecast.seconds import training_flops
from loracle.forecast.work import Rows, answering_work, measured, training_work
from loracle.forest.trie import Sequences, build_forest
from loracle.model import adapter
from loracle.model.base import wrap_base
from loracle.model.step_memory import MicroBatch, ModelShape
from loracle.training import loop
from loracle.training.mode import training_mode
from tests import tiny
from tests.forecast import measured_step

LORA = {"r": 4, "alpha": 8, "dropout": 0.1, "target_modules": "all-linear"}
SETTINGS = measured_step.settings_of(
    {"num_rows": 6, "budget_tokens": 256, "gradient_checkpointing": False}
)
CPU = Machine("here", "cpu", 1, 10**10, 1e11, 1e10, is_here=True)
# A 7B model: Qwen2.5-7B's numbers, with what a rank of 8 on all linear layers adds.
SEVEN_B = ModelShape(
    7_615_616_512, 2_200_000, 78_572, 28, 28, 3584, 152_064, 2, "cuda",
    6_525_288_448, 20_185_088, 9_000_000.0, 57_344,
)  # fmt: skip


def rows(num_passages: int = 3, num_questions: int = 4) -> Rows:
    generator = np.random.default_rng(3)
    sequences, weights, groups = [], [], []
    for passage in range(num_passages):
        shared = generator.integers(3, 90, 40).tolist()
        for _ in range(num_questions):
            own = generator.integers(3, 90, int(generator.integers(5, 20))).tolist()
            sequences.append(shared + own)
            weights.append([0.0] * (len(shared) + len(own) - 4) + [1.0] * 4)
            groups.append(passage)
    return Rows("a", Sequences.of(sequences, weights), np.array(groups))


@pytest.mark.parametrize("forest", [True, False])
def test_the_tokens_foreseen_are_the_tokens_that_training_reads_and_computes(forest: bool) -> None:
    data = rows()
    settings = dataclasses.replace(
        SETTINGS, max_steps=None, epochs=2.5, batch_size=5, forest=forest
    )
    base = wrap_base("tiny", tiny.model(), tiny.tokenizer())
    steps: list[loop.StepRecord] = []
    with adapter.attached(base.model, adapter.lora_config(LORA), 0) as adapted:
        loop.train(base, adapted, data, settings, loop.Following(steps.append, print))
    found = training_work(data, settings)
    assert found.num_steps == found.num_counted_steps == len(steps)
    assert found.tokens_read == sum(step.tokens_read for step in steps)
    assert found.tokens_computed == sum(step.tokens_computed for step in steps)
    if forest:
        assert found.tokens_computed < 0.7 * found.tokens_read


def test_of_a_long_training_some_steps_stand_for_the_others() -> None:
    data = rows(12, 4)
    settings = dataclasses.replace(SETTINGS, max_steps=None, epochs=30, batch_size=4)
    found = training_work(data, settings)
    assert found.num_counted_steps == 64 < found.num_steps == 360
    read = 30 * int(data.sequences.offsets[-1])
    assert found.tokens_read == pytest.approx(read, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_counted_without_memory_is_what_the_backward_keeps(dtype: torch.dtype) -> None:
    model = tiny.model().to(dtype)
    base = wrap_base("tiny", model, tiny.tokenizer())
    forest = build_forest(rows(2, 4).sequences, max_row_tokens=1024)
    lora = adapter.lora_config({**LORA, "dropout": 0.0})
    shape = counted_shape(model.config, lora, dtype, "cpu")
    assert shape is not None
    assert shape.kept_token_bytes is not None
    kept: dict[int, int] = {}
    with adapter.attached(model, lora, 0) as adapted:
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        assert shape.num_adapter_parameters == sum(p.numel() for _, p in adapter.trainable(adapted))

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with (
            training_mode(base, adapted, forest=True, gradient_checkpointing=False),
            loop.computing(dtype, base.device, adapted),
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        ):
            loss = loop.forest_loss(base, forest)
    batch = measured(forest)
    probabilities = batch.num_pairs * shape.num_heads * shape.num_layers * dtype.itemsize
    expected = shape.kept_token_bytes * forest.num_nodes + probabilities
    expected += shape.kept_target_bytes * batch.num_targets
    # The head's gradient at the targets, and the targets' places.
    head = batch.num_targets * (2 * shape.hidden_size * dtype.itemsize + 32)
    assert loss.requires_grad
    assert sum(kept.values()) == pytest.approx(expected, abs=head + 0.02 * expected)


def test_a_gpus_own_layers_keep_more_than_the_fused_ones_of_a_cpu() -> None:
    config, lora = tiny.model().config, adapter.lora_config(LORA)
    on_cpu = counted_shape(config, lora, torch.bfloat16, "cpu")
    on_gpu = counted_shape(config, lora, torch.bfloat16, "cuda")
    assert on_cpu is not None
    assert on_gpu is not None
    assert on_cpu.kept_token_bytes is not None
    assert on_gpu.kept_token_bytes is not None
    assert on_gpu.kept_token_bytes > 1.1 * on_cpu.kept_token_bytes


QUICK_CASES = [("small", 256, "float32", "none"), ("small", 256, "float32", "nf4")]
SIZES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
              "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048},
    "middle": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 12,
               "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 16384},
    "135M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
             "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152},
}  # fmt: skip


def case_of(
    size: str, num_tokens: int, dtype: str, quantization: str, checkpointing: bool
) -> dict[str, Any]:
    """A case as measured_step takes it."""
    return {
        "config": SIZES[size], "num_tokens": num_tokens, "num_rows": 1024 // num_tokens,
        "budget_tokens": 2048, "gradient_checkpointing": checkpointing, "dtype": dtype,
        "quantization": quantization,
    }  # fmt: skip


@cache
def measured_peaks(*cases: str) -> list[int]:
    """The peaks of cases as JSON in bytes, one after the other in a process of their own."""
    asked = subprocess.run(
        [sys.executable, "-m", "tests.forecast.measured_step", *cases],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=500,
        check=True,
    )
    return [json.loads(line)["peak"] for line in asked.stdout.splitlines()]


def measured_peak(*case: Any) -> int:
    """Of a case by itself; quick ones share a process, since most of their time is its imports.

    Their peaks are up to 1.5% higher than by themselves.
    """
    quick = [(*quick, way) for quick in QUICK_CASES for way in (False, True)]
    together = quick if case in quick else [case]
    peaks = measured_peaks(*(json.dumps(case_of(*one)) for one in together))
    return peaks[together.index(case)]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("size", "num_tokens", "dtype", "quantization"),
    [
        pytest.param(*case, marks=() if case in QUICK_CASES else pytest.mark.slow)
        for case in product(
            SIZES, (256, 512, 1024), ("float32", "bfloat16"), ("none", "int8", "nf4")
        )
    ],
)
def test_the_peak_memory_of_a_process_is_foreseen_within_15_percent(
    size: str, num_tokens: int, dtype: str, quantization: str, checkpointing: bool
) -> None:
    if quantization != "none":
        pytest.importorskip("bitsandbytes")
    case = case_of(size, num_tokens, dtype, quantization, checkpointing)
    lora = adapter.lora_config(measured_step.LORA)
    config = measured_step.config_of(case)
    shape = counted_shape(config, lora, getattr(torch, dtype), "cpu", quantization=quantization)
    assert shape is not None
    work = training_work(
        Rows("a", measured_step.rows_of(case), np.arange(case["num_rows"])),
        measured_step.settings_of(case),
    )
    found = process_bytes("cpu") + shape.step_memory(work.largest, checkpointing).total
    peak = measured_peak(size, num_tokens, dtype, quantization, checkpointing)
    assert found == pytest.approx(peak, rel=0.15)


def test_checkpointing_and_quantisation_take_less_and_more_tokens_take_more() -> None:
    row = MicroBatch.of_row(2048)
    plain = SEVEN_B.step_memory(row, False)
    checkpointed = SEVEN_B.step_memory(row, True)
    assert checkpointed.activations < plain.activations / 5
    quantised = dataclasses.replace(SEVEN_B, quantization="nf4")
    # 15 GB in half precision; nf4 leaves embeddings and head as they are.
    assert 15.0e9 < SEVEN_B.weight_bytes < 15.5e9
    assert 5.0e9 < quantised.weight_bytes < 6.0e9
    eight = dataclasses.replace(SEVEN_B, quantization="int8")
    assert quantised.weight_bytes < eight.weight_bytes < SEVEN_B.weight_bytes
    assert SEVEN_B.step_memory(MicroBatch.of_row(4096), False).total > plain.total


def test_the_largest_micro_batch_fits_and_one_more_does_not() -> None:
    machine = named_machine("rtx4090", None, 1)
    quantised = dataclasses.replace(SEVEN_B, quantization="nf4")
    largest = largest_micro_batch(quantised, machine, 512, False)
    usable = 0.9 * machine.memory_bytes - process_bytes("cuda")

    def needed(tokens: int) -> int:
        batch = MicroBatch(tokens, tokens * 512, tokens, 512)
        return quantised.step_memory(batch, False).total

    assert largest > 0
    assert needed(largest) <= usable < needed(largest + 256)
    assert largest_micro_batch(SEVEN_B, named_machine(None, "12GB", 1), 512, True) == 0


def test_auto_turns_checkpointing_on_only_where_it_is_needed() -> None:
    roomy, tight = named_machine("h200", None, 1), named_machine("rtx4090", None, 1)
    assert chosen("auto", "auto", SEVEN_B, roomy, 512) == (loop.AUTO_BUDGET_TOKENS["cuda"] // 1
        if largest_micro_batch(SEVEN_B, roomy, 512, False) >= loop.AUTO_BUDGET_TOKENS["cuda"]
        else largest_micro_batch(SEVEN_B, roomy, 512, False), False)  # fmt: skip
    found = chosen("auto", "auto", SEVEN_B, tight, 512)
    assert found.gradient_checkpointing
    assert found.budget_tokens == largest_micro_batch(SEVEN_B, tight, 512, True)
    assert chosen(777, False, SEVEN_B, tight, 512) == (777, False)
    assert chosen("auto", "auto", None, CPU, 512) == (loop.AUTO_BUDGET_TOKENS["cpu"], False)


def forecast(machine: Machine, shape: ModelShape = SEVEN_B, **changes: Any) -> Forecast:
    prompts = Sequences.of([list(range(300))] * 8)
    data = rows()
    training = training_work(data, SETTINGS)
    training = dataclasses.replace(training, largest=MicroBatch.of_row(600))
    request = Request(
        model="m", dtype="bfloat16", shape=shape, training={"a": training, "b": training},
        answering=[answering_work(prompts, [10] * 8, 4, 2048)],
        base_answering=[answering_work(prompts, [40] * 8, 4, 2048)],
        num_seeds=1, micro_batch_tokens=600, gradient_checkpointing=False, longest_row=600,
    )  # fmt: skip
    return foresee(dataclasses.replace(request, **changes), machine)


def test_what_does_not_fit_comes_with_what_would_help() -> None:
    found = forecast(named_machine("rtx4090", None, 1))
    assert not found.fits
    assert found.advice[0].startswith("training.gradient_checkpointing: true")
    less = forecast(named_machine(None, "12GB", 1))
    assert any(line.startswith("model.quantization: nf4") for line in less.advice)
    nothing = forecast(named_machine(None, "2GB", 1))
    assert any("choose a smaller model" in line for line in nothing.advice)
    assert forecast(named_machine("h100", None, 1)).fits
    assert forecast(named_machine("h100", None, 1)).advice == ()


def test_a_full_disk_is_foreseen() -> None:
    found = forecast(named_machine("h100", None, 1), free_disk_bytes=1000)
    assert "its disk has 1.0 kB free" in found.advice[0]


def test_two_cards_take_half_the_time_of_the_trials_and_the_price_of_both() -> None:
    one = forecast(named_machine("h100", None, 1), price_per_hour=2.0)
    two = forecast(named_machine("h100", None, 2), price_per_hour=2.0)
    assert one.price == pytest.approx(2.0 * one.seconds / 3600)
    assert two.price == pytest.approx(4.0 * two.seconds / 3600)
    trials = one.seconds - one.base_answering_seconds
    assert two.seconds == pytest.approx(one.base_answering_seconds + trials / 2)


def test_a_probe_decides_the_rate() -> None:
    machine = named_machine("h100", None, 1)
    found = forecast(machine, probed_flops=1e12)
    work = training_work(rows(), SETTINGS)
    expected = training_flops(work, SEVEN_B, False) / 1e12
    assert found.candidates[0].training_seconds == pytest.approx(expected)


def test_drafts_aside_answering_computes_shared_prompts_once_a_batch() -> None:
    shared = list(range(100))
    prompts = Sequences.of([[*shared, 1000 + i] for i in range(6)])
    found = answering_work(prompts, [5, 9, 2, 1, 1, 7], 3, 2048)
    assert (found.tokens_read, found.tokens_computed) == (606, 2 * 103)
    assert (found.num_steps, found.num_new_tokens) == (9 + 7, 25)


def test_cards_are_named_freely_and_unknown_ones_refused() -> None:
    assert named_machine("RTX 4090", None, 1).name == "NVIDIA RTX 4090"
    assert named_machine("4090", "20GiB", 2).memory_bytes == 20 * 2**30
    with pytest.raises(PlanError, match="did you mean rtx4090"):
        named_machine("rtx409", None, 1)
    with pytest.raises(PlanError, match="expected one such as 24GB"):
        named_machine(None, "much", 1)


def test_a_record_reads_as_it_was_written_and_measured_parts_add_up(tmp_path: Path) -> None:
    record = ForecastRecord("f00", forecast(named_machine("h100", None, 1)))
    write_forecast(tmp_path, record)
    assert read_forecast(tmp_path) == record
    twice = record.with_measured(500, 10.0).with_measured(300, 5.0)
    write_forecast(tmp_path, twice)
    read = read_forecast(tmp_path)
    assert read is not None
    assert read.measured is not None
    assert (read.measured.peak_memory_bytes, read.measured.seconds) == (500, 15.0)
    (tmp_path / "forecast.json").write_text("{")
    assert read_forecast(tmp_path) is None


def test_a_batch_is_recommended_by_memory_and_never_none() -> None:
    model = tiny.model()
    found = [
        recommended_batch_size(model, [400, 300], 40, free_bytes=free)
        for free in (10**9, 30_000_000, 9_000_000, 10)
    ]
    assert found[0] == 64
    assert found[-1] == 1
    assert all(a >= b for a, b in pairwise(found))
