"""What must hold for an adapter: fresh, it changes nothing; trained, it does; saved, it stays the
same.

One short prompt is run through the model, and its logits are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loracle.errors import TrialError
from loracle.model.adapter import adapter_fingerprint
from loracle.model.base import BaseModel, computing
from loracle.model.self_test import SELF_TEST_TOLERANCE


@torch.no_grad()
def probe_logits(base: BaseModel, adapted: Any | None, token_ids: Sequence[int]) -> Tensor:
    """The logits of one prompt in evaluation mode, on the CPU: (L, V)."""
    if adapted is not None:
        adapted.eval()
    with computing(base.dtype, base.device, adapted):
        logits: Tensor = base.model(
            torch.tensor([list(token_ids)], device=base.device), use_cache=False
        ).logits[0]
    return logits.cpu()


def require_no_change(untrained: Tensor, fresh: Tensor) -> None:
    """Raise TrialError if a fresh adapter changes the logits beyond rounding."""
    difference = (fresh.float() - untrained.float()).norm() / untrained.float().norm()
    if not float(difference) <= SELF_TEST_TOLERANCE.get(untrained.dtype, 1e-3):
        raise TrialError(
            "the adapter changes the model before training (relative difference of logits "
            f"{float(difference):.1e}), so its gain would not come from the data; change its "
            f"initial weights (lora.init_lora_weights)"
        )


def require_change(untrained: Tensor, trained: Tensor) -> None:
    """Raise TrialError if a trained adapter changes no logit. In half precision a small update may
    be lost to rounding: then only the weights can show it."""
    if untrained.dtype == torch.float32 and torch.equal(untrained, trained):
        raise TrialError(
            "the trained adapter changes no logit of the model: it learned nothing; raise "
            "training.learning_rate, or choose other lora.target_modules"
        )


def require_same_adapter(
    base: BaseModel,
    loaded: Any,
    fingerprint: str,
    probe_ids: Sequence[int],
    expected: Tensor | None,
    folder: Path,
) -> None:
    """Raise TrialError unless an adapter loaded from a folder is the one that was saved there.

    expected: the probe's logits before it was saved; None if they are no longer known.
    """
    found = adapter_fingerprint(loaded)
    if found != fingerprint:
        raise TrialError(
            f"{folder}: the weights loaded are not those that were trained (fingerprint "
            f"{found[:12]}, expected {fingerprint[:12]})"
        )
    if expected is not None and not torch.equal(probe_logits(base, loaded, probe_ids), expected):
        raise TrialError(
            f"{folder}: after loading, the adapter gives different logits from when it was saved; "
            "its kind (lora) cannot be saved on its own"
        )
