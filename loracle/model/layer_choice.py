"""Choose what computes norms, gated activations and rotary embeddings on a GPU: liger-kernel where
it is installed and passes the self-test, else the model's own code."""

from __future__ import annotations

import torch

from loracle.model import liger_layers
from loracle.model.base import BaseModel
from loracle.model.self_test import run_self_test


def choose_layers(base: BaseModel, *, asked: bool) -> tuple[str, ...]:
    """Returns what is wrong with liger-kernel's layers, in words; nothing if they are used, not
    asked for, or not there.

    base: with its attention chosen. asked: as the plan's model.use_liger_kernel.
    """
    decoder = base.model.get_decoder()
    liger_layers.leave(decoder)
    if not asked or liger_layers.problem_with(base.device) is not None:
        return ()
    liger_layers.use(decoder)
    problem = _problem(base)
    if problem is None:
        return ()
    liger_layers.leave(decoder)
    return (f"layers by liger-kernel: {problem}; the model's own take their place",)


def _problem(base: BaseModel) -> str | None:
    try:
        self_test = run_self_test(base)
    except Exception as error:
        # As with attention, what is compiled can fail by anything that the machine lacks.
        if isinstance(error, torch.OutOfMemoryError):
            raise
        lines = str(error).strip().splitlines()
        what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        return f"it does not run on this machine ({what})"
    return None if self_test.passed else self_test.detail
