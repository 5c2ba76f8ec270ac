"""What a caller may set: training_args, generation_kwargs, and the LoRA config's file.

The names are the original system's, which are those of transformers and peft. A key that is not
known is an error that names the nearest known one, or what to use instead. None is the default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import StrictBool, ValidationError

from loracle.errors import PlanError
from loracle.model.adapter import lora_config
from loracle.plan import (
    GenerationPlan,
    LoraPlan,
    Section,
    TrainingPlan,
    file_problem,
    nearest,
)
from loracle.plan.sections import Count, NonNegative, Positive, Seed, Share, ShareBelowOne

_BIASES = ("none", "all", "lora_only")
# peft's names, which the files use, and those of the plan.
_SHORT_NAMES = {"lora_alpha": "alpha", "lora_dropout": "dropout"}
_SAME_NAMES = (
    *("warmup_ratio", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("gradient_checkpointing", "max_length", "overlong"),
)
_INSTEAD = {
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
"""What transformers knows and this interface does not, and what to do."""


class TrainingArguments(Section):
    """`training_args`, under transformers' names. What is left out has the default of the plan."""

    num_train_epochs: Positive | None = None
    """Passes over the rows; fractions are allowed. None: 3."""
    max_steps: int | None = None
    """Length in optimizer steps, in place of epochs. None or -1: not used."""
    per_device_train_batch_size: Count | None = None
    """First factor of the effective batch: examples in one optimizer step."""
    gradient_accumulation_steps: Count | None = None
    """Second factor. If one of the two is given the other is 1; if neither is, 64 examples."""
    learning_rate: Positive | None = None
    """The highest learning rate. None: 1e-4."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] | None = None
    """The learning rate after the warm-up. None: linear."""
    warmup_ratio: Share | None = None
    """Share of the steps over which the learning rate rises from 0. None: 0.03."""
    max_grad_norm: NonNegative | None = None
    """Gradients of a greater norm are scaled down to it. 0: no clipping. None: 0.3."""
    weight_decay: NonNegative | None = None
    """AdamW's decoupled weight decay. None: 0."""
    adam_beta1: ShareBelowOne | None = None
    """AdamW's decay of the mean of gradients. None: 0.9."""
    adam_beta2: ShareBelowOne | None = None
    """AdamW's decay of the mean of squared gradients. None: 0.999."""
    adam_epsilon: Positive | None = None
    """AdamW's term against division by zero. None: 1e-8."""
    seed: Seed = 0
    """Seed of the adapter's first weights, of the order and of dropout."""
    fp16: StrictBool = False
    """Compute in float16: the pipeline loads the model so; a loaded model must be float16."""
    bf16: StrictBool = False
    """The same with bfloat16."""
    gradient_checkpointing: StrictBool | None = None
    """Compute activations again in the backward pass: slower, with less memory. None: False."""
    logging_steps: Count = 1
    """Every which step gets a line in training.log. steps.jsonl in the run folder has all."""
    save_steps: Count | None = None
    """Steps between checkpoints, from which a stopped training resumes."""
    output_dir: str | None = None
    """Where train_model_on_dataset_with_progress keeps its run: adapter, steps, record. A finished
    training is taken from there. None: nowhere."""
    max_length: Count | None = None
    """Longest row in tokens. None: what the model takes, or memory allows."""
    overlong: Literal["shorten", "drop", "error"] | None = None
    """What happens to a longer row: its passage is cut, it is left out, or an error. None:
    shorten."""
    optim: Literal["adamw_torch", "adamw_torch_fused"] = "adamw_torch"
    """The optimizer; both names mean torch's AdamW."""
    report_to: str | list[str] | None = None
    """Experiment trackers that follow a pipeline: tensorboard, wandb, mlflow, swanlab, trackio.
    None or "none": none."""

    def plan(self) -> TrainingPlan:
        """The same as the plan says it. Raises PlanError where a value cannot be used."""
        given: dict[str, Any] = {
            "epochs": self.num_train_epochs,
            "max_steps": self.max_steps if self.max_steps != -1 else None,
            "batch_size": self._effective_batch_size(),
            "learning_rate": self.learning_rate,
            "schedule": self.lr_scheduler_type,
            "checkpoint_every": self.save_steps,
        }
        for name in _SAME_NAMES:
            given[name] = getattr(self, name)
        values = {key: value for key, value in given.items() if value is not None}
        if self.max_grad_norm is not None:
            values["max_grad_norm"] = self.max_grad_norm or None
        return TrainingPlan.model_validate(values)

    @property
    def dtype(self) -> str | None:
        """The precision that is asked for; None if none is."""
        return "float16" if self.fp16 else "bfloat16" if self.bf16 else None

    @property
    def trackers(self) -> list[str]:
        named = [self.report_to] if isinstance(self.report_to, str) else self.report_to or []
        return [name for name in named if name != "none"]

    def _effective_batch_size(self) -> int | None:
        factors = (self.per_device_train_batch_size, self.gradient_accumulation_steps)
        return None if factors == (None, None) else (factors[0] or 1) * (factors[1] or 1)


class GenerationArguments(Section):
    """`generation_kwargs`."""

    max_new_tokens: Count = 40
    """Longest answer in tokens."""
    do_sample: StrictBool = False
    """Draw tokens at random in place of the likeliest one."""
    temperature: NonNegative | None = None
    """Divides the logits before sampling. Without effect unless do_sample."""
    top_p: Positive | None = None
    """Sample from the likeliest tokens that hold this share. Without effect unless do_sample."""
    top_k: Count | None = None
    """Sample from this many likeliest tokens. Without effect unless do_sample."""
    repetition_penalty: Positive = 1.1
    """Scores of tokens already seen are divided by it (multiplied where negative). 1: none."""
    num_beams: Count = 1
    """Beams of beam search. 1: no beam search."""
    early_stopping: StrictBool = False
    """Beam search ends when num_beams answers are complete. Without effect with one beam."""
    seed: Seed = 0
    """Seed of sampling."""

    def plan(self, batch_size: int | None) -> GenerationPlan:
        """The same as the plan says it. Raises PlanError if a value cannot be used."""
        values: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "repetition_penalty": self.repetition_penalty,
            "num_beams": self.num_beams,
        }
        if batch_size is not None:
            values["batch_size"] = batch_size
        if self.do_sample:
            sampling = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
            values |= {name: value for name, value in sampling.items() if value is not None}
            values |= {"do_sample": True, "seed": self.seed}
        if self.num_beams > 1:
            values["early_stopping"] = self.early_stopping
        try:
            return GenerationPlan.model_validate(values)
        except ValidationError as error:
            raise PlanError(_problems("generation_kwargs", GenerationPlan, error)) from error

    def without_effect(self) -> list[str]:
        """What was given and changes nothing, one sentence each."""
        notes = []
        if not self.do_sample:
            given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
            notes += [
                f"generation_kwargs.{name}: {value} has no effect, for decoding is greedy unless "
                "do_sample is true"
                for name, value in given.items()
                if value not in (None, 1.0)
            ]
        if self.early_stopping and self.num_beams == 1:
            notes.append(
                "generation_kwargs.early_stopping has no effect, for there is one beam only; set "
                "num_beams above 1"
            )
        return notes


class Generation(NamedTuple):
    """Checked generation_kwargs with the batch size, and what in them changes nothing."""

    plan: GenerationPlan
    notes: list[str]


Arguments = TypeVar("Arguments", TrainingArguments, GenerationArguments)


def training_arguments(given: Mapping[str, Any] | None) -> TrainingArguments:
    """Check training_args. Raises PlanError with all problems."""
    found = _checked(TrainingArguments, "training_args", given)
    problems = []
    if found.max_steps is not None and found.max_steps != -1 and found.max_steps < 1:
        problems.append(
            f"training_args.max_steps: found {found.max_steps}; expected 1 or more, or -1 "
            "for a length by num_train_epochs"
        )
    if found.fp16 and found.bf16:
        problems.append("training_args.fp16: found True beside bf16; choose one of the two")
    if problems:
        raise PlanError(problems)
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
    arguments = _checked(GenerationArguments, "generation_kwargs", given)
    return Generation(arguments.plan(batch_size), arguments.without_effect())


def read_lora_settings(lora_config_dir: str | Path, config_name: str) -> dict[str, Any]:
    """Read `lora_config_dir/config_name.json`; the name may carry its `.json` already.

    Any field of peft.LoraConfig may be in it; r, lora_alpha, lora_dropout and target_modules have
    the defaults of loracle's plan, bias is "none".

    Raises PlanError where the file is missing, is not a JSON object, or does not fit.
    """
    path = Path(lora_config_dir) / f"{config_name.removesuffix('.json')}.json"
    if problem := file_problem(path):
        raise PlanError(f"LoRA config: {problem}")
    try:
        given = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise PlanError(f"{path}:{error.lineno}: bad JSON ({error.msg})") from error
    if not isinstance(given, dict):
        raise PlanError(f'{path}: expected one JSON object, as {{"r": 8, "lora_alpha": 16}}')
    try:
        return _lora_settings(given)
    except PlanError as error:
        raise PlanError([f"{path}: {problem}" for problem in error.problems]) from error


def read_lora_plan(lora_config_dir: str | Path, config_name: str) -> LoraPlan:
    """The same file as the plan says it."""
    settings = read_lora_settings(lora_config_dir, config_name)
    return LoraPlan.model_validate({_SHORT_NAMES.get(k, k): v for k, v in settings.items()})


def _lora_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting under peft's name, checked."""
    if twice := [name for name, short in _SHORT_NAMES.items() if {name, short} <= given.keys()]:
        raise PlanError([f"{name} and {_SHORT_NAMES[name]} are one setting" for name in twice])
    try:
        plan = LoraPlan.model_validate({_SHORT_NAMES.get(k, k): v for k, v in given.items()})
    except ValidationError as error:
        raise PlanError(_problems("lora", LoraPlan, error)) from error
    peft_names = {short: name for name, short in _SHORT_NAMES.items()}
    settings = {peft_names.get(name, name): value for name, value in plan.model_dump().items()}
    settings = {"bias": "none", **settings}
    # peft looks at it only once its layers are in the model.
    if settings["bias"] not in _BIASES:
        raise PlanError(f"lora.bias: found {settings['bias']!r}; expected {' or '.join(_BIASES)}")
    lora_config(settings)
    return settings


def _checked(kind: type[Arguments], name: str, given: Mapping[str, Any] | None) -> Arguments:
    if given is not None and not isinstance(given, Mapping):
        raise PlanError(f"{name}: found {given!r}; expected a dict")
    values = {key: value for key, value in (given or {}).items() if value is not None}
    values |= dict.fromkeys(key for key in given or {} if key not in kind.model_fields)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise PlanError(_problems(name, kind, error)) from error


def _problems(name: str, kind: type[Section], error: ValidationError) -> Sequence[str]:
    """Every problem of `name`, once for each key."""
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        key = str(detail["loc"][0]) if detail["loc"] else ""
        if key in _INSTEAD:
            value = f"found {detail['input']!r}; " if key in kind.model_fields else ""
            problems[key] = f"{name}.{key}: {value}{_INSTEAD[key]}"
        elif detail["type"] == "extra_forbidden":
            near = nearest(key, kind.model_fields)
            hint = f"did you mean {near}?" if near else f"known: {', '.join(kind.model_fields)}"
            problems[key] = f"unknown key {name}.{key}; {hint}"
        else:
            found = f"found {detail['input']!r}; {detail['msg']}"
            problems.setdefault(key, f"{name}.{key}: {found}")
    return list(problems.values())
