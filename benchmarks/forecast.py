"""Foreseen against measured: peak memory and time of training, each in a process of its own.

    .venv/bin/python benchmarks/forecast.py [--sizes small middle 135M] [--lengths 256 1024]

Random models of three sizes, two row lengths, with and without gradient checkpointing, in the
precision that the processor takes. The first step warms up; the second one is timed. Other work
slows the steps and not the memory: the file's head tells the load.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import write_result

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loracle.forecast.counting import counted_shape
from loracle.forecast.foresee import training_flops
from loracle.forecast.machines import measured_rates, process_bytes, used_share
from loracle.forecast.work import Rows, training_work
from loracle.model import adapter
from loracle.model.base import preferred_dtype
from tests.forecast import measured_step
from tests.forecast.test_forecast import SIZES

_TOKENS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--lengths", nargs="*", type=int, default=[256, 1024])
    parser.add_argument("--name", default="forecast")
    arguments = parser.parse_args()
    dtype = str(preferred_dtype(torch.device("cpu"))).removeprefix("torch.")
    rows = [
        compared(size, length, dtype, checkpointing)
        for size in arguments.sizes
        for length in arguments.lengths
        for checkpointing in (False, True)
    ]
    write_result(
        arguments.name,
        "forecast",
        {
            "largest_memory_error": max(abs(row["memory_ratio"] - 1) for row in rows),
            "largest_time_error": max(abs(row["time_ratio"] - 1) for row in rows),
            "rows": rows,
        },
        dtype,
    )


def compared(size: str, length: int, dtype: str, checkpointing: bool) -> dict[str, Any]:
    """One case, foreseen and measured."""
    case: dict[str, Any] = {
        "config": SIZES[size],
        "num_tokens": length,
        "num_rows": _TOKENS // length,
        "budget_tokens": 2048,
        "gradient_checkpointing": checkpointing,
        "dtype": dtype,
    }
    lora = adapter.lora_config(measured_step.LORA)
    shape = counted_shape(measured_step.config_of(case), lora, getattr(torch, dtype), "cpu")
    assert shape is not None
    data = Rows("a", measured_step.rows_of(case), np.arange(case["num_rows"]))
    work = training_work(data, measured_step.settings_of(case))
    memory = shape.step_memory(work.largest, checkpointing)
    measured_rates.cache_clear()
    rate = measured_rates("cpu", dtype).flops * used_share("cpu", shape.value_bytes)
    seconds = training_flops(work, shape, checkpointing) / work.num_steps / rate
    asked = subprocess.run(
        [sys.executable, "-m", "tests.forecast.measured_step", json.dumps(case)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(asked.stdout)
    foreseen_bytes = process_bytes("cpu") + memory.total
    row = {
        "size": size,
        "row_tokens": length,
        "gradient_checkpointing": checkpointing,
        "foreseen_bytes": foreseen_bytes,
        "measured_bytes": found["peak"],
        "memory_ratio": foreseen_bytes / found["peak"],
        "parts": dataclasses.asdict(memory),
        "foreseen_seconds": seconds,
        "measured_seconds": found["seconds"][1],
        "time_ratio": seconds / found["seconds"][1],
    }
    print(
        f"{size} {length} {'checkpointing' if checkpointing else ''}: memory "
        f"{row['memory_ratio']:.2f}, time {row['time_ratio']:.2f}"
    )
    return row


if __name__ == "__main__":
    main()
