"""What a caller may set, checked: training_args and generation_kwargs, by transformers' names.

The keys are those of loracle/migration/transformers_settings.py. One that is not known is an error
that names the nearest known one, or what to use instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from loracle.errors import PlanError
from loracle.migration.transformers_settings import GenerationArguments, TrainingArguments
from loracle.plan import GenerationPlan
from loracle.plan.problems import checked

_INSTEAD = {
    "max_steps": "expected 1 or more, or -1 for a length by num_train_epochs",
    "optim": "Loracle trains with torch.optim.AdamW; leave it out",
    "warmup_steps": "use warmup_ratio",
    "logging_dir": "pass log_dir to the function",
    "save_strategy": "use save_steps",
    "save_total_limit": "the newest checkpoint is kept; leave it out",
    "eval_strategy": "every training is followed by its evaluation; leave it out",
    "per_device_eval_batch_size": "pass batch_size, or evaluation_batch_size to the pipeline",
    "data_seed": "use seed",
    "deepspeed": "the base is frozen and adapters are small; leave it out",
    "fsdp": "the base is frozen and adapters are small; leave it out",
}
"""What to do about keys of transformers that are not known here, or have few values."""


class Generation(NamedTuple):
    """Checked generation_kwargs with the batch size, and what in them changes nothing."""

    plan: GenerationPlan
    notes: list[str]


def training_arguments(given: Mapping[str, Any] | None) -> TrainingArguments:
    """Check training_args. Raises PlanError with all problems."""
    found = checked(TrainingArguments, "training_args", given, _INSTEAD)
    if found.fp16 and found.bf16:
        raise PlanError("training_args.fp16: found True beside bf16; choose one of the two")
    return found


def generation_arguments(
    given: Mapping[str, Any] | None, batch_size: int | None, batch_size_name: str
) -> Generation:
    """Check generation_kwargs and the batch size, which the caller knows as `batch_size_name`.

    Raises PlanError with all problems.
    """
    is_count = isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size > 0
    if batch_size is not None and not is_count:
        raise PlanError(f"{batch_size_name}: found {batch_size!r}; expected a whole number above 0")
    arguments = checked(GenerationArguments, "generation_kwargs", given)
    return Generation(arguments.plan(batch_size), arguments.without_effect())
