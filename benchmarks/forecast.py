"""Foreseen against measured: time of training and answering, and peak memory of training.

    .venv/bin/python benchmarks/forecast.py [--turns 2] [--clock wall] [--without-memory]

Random models 64 to 960 wide with 2 to 32 layers, rows of 64 to 2,048 tokens, with and without
shared passages and gradient checkpointing, short and long answers, small and large vocabularies,
in the processor's precision and in float32, over int8 and nf4. --cases 3 7: only these. --fresh:
rates are measured again for every case, as on a machine that others use; otherwise in every turn.
Time is the processor's, of one thread, unless --clock says otherwise: other work on the machine
then matters less. Memory is measured in a process for each case; the file's head tells the load.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from turns import argument_parser, write_result

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loracle.forecast.counting import counted_shape
from loracle.forecast.layer_rates import LayerKind, layer_rates
from loracle.forecast.machines import Clock, Machine, measured_rates, process_bytes
from loracle.forecast.seconds import answering_seconds, training_seconds
from loracle.forecast.work import Rows, answering_work, training_work
from loracle.forest.trie import Sequences
from loracle.generation.generate import generate
from loracle.generation.types import GenerationSettings, Question
from loracle.model import adapter
from loracle.model.base import BaseModel, preferred_dtype
from loracle.model.step_memory import ModelShape
from loracle.training import loop
from tests.forecast import measured_step
from tests.forecast.test_forecast import SIZES

_MEMORY_TOKENS = 1024
_CLOCKS: dict[str, Clock] = {"processor": time.process_time, "wall": time.perf_counter}


class Case(NamedTuple):
    """A model and its rows. what: training or answering. shared_tokens: at the start of all rows.
    target_tokens: learned, of a row; None: a quarter. new_tokens: of an answer."""

    what: str
    width: int
    layers: int
    row_tokens: int
    num_rows: int
    gradient_checkpointing: bool = False
    quantization: str = "none"
    dtype: str = "auto"
    shared_tokens: int = 0
    target_tokens: int | None = None
    new_tokens: int = 16
    vocabulary: int = 4096

    def settings(self, dtype: str) -> dict[str, Any]:
        """As measured_step takes them."""
        heads = max(1, self.width // 64)
        config = {
            "hidden_size": self.width,
            "intermediate_size": (8 * self.width // 3 + 63) // 64 * 64,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 3 if heads % 3 == 0 else heads,
            "vocab_size": self.vocabulary,
        }
        targets = self.row_tokens // 4 if self.target_tokens is None else self.target_tokens
        return {
            "config": config,
            "shared_tokens": self.shared_tokens,
            "target_tokens": targets,
            "new_tokens": self.new_tokens,
            "num_tokens": self.row_tokens,
            "num_rows": self.num_rows,
            "budget_tokens": 2048,
            "gradient_checkpointing": self.gradient_checkpointing,
            "quantization": self.quantization,
            "dtype": dtype if self.dtype == "auto" else self.dtype,
        }


_SHAPES = [
    (64, 2, 64, 16), (64, 32, 64, 4), (128, 4, 256, 4), (128, 12, 1024, 1), (128, 30, 64, 8),
    (384, 12, 256, 4), (384, 2, 2048, 1), (576, 30, 256, 1), (576, 8, 1024, 2), (960, 8, 512, 1),
]  # fmt: skip
_FEW = [(128, 4, 256, 4), (384, 8, 256, 2), (576, 8, 64, 4)]
_PASSAGE = (384, 8, 320, 16)
"""Questions about one passage of 256 tokens."""
_LARGE = 49_152
"""The vocabulary of a small model that people use."""
_QUANTISED = ("int8", "nf4")
CASES = [
    *(Case("training", *shape) for shape in _SHAPES),
    *(Case("training", *shape, dtype="float32") for shape in _FEW),
    *(Case("training", *shape, gradient_checkpointing=True) for shape in _FEW),
    *(Case("training", *shape, quantization=name) for name in _QUANTISED for shape in _FEW),
    *(Case("training", *_FEW[1], True, quantization=name) for name in _QUANTISED),
    Case("training", *_FEW[1], True, dtype="float32"),
    # Shared passages, and the same rows that share nothing; several micro-batches.
    Case("training", *_PASSAGE, shared_tokens=256, target_tokens=8),
    Case("training", *_PASSAGE, target_tokens=8),
    Case("training", *_PASSAGE, quantization="int8", shared_tokens=256, target_tokens=8),
    Case("training", 576, 8, 144, 48, shared_tokens=96),
    # Short and long answers.
    Case("training", 384, 8, 256, 4, target_tokens=2, vocabulary=_LARGE),
    Case("training", 384, 8, 256, 4, target_tokens=224, vocabulary=_LARGE),
    Case("training", 576, 4, 512, 2, target_tokens=480, vocabulary=_LARGE, dtype="float32"),
    *(Case("answering", *shape) for shape in [*_FEW, (64, 16, 64, 8), (960, 8, 512, 2)]),
    *(Case("answering", *_FEW[1], quantization=name) for name in _QUANTISED),
    Case("answering", *_FEW[1], dtype="float32"),
    Case("answering", *_PASSAGE, shared_tokens=256),
    Case("answering", *_PASSAGE, new_tokens=2),
    Case("answering", *_FEW[1], new_tokens=64, vocabulary=_LARGE),
    Case("answering", 576, 8, 64, 32, new_tokens=4, vocabulary=_LARGE),
    Case("answering", *_PASSAGE, quantization="nf4", shared_tokens=256),
]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--clock", choices=list(_CLOCKS), default="processor")
    parser.add_argument("--without-memory", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--cases", type=int, nargs="+", choices=range(len(CASES)))
    arguments = parser.parse_args()
    if arguments.clock == "processor":
        torch.set_num_threads(1)
    clock, dtype = _CLOCKS[arguments.clock], _name(preferred_dtype(torch.device("cpu")))
    cases = [CASES[number] for number in arguments.cases or range(len(CASES))]
    turns = [timed_turn(cases, dtype, clock, fresh=arguments.fresh) for _ in range(arguments.turns)]
    rows = [
        {**case._asdict(), **_median(parts)} for case, *parts in zip(cases, *turns, strict=True)
    ]
    memory = [] if arguments.without_memory else memory_rows(dtype)
    figures = {
        "clock": arguments.clock,
        "fresh_rates": arguments.fresh,
        "threads": torch.get_num_threads(),
        "largest_time_error": max(abs(row["ratio"] - 1) for row in rows),
        "within_25_percent": sum(abs(row["ratio"] - 1) <= 0.25 for row in rows),
        "num_times": len(rows),
        "times": rows,
        "largest_memory_error": max((abs(row["ratio"] - 1) for row in memory), default=None),
        "memory": memory,
    }
    write_result(arguments.name, "forecast", figures, dtype)


def timed_turn(
    cases: Sequence[Case], dtype: str, clock: Clock, *, fresh: bool
) -> list[tuple[float, float]]:
    """Of every case, seconds foreseen and measured."""
    _forget_rates()
    found = []
    for case in cases:
        if fresh:
            _forget_rates()
        foreseen, measured = timed(case, dtype, clock)
        found.append((foreseen, measured))
        ratio = foreseen / measured
        print(f"{_words(case)}: {foreseen:.3f} / {measured:.3f} s = {ratio:.2f}", flush=True)
    return found


def _forget_rates() -> None:
    measured_rates.cache_clear()
    layer_rates.cache_clear()


def timed(case: Case, dtype: str, clock: Clock) -> tuple[float, float]:
    settings = case.settings(dtype)
    precision = getattr(torch, settings["dtype"])
    lora = adapter.lora_config(measured_step.LORA)
    config = measured_step.config_of(settings)
    shape = counted_shape(config, lora, precision, "cpu", quantization=case.quantization)
    assert shape is not None
    machine = _machine(case, shape, settings["dtype"], clock)
    model = measured_step.model_of(settings)
    base = BaseModel("random", model, None, precision, torch.device("cpu"), frozenset({0}))
    with adapter.attached(model, lora, 0) as adapted:
        work = _trained if case.what == "training" else _answered
        return work(base, adapted, settings, shape, machine, clock)


def _machine(case: Case, shape: ModelShape, dtype: str, clock: Clock) -> Machine:
    rates = measured_rates("cpu", dtype, clock)
    others = layer_rates(LayerKind.of(shape, case.gradient_checkpointing, case.row_tokens), clock)
    return Machine("here", "cpu", 1, 0, *rates, is_here=True, layer_rates=others)


def _trained(
    base: BaseModel,
    adapted: Any,
    settings: dict[str, Any],
    shape: ModelShape,
    machine: Machine,
    clock: Clock,
) -> tuple[float, float]:
    """The faster of two steps, after one that warms up; rates are the fastest of several, too."""
    rows = measured_step.rows_of(settings)
    data = Rows("random", rows, np.arange(rows.num_sequences))
    planned = dataclasses.replace(measured_step.settings_of(settings), max_steps=3)
    work = training_work(data, planned)
    foreseen = training_seconds(work, shape, machine, settings["gradient_checkpointing"])
    ends: list[float] = []
    following = loop.Following(lambda record: ends.append(clock()), lambda event: None)
    loop.train(base, adapted, data, planned, following)
    return foreseen / work.num_steps, min(ends[1] - ends[0], ends[2] - ends[1])


def _answered(
    base: BaseModel,
    adapted: Any,
    settings: dict[str, Any],
    shape: ModelShape,
    machine: Machine,
    clock: Clock,
) -> tuple[float, float]:
    """All questions in one batch; random models end no answer early, and nothing is guessed."""
    # A fresh adapter drops values until it is told that it is not trained.
    adapted.eval()
    rows = measured_step.rows_of(settings)
    prompts = [list(map(int, ids)) for ids in np.split(rows.token_ids, rows.offsets[1:-1])]
    # The first token is chosen with the prompt.
    work = answering_work(
        Sequences.of(prompts), [settings["new_tokens"] - 1] * len(prompts), len(prompts), 2048
    )
    asked = GenerationSettings(
        max_new_tokens=settings["new_tokens"],
        repetition_penalty=1.0,
        prompt_lookup=False,
        answer_nll=False,
        batch_size=len(prompts),
        budget_tokens=2048,
    )
    questions = [Question(prompt) for prompt in prompts]
    seconds = []
    for _ in range(3):
        started = clock()
        list(generate(base, adapted, questions, asked))
        seconds.append(clock() - started)
    return answering_seconds(work, shape, machine), min(seconds[1:])


def memory_rows(dtype: str) -> list[dict[str, Any]]:
    return [
        measured_memory(size, length, dtype, checkpointing)
        for size in SIZES
        for length in (256, 1024)
        for checkpointing in (False, True)
    ]


def measured_memory(size: str, length: int, dtype: str, checkpointing: bool) -> dict[str, Any]:
    """One case in a process of its own."""
    case: dict[str, Any] = {
        "config": SIZES[size],
        "num_tokens": length,
        "num_rows": _MEMORY_TOKENS // length,
        "budget_tokens": 2048,
        "gradient_checkpointing": checkpointing,
        "dtype": dtype,
    }
    lora = adapter.lora_config(measured_step.LORA)
    shape = counted_shape(measured_step.config_of(case), lora, getattr(torch, dtype), "cpu")
    assert shape is not None
    data = Rows("a", measured_step.rows_of(case), np.arange(case["num_rows"]))
    work = training_work(data, measured_step.settings_of(case))
    foreseen = process_bytes("cpu") + shape.step_memory(work.largest, checkpointing).total
    asked = subprocess.run(
        [sys.executable, "-m", "tests.forecast.measured_step", json.dumps(case)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    peak = json.loads(asked.stdout)["peak"]
    row = {
        "size": size,
        "row_tokens": length,
        "gradient_checkpointing": checkpointing,
        "foreseen_bytes": foreseen,
        "measured_bytes": peak,
        "ratio": round(foreseen / peak, 3),
    }
    print(row, flush=True)
    return row


def _words(case: Case) -> str:
    """A case without what it leaves as it is."""
    usual = Case._field_defaults
    own = {name: value for name, value in case._asdict().items() if value != usual.get(name, ())}
    return ", ".join(f"{name} {value}" for name, value in own.items())


def _median(turns: list[tuple[float, float]]) -> dict[str, Any]:
    """Of the turns, the one in the middle by its ratio, and every ratio."""
    ratios = [foreseen / measured for foreseen, measured in turns]
    foreseen, measured = sorted(turns, key=lambda turn: turn[0] / turn[1])[(len(turns) - 1) // 2]
    return {
        "foreseen_seconds": round(foreseen, 4),
        "measured_seconds": round(measured, 4),
        "ratio": round(statistics.median(ratios), 3),
        "turns": [round(ratio, 3) for ratio in ratios],
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
