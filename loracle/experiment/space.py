"""Whether there is enough disk and memory, reported before the work, with figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from loracle.errors import StorageError
from loracle.forecast.disk import trial_disk
from loracle.model.memory import free_memory
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter
from loracle.safety.storage_errors import free_bytes
from loracle.text import counted, size


class TrialSize(NamedTuple):
    """What the disk a trial takes depends on. num_at_once: trials that train at the same time.
    moment_bytes: of the optimizer; None: two moments in float32."""

    num_adapter_parameters: int
    num_questions: int
    max_new_tokens: int
    num_at_once: int = 1
    moment_bytes: int | None = None


def require_disk(trial: TrialSize, folder: RunFolder, num_trials: int, report: Reporter) -> None:
    """Refuse to start if not even one more trial fits on the disk; warn if not all fit.

    Raises:
        StorageError: with what is needed and what is free.
    """
    free = free_bytes(folder.root)
    if free is None or num_trials == 0:
        return
    kept, checkpoints = trial_disk(
        trial.num_adapter_parameters,
        trial.num_questions,
        trial.max_new_tokens,
        trial.moment_bytes,
    )
    needed = checkpoints + kept
    found = f"the disk of {folder.root} has {size(free)} free, and "
    if free < needed:
        raise StorageError(
            f"{found}a trial needs about {size(needed)} during training; free space there, or "
            "choose another folder with --out",
            is_passing=True,
        )
    num_at_once = min(trial.num_at_once, num_trials)
    total = num_at_once * checkpoints + num_trials * kept
    if free < total:
        report.emit(
            "warning",
            message=f"{found}{counted(num_trials, 'remaining trial')} will take about "
            f"{size(total)}; free space there, or the last ones will fail",
        )


def warn_of_memory(
    source: Path | None, device_type: str, report: Reporter, weights_share: float = 1.0
) -> None:
    """Warn if a model's weights alone need more memory than is free.

    weights_share: the share left after quantisation.
    """
    free = free_memory(device_type)
    if source is None or free is None:
        return
    whole = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    weights = int(whole * weights_share)
    if weights > free.num_bytes:
        report.emit(
            "warning",
            message=f"the model's weights take {size(weights)}, but only {size(free.num_bytes)} "
            f"of {free.place} is free: close other programs, or use a smaller or quantized model",
        )


def adapter_parameters(model: Any, lora_config: Any) -> int:
    """Approximate number of an adapter's parameters; a pattern of names counts as all linear
    layers."""
    targets = lora_config.target_modules
    named = set(targets) if isinstance(targets, list | set | tuple) else None
    return sum(
        lora_config.r * _width(module)
        for name, module in model.named_modules()
        if hasattr(module, "weight")
        and module.weight is not None
        and module.weight.dim() == 2
        and "embed" not in name
        and (named is None or any(name == t or name.endswith(f".{t}") for t in named))
    )


def _width(module: Any) -> int:
    """Inputs and outputs of a layer; quantised weights no longer have their original shape."""
    if hasattr(module, "in_features"):
        return int(module.in_features + module.out_features)
    return sum(module.weight.shape)
