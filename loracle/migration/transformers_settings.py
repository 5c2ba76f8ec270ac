"""Settings by transformers' names, as a program holds them: training_args and generation_kwargs.

None is the default. A field that the plan has too means what the plan says of it. A key that is not
known is an error that names the nearest known one, or what to use instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, StrictBool

from loracle.errors import PlanError
from loracle.migration.not_needed import NOT_NEEDED
from loracle.plan import GenerationPlan, Section, TrainingPlan
from loracle.plan.foreign import Tool
from loracle.plan.problems import checked
from loracle.plan.sections import Count, NonNegative, Positive, Seed, Share, ShareBelowOne


class TrainingArguments(Section):
    """`training_args`. An alias is the field's name in the plan."""

    num_train_epochs: Positive | None = Field(None, serialization_alias="epochs")
    max_steps: Annotated[Count | None, BeforeValidator(lambda n: None if n == -1 else n)] = None
    per_device_train_batch_size: Count | None = None
    gradient_accumulation_steps: Count | None = None
    """The effective batch is the product of the two, 64 if neither is given."""
    learning_rate: Positive | None = None
    lr_scheduler_type: Literal["linear", "cosine", "constant"] | None = Field(
        None, serialization_alias="schedule"
    )
    warmup_ratio: Share | None = None
    max_grad_norm: NonNegative | None = None
    """0: no clipping."""
    weight_decay: NonNegative | None = None
    adam_beta1: ShareBelowOne | None = None
    adam_beta2: ShareBelowOne | None = None
    adam_epsilon: Positive | None = None
    seed: Seed = 0
    """Seed of the adapter's first weights, of the order and of dropout."""
    fp16: StrictBool = False
    """Compute in float16: the pipeline loads the model so; a loaded model must be float16."""
    bf16: StrictBool = False
    """The same with bfloat16."""
    gradient_checkpointing: StrictBool | None = None
    logging_steps: Count = 1
    """Every which step gets a line in training.log. steps.jsonl in the run folder has all."""
    save_steps: Count | None = Field(None, serialization_alias="checkpoint_every")
    output_dir: str | Path | None = None
    """Where train_model_on_dataset_with_progress keeps its run: adapter, steps, record. A finished
    training is taken from there. None: nowhere."""
    max_length: Count | None = None
    overlong: Literal["shorten", "drop", "error"] | None = None
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "adamw_bnb_8bit"] = (
        "adamw_torch"
    )
    report_to: str | list[str] | None = None
    """Experiment trackers that follow the run, as the plan's `trackers`. "none": none."""

    def plan(self) -> TrainingPlan:
        """The same as the plan says it. Raises PlanError where a value cannot be used."""
        given = self.model_dump(by_alias=True, exclude_none=True)
        factors = (self.per_device_train_batch_size, self.gradient_accumulation_steps)
        if any(factors):
            given["batch_size"] = math.prod(factor or 1 for factor in factors)
        if self.max_grad_norm == 0:
            given["max_grad_norm"] = None
        if self.optim in ("adamw_8bit", "adamw_bnb_8bit"):
            given["optimizer"] = "adamw_8bit"
        known = given.keys() & TrainingPlan.model_fields.keys()
        return TrainingPlan.model_validate({key: given[key] for key in known})

    @property
    def dtype(self) -> str | None:
        """The precision that is asked for; None if none is."""
        return "float16" if self.fp16 else "bfloat16" if self.bf16 else None

    def sections(self) -> dict[str, Any]:
        """The plan's sections that these settings decide."""
        return {"training": self.plan(), "seeds": [self.seed], "trackers": self.trackers}

    def require_usable_with(self, model: Any) -> None:
        """Raise PlanError if something cannot be had for a single training of a loaded model."""
        problems = []
        found = str(next(model.parameters()).dtype).removeprefix("torch.")
        if self.dtype not in (None, found):
            asked = "fp16" if self.fp16 else "bf16"
            problems.append(
                f"training_args.{asked}: the model is loaded in {found}, and the adapter is "
                f"trained in the model's precision; load it with dtype=torch.{self.dtype}, or "
                f"leave {asked} out"
            )
        if self.trackers and self.output_dir is None:
            problems.append(
                "training_args.report_to: trackers follow a run that is kept; set output_dir too"
            )
        if problems:
            raise PlanError(problems)

    @property
    def trackers(self) -> list[str]:
        named = [self.report_to] if isinstance(self.report_to, str) else self.report_to or []
        return [name for name in named if name != "none"]


class GenerationArguments(Section):
    """`generation_kwargs`."""

    max_new_tokens: Count = 40
    do_sample: StrictBool = False
    temperature: NonNegative | None = None
    top_p: Positive | None = None
    top_k: Count | None = None
    repetition_penalty: Positive = 1.1
    num_beams: Count = 1
    early_stopping: StrictBool = False
    seed: Seed = 0

    def plan(self, batch_size: int | None) -> GenerationPlan:
        """The same as the plan says it. Raises PlanError if a value cannot be used."""
        idle = {"temperature", "top_p", "top_k", "seed"} if not self.do_sample else set()
        idle |= {"early_stopping"} if self.num_beams == 1 else set()
        given = self.model_dump(exclude=idle, exclude_none=True)
        given["batch_size"] = "auto" if batch_size is None else batch_size
        return checked(GenerationPlan, "generation_kwargs", given)

    def without_effect(self) -> list[str]:
        """What was given and changes nothing, one sentence each."""
        sampling = () if self.do_sample else ("temperature", "top_p", "top_k")
        notes = [
            f"generation_kwargs.{name}: {getattr(self, name)} has no effect, for decoding is "
            "greedy unless do_sample is true"
            for name in sampling
            if getattr(self, name) not in (None, 1.0)
        ]
        if self.early_stopping and self.num_beams == 1:
            notes.append(
                "generation_kwargs.early_stopping has no effect, for there is one beam only; set "
                "num_beams above 1"
            )
        return notes


_NO_EFFECT = "does not change what is learned here; leave it out"
_TRAINING_INSTEAD = {
    key: _NO_EFFECT
    for key in (*NOT_NEEDED[Tool.LLAMA_FACTORY], *NOT_NEEDED[Tool.MS_SWIFT])
    if key not in TrainingArguments.model_fields
} | {
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

_GENERATION_INSTEAD = {
    "pad_token_id": "it is known from the tokenizer; leave it out",
    "eos_token_id": "it is known from the model; leave it out",
    "bos_token_id": "it is known from the tokenizer; leave it out",
    "use_cache": "it is always on; leave it out",
    "max_length": "use max_new_tokens",
    "num_return_sequences": "one answer is scored; leave it out",
}


class Generation(NamedTuple):
    """Checked generation_kwargs with the batch size, and what in them changes nothing."""

    plan: GenerationPlan
    notes: list[str]


def training_arguments(given: Mapping[str, Any] | None) -> TrainingArguments:
    """Check training_args. Raises PlanError with all problems."""
    found = checked(TrainingArguments, "training_args", given, _TRAINING_INSTEAD)
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
    arguments = checked(GenerationArguments, "generation_kwargs", given, _GENERATION_INSTEAD)
    return Generation(arguments.plan(batch_size), arguments.without_effect())
