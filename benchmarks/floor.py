"""The floor: how long the bare matrix products of a model's linear layers take, here and now.

No step can be faster than these products on these cores, so our time over the floor says what is
left to gain, whatever the machine. The floor is measured beside every turn, since a shared
machine's speed drifts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn


class Floor(NamedTuple):
    """Seconds a token of all linear layers: forward alone, and forward with the activations'
    gradient. head: of the output head, the same two."""

    forward: float
    step: float
    head_forward: float
    head_step: float

    def training_seconds(self, num_tokens: int, num_targets: int) -> float:
        """A LoRA step: the base's own gradient is not needed, logits at targets alone."""
        return num_tokens * self.step + num_targets * self.head_step

    def answering_seconds(self, num_tokens: int, num_choices: int) -> float:
        return num_tokens * self.forward + num_choices * self.head_forward


def measured_floor(
    model: Any, num_tokens: int, num_targets: int | None = None, repeats: int = 3
) -> Floor:
    """The fastest of `repeats` products of every distinct shape, `num_tokens` rows at once.

    num_targets: rows of the output head at once; None is a quarter of `num_tokens`.
    """
    head = model.get_output_embeddings()
    shapes = Counter(
        tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and "lora_" not in name
    )
    forward = step = 0.0
    for shape, count in shapes.items():
        times = _product_seconds(shape, num_tokens, head.weight.dtype, repeats)
        forward += count * times[0]
        step += count * sum(times)
    num_targets = num_targets or max(1, num_tokens // 4)
    heads = _product_seconds(tuple(head.weight.shape), num_targets, head.weight.dtype, repeats)
    return Floor(
        forward / num_tokens, step / num_tokens, heads[0] / num_targets, sum(heads) / num_targets
    )


def _product_seconds(
    shape: tuple[int, ...], num_tokens: int, dtype: torch.dtype, repeats: int
) -> tuple[float, float]:
    """x W^T, and g W, for W of this shape (outputs, inputs)."""
    num_outputs, num_inputs = shape
    weight = torch.randn(shape).to(dtype)
    x = torch.randn(num_tokens, num_inputs).to(dtype)
    gradient = torch.randn(num_tokens, num_outputs).to(dtype)
    with torch.inference_mode():
        return (
            _fastest(lambda: nn.functional.linear(x, weight), repeats),
            _fastest(lambda: gradient @ weight, repeats),
        )


def _fastest(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
