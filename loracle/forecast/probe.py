"""Two real training steps: the rate that the machine reaches on the work counted for them."""

from __future__ import annotations

import dataclasses
from typing import Any

from loracle.forecast.seconds import training_flops
from loracle.forecast.work import Rows, training_work
from loracle.model import adapter
from loracle.model.base import BaseModel
from loracle.model.step_memory import ModelShape
from loracle.training.loop import Following, StepRecord, TrainingSettings, train


def probed_flops(
    base: BaseModel, lora: Any, rows: Rows, settings: TrainingSettings, shape: ModelShape
) -> float:
    """Products a second of the second of two steps; the first one warms up.

    The base is as it was afterwards. Raises OutOfMemoryError as a training does.
    """
    two = dataclasses.replace(settings, max_steps=2, max_tokens=None)
    steps: list[StepRecord] = []
    with adapter.attached(base.model, lora, 0) as adapted:
        train(base, adapted, rows, two, Following(steps.append, lambda event: None))
    flops = training_flops(training_work(rows, two), shape, two.gradient_checkpointing)
    computed = sum(step.tokens_computed for step in steps)
    share = steps[-1].tokens_computed / computed
    return share * flops / max(steps[-1].seconds, 1e-9)
