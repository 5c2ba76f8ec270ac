"""Whether disk and memory will do, said before the work and with figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from loracle.errors import StorageError
from loracle.forecast.disk import trial_disk
from loracle.model.memory import free_memory
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter
from loracle.safety.storage_errors import free_bytes
from loracle.text import size


class TrialSize(NamedTuple):
    """What the disk a trial takes depends on. num_at_once: trials that train at the same time."""

    num_adapter_parameters: int
    num_questions: int
    max_new_tokens: int
    num_at_once: int = 1


def require_disk(trial: TrialSize, folder: RunFolder, num_trials: int, report: Reporter) -> None:
    """Refuse to start where not even one more trial fits on the disk; warn where not all do.

    Raises:
        StorageError: with what is needed and what is free.
    """
    free = free_bytes(folder.root)
    if free is None or num_trials == 0:
        return
    kept, checkpoints = trial_disk(
        trial.num_adapter_parameters, trial.num_questions, trial.max_new_tokens
    )
    needed = checkpoints + kept
    found = f"the disk of {folder.root} has {size(free)} free, and "
    if free < needed:
        raise StorageError(
            f"{found}a trial needs about {size(needed)} while it trains; free space there, or "
            "choose another folder with --out",
            is_passing=True,
        )
    num_at_once = min(trial.num_at_once, num_trials)
    total = num_at_once * checkpoints + num_trials * kept
    if free < total:
        report.emit(
            "warning",
            message=f"{found}the {num_trials} trials that are left need about {size(total)}; "
            "free space there, or the last ones fail",
        )


def warn_of_memory(
    source: Path | None, device_type: str, report: Reporter, weights_share: float = 1.0
) -> None:
    """Warn where a model's weights alone are larger than what memory is free for them.

    weights_share: what quantisation leaves of them.
    """
    free = free_memory(device_type)
    if source is None or free is None:
        return
    whole = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    weights = int(whole * weights_share)
    if weights > free.num_bytes:
        report.emit(
            "warning",
            message=f"the model's weights take {size(weights)}, and {size(free.num_bytes)} of "
            f"{free.place} are free: end other programs, or take a smaller or quantized model",
        )


def adapter_parameters(model: Any, lora_config: Any) -> int:
    """About how many parameters an adapter has; a pattern of names counts as all linear layers."""
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
    """Inputs and outputs of a layer; the weights of a quantised one have lost their shape."""
    if hasattr(module, "in_features"):
        return int(module.in_features + module.out_features)
    return sum(module.weight.shape)
