"""A training step in a process of its own: prints what memory it took, as the system counts it.

    python -m tests.forecast.measured_step '{"hidden_size": 64, ..., "num_tokens": 512}'

The peak is reset after the model is built, so that loading does not count.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loracle.forecast.work import Rows
from loracle.forest.trie import Sequences
from loracle.model import adapter
from loracle.model.base import BaseModel
from loracle.model.native_memory import bound_kernel_cache, return_freed_memory
from loracle.model.quantization import quantization_config, use_exact_products
from loracle.training import loop

LORA = {"r": 8, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"}


def config_of(case: dict[str, Any]) -> Any:
    """The model's config of a case."""
    from transformers import LlamaConfig

    return LlamaConfig(**case["config"], tie_word_embeddings=True)


def rows_of(case: dict[str, Any]) -> Sequences:
    """Rows of the case's length: shared_tokens of it at their start are the same in all rows, and
    target_tokens at their end are learned (none; a quarter)."""
    generator = np.random.default_rng(0)
    vocabulary = case["config"]["vocab_size"]
    num_tokens, num_rows = case["num_tokens"], case["num_rows"]
    num_targets = case.get("target_tokens", num_tokens // 4)
    shared = generator.integers(0, vocabulary, case.get("shared_tokens", 0)).tolist()
    own = [
        generator.integers(0, vocabulary, num_tokens - len(shared)).tolist()
        for _ in range(num_rows)
    ]
    weights = [[0.0] * (num_tokens - num_targets) + [1.0] * num_targets] * num_rows
    return Sequences.of([shared + one for one in own], weights)


def settings_of(case: dict[str, Any]) -> loop.TrainingSettings:
    """Two steps over all rows."""
    return loop.TrainingSettings(
        epochs=1, max_steps=2, max_tokens=None, batch_size=case["num_rows"], learning_rate=1e-4,
        schedule="constant", warmup_ratio=0.0, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8,
        max_grad_norm=0.3, grouped=True, forest=True, budget_tokens=case["budget_tokens"],
        gradient_checkpointing=case["gradient_checkpointing"], seed=0,
    )  # fmt: skip


def model_of(case: dict[str, Any]) -> Any:
    """The case's model, frozen, with random weights, packed if the case says so."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, case["dtype"])
    packing = quantization_config(case.get("quantization", "none"), dtype)
    model = AutoModelForCausalLM.from_config(config_of(case), dtype=dtype)
    if packing is not None:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            del model
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, quantization_config=packing, device_map={"": "cpu"}
            )
            # The system counts the pages of a mapped file too, though it takes them back at will.
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.data = parameter.data.clone()
        use_exact_products(model)
    return model.requires_grad_(False).eval()


def memory_bytes(name: str) -> int:
    """VmRSS or VmHWM of this process."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return 1024 * int(found[1])


def measured(case: dict[str, Any]) -> dict[str, Any]:
    """The memory before and at the peak of a step, in bytes, and the seconds of all steps."""
    torch.manual_seed(0)
    dtype = getattr(torch, case["dtype"])
    model = model_of(case)
    base = BaseModel("random", model, None, dtype, torch.device("cpu"), frozenset({0}))
    adapted = adapter.attach(model, adapter.lora_config(case.get("lora", LORA)), 0)
    rows = rows_of(case)
    return_freed_memory()
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    seconds: list[float] = []
    loop.train(
        base, adapted, Rows("random", rows, np.arange(rows.num_sequences)), settings_of(case),
        loop.Following(lambda record: seconds.append(record.seconds), lambda event: None),
    )  # fmt: skip
    return {"before": before, "peak": memory_bytes("VmHWM"), "seconds": seconds}


def main() -> None:
    bound_kernel_cache()
    for case in map(json.loads, sys.argv[1:]):
        print(json.dumps(measured(case)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
