"""What fits: steps of 8 rows with bfloat16, int8 and nf4 weights, also under a card of 24 GB."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator
from typing import Any

from gpu_parts.measuring import Bench, Case, memory_cap, peak_memory
from gpu_parts.models import make_base, make_rows
from gpu_parts.training import loop_settings, trained
from loracle.model.attention_choice import choose_attention

BATCH_SIZE, NUM_STEPS = 8, 3
CAP_GB = 24


def cases(bench: Bench, name: str) -> Iterator[Case]:
    for quantization in ("none", "int8", "nf4"):
        for checkpointing in (False, True):
            words = "checkpointing" if checkpointing else "plain"

            def measure(
                quantization: str = quantization, checkpointing: bool = checkpointing
            ) -> dict[str, Any]:
                return fitted(bench, name, quantization, checkpointing=checkpointing)

            yield Case(f"{quantization}/{words}", measure)


def fitted(bench: Bench, name: str, quantization: str, *, checkpointing: bool) -> dict[str, Any]:
    """Under the cap the loop halves what it computes at once until the step fits."""
    # Packed from half precision: the weights of both need not fit under the cap.
    base, test = choose_attention(make_base(bench, name, quantization=quantization))
    rows = make_rows(bench, base.model.config.vocab_size, BATCH_SIZE * NUM_STEPS, sharing=True)
    settings = loop_settings(
        BATCH_SIZE, 4096, max_steps=NUM_STEPS, gradient_checkpointing=checkpointing
    )
    try:
        with memory_cap(bench, CAP_GB), peak_memory(bench) as memory:
            records, budget_tokens = trained(base, rows, settings)
    finally:
        attention = base.attention
        del base
        gc.collect()
    return {
        **memory,
        "cap_gb": CAP_GB,
        "attention": attention,
        "self_test": test.passed,
        "budget_tokens": budget_tokens,
        "rows_per_second": round(
            BATCH_SIZE / statistics.median(record.seconds for record in records[1:]), 2
        ),
    }
