"""The sections of a plan. Each field is documented once, under the field; the same text is its
JSON Schema description."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    field_validator,
    model_validator,
)

from loracle.plan.locations import BadLocation, parse_model
from loracle.plan.messages import drafts_by_name, refuse, show
from loracle.text import seconds_of

# Strict: otherwise `batch_size: yes` would be read as 1 and `epochs: "3"` as a number.
Count = Annotated[int, Field(strict=True, gt=0)]
Positive = Annotated[float, Field(strict=True, gt=0)]
NonNegative = Annotated[float, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(strict=True, ge=0, lt=1)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]

EMBEDDED = "embedded"
"""The name of the model that comes with Loracle."""


class Section(BaseModel):
    """A section of the plan: frozen, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelPlan(Section):
    """The base model, frozen in all trials."""

    name: Text = EMBEDDED
    """A folder, a model id on a hub, or `embedded`: the small model that comes with Loracle."""
    hub: Literal["auto", "huggingface", "modelscope"] = "auto"
    """Where a model id is looked up. auto: by its prefix, `hf://` or `ms://`; without a prefix, on
    Hugging Face."""
    revision: Text | None = None
    """Branch, tag or commit on the hub. None: the hub's default branch."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights. auto: bfloat16 if the processor supports it, else float32."""
    quantization: Literal["none", "int8", "nf4"] = "none"
    """How the frozen weights of linear layers are packed, for the base's row and every candidate.
    int8: 8 bits, half the memory of bfloat16; nf4: 4 bits with double quantisation, a quarter.
    Products run in `dtype`. Needs `pip install 'loracle[quant]'`."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model runs. auto: a GPU if torch can use one, else the CPU."""
    device_map: Literal["auto"] | None = None
    """auto: layers are spread over all GPUs by accelerate, for a model larger than one. None: the
    whole model is on `device`."""
    attention: Literal["auto", "dense", "flex", "triton"] = "auto"
    """What computes attention over the prefix forest. triton: Loracle's own GPU kernels; flex:
    torch's FlexAttention; dense: scaled_dot_product_attention with a mask of every row. One that
    fails the self-test is replaced, with a warning. auto: on a GPU the first of triton, flex and
    dense that passes; on a CPU matrix products span by span."""
    use_liger_kernel: StrictBool = True
    """Whether liger-kernel (`pip install 'loracle[cuda]'`), if installed, computes norms, gated
    activations and rotary embeddings on a GPU; if the self-test fails, the model's code does."""
    trust_remote_code: StrictBool = False
    """Whether code that comes with the model may run on this machine."""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """Further arguments of the chat template, such as `enable_thinking: false`."""

    @model_validator(mode="after")
    def _one_placement(self) -> Self:
        if self.device_map is not None and self.device != "auto":
            refuse(
                f"model.device: found {self.device} together with model.device_map: "
                f"{self.device_map}, "
                "which chooses the devices; remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _one_hub_and_revision(self) -> Self:
        try:
            location = parse_model(self.name)
        except BadLocation as error:
            refuse(f"model.name: {error}")
        else:
            if location is not None and self.hub not in ("auto", location.hub):
                refuse(
                    f"model.hub: found {self.hub} together with {self.name}; remove one of the two"
                )
            if location is not None and location.revision and self.revision:
                refuse(
                    f"model.revision: found {show(self.revision)} together with {self.name}, "
                    "which has its own revision; remove one of the two"
                )
        return self


class LoraPlan(Section):
    """The adapter. Any further field of peft.LoraConfig is passed through to it."""

    model_config = ConfigDict(extra="allow")

    r: Count = 8
    """Rank of the update matrices."""
    alpha: Count = 16
    """Numerator of the update's scale, which is alpha / r (`lora_alpha` in peft)."""
    dropout: ShareBelowOne = 0.05
    """Share of the adapter's inputs that is zeroed during training (`lora_dropout` in peft)."""
    target_modules: Text | Annotated[list[Text], Field(min_length=1)] = "all-linear"
    """Layers that get an adapter: `all-linear`, a regular expression, or a list of names."""


class TrainingPlan(Section):
    """How every candidate is trained."""

    epochs: Positive = 3.0
    """Passes over the candidate's rows; fractions are allowed. Decides the length of training only
    if neither max_steps nor max_tokens is set."""
    max_steps: Count | None = None
    """Length in optimizer steps, instead of epochs. None: not used."""
    max_tokens: Count | None = None
    """Length in tokens read (shared prefixes counted for each row), instead of epochs, so that
    candidates of unequal size are compared at equal cost. None: not used."""
    batch_size: Count = 64
    """Examples in one optimizer step, however they are split to fit into memory."""
    learning_rate: Positive = 1e-4
    """The highest learning rate, reached after the warm-up."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """The learning rate after the warm-up: falls to 0 linearly or along a half cosine, or stays
    constant."""
    warmup_ratio: Share = 0.03
    """Share of the steps over which the learning rate rises from 0."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """adamw: moments in float32; adamw_8bit: moments in 8 bits by bitsandbytes, a quarter of the
    memory, for adapters with many weights. Weights of fewer than 4,096 numbers keep theirs in
    float32."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""
    adam_beta1: ShareBelowOne = 0.9
    """AdamW's decay rate for the mean of gradients."""
    adam_beta2: ShareBelowOne = 0.999
    """AdamW's decay rate for the mean of squared gradients."""
    adam_epsilon: Positive = 1e-8
    """AdamW's term against division by zero."""
    max_grad_norm: Positive | None = 0.3
    """Gradients with a larger norm are scaled down to it. None: no clipping."""
    order: Literal["grouped", "shuffled"] = "grouped"
    """grouped: examples with a shared prefix are in the same batch, groups are shuffled; shuffled:
    plain shuffling of examples, which leaves little to share."""
    batching: Literal["auto", "forest", "padded"] = "auto"
    """forest: shared prefixes are computed once; padded: plain padded batches; auto: forest if the
    model passes the self-test, else padded."""
    micro_batch_tokens: Count | Literal["auto"] = "auto"
    """Tokens computed at once. Affects memory and speed, never the result. auto: what the memory
    forecast allows, halved if memory still runs out."""
    gradient_checkpointing: StrictBool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: slower, but uses less memory. auto: only if the
    forecast says that it is needed, or quicker on a GPU than micro-batches that fit without it."""
    data_parallel: Count | Literal["auto"] = 1
    """Devices that share the rows of every step of one training, one process each: GPUs, or on a
    CPU parts of its cores. auto: the devices that would have no training of their own are shared
    out among the trainings. The result is that of 1 but for rounding; a run may be resumed with
    another number."""
    shard_base: StrictBool = False
    """Whether the devices of `data_parallel` share the base's weights in training (FSDP2);
    answering takes the whole base on one. Not with `model.quantization`. No effect on results."""
    checkpoint_every: Count | Text = "auto"
    """Optimizer steps (100) or time (`10 min`, `30 s`, `1 h`) between checkpoints, from which a
    stopped training resumes with the same result. auto: at most 2 % of the time is spent on them,
    but at least one every 10 minutes. Does not affect results."""
    train_on: Literal["assistant", "last"] = "assistant"
    """Which turns carry loss: every assistant turn, or only the last."""
    max_length: Count | None = None
    """Longest allowed row in tokens; an evaluation prompt counts with its max_new_tokens. None:
    the model's limit, or the memory's if that is lower; the run prints which applies."""
    overlong: Literal["shorten", "drop", "error"] = "shorten"
    """What happens to a longer row. shorten: the middle of its longest passage is cut, never the
    question, the answer or the template, and a row that is too long even without its passage is
    dropped; drop: the row is left out; error: nothing is trained. Such rows are listed with file
    and line."""

    @field_validator("checkpoint_every")
    @classmethod
    def _check_checkpoint_every(cls, every: int | str) -> int | str:
        if isinstance(every, str) and every != "auto" and not seconds_of(every):
            refuse(
                f"training.checkpoint_every: found {show(every)}; expected auto, a number of "
                "steps, or a time such as 10 min, 30 s or 1 h"
            )
        return every

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.max_steps is not None and self.max_tokens is not None:
            refuse(
                f"training.max_tokens: found {self.max_tokens} together with training.max_steps: "
                f"{self.max_steps}; expected at most one of the two"
            )
        return self


class GenerationPlan(Section):
    """How the base model and every adapter answer evaluation questions."""

    max_new_tokens: Count = 40
    """Longest answer in tokens."""
    repetition_penalty: Positive = 1.0
    """Scores of tokens already seen are divided by it (multiplied if negative). 1: none."""
    do_sample: StrictBool = False
    """Sample tokens instead of choosing the likeliest one; turns drafts off."""
    temperature: Positive = 1.0
    """Divides the logits before sampling. Needs do_sample."""
    top_p: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    """Sample from the likeliest tokens that hold this share of probability. Needs do_sample."""
    top_k: Count | None = None
    """Sample from this many likeliest tokens. None: from all. Needs do_sample."""
    num_beams: Count = 1
    """Beams of beam search, which turns drafts off. 1: no beam search."""
    early_stopping: StrictBool = False
    """Beam search ends when num_beams answers are complete. Needs num_beams above 1."""
    seed: Seed = 0
    """Seed of sampling. Needs do_sample."""
    drafts: Annotated[Literal["references", "all", "off"], BeforeValidator(drafts_by_name)] = (
        "references"
    )
    """Guesses of the answer that are verified in the prompt's pass, which saves steps; used by
    greedy decoding only. references: the reference answers; all: also the answers of earlier
    trials, which is faster if candidates give similar answers. A draft counts only if greedy
    decoding chooses the same tokens, but it changes what is computed together: if two tokens are
    equally likely except for rounding, with `all` the answer may depend on which trials came
    before. off: none. true is read as all, false as off."""
    prompt_lookup: StrictBool = True
    """Take further drafts from the prompt's own text; used only by greedy decoding."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the evaluation. auto: the model's. float32 avoids near-ties decided by
    rounding."""
    batch_size: Count | Literal["auto"] = 64
    """Prompts answered together; the same for every candidate. auto: 64, or what the memory allows
    if that is less, fixed when the run first starts."""
    reasoning_end: Text | None = None
    """Text that ends a model's reasoning; only what follows it is scored. None: the known tags,
    such as `</think>`. The full predictions are kept."""
    answer_nll: StrictBool = False
    """Also measure the negative log-likelihood of the best reference, in nats per answer."""

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        problems = []
        if not self.do_sample:
            sampling = ("temperature", "top_p", "top_k", "seed")
            problems += self._without_effect(sampling, "do_sample is true")
        if self.num_beams == 1:
            problems += self._without_effect(["early_stopping"], "num_beams is above 1")
        refuse(*problems)
        return self

    def _without_effect(self, names: Iterable[str], condition: str) -> list[str]:
        return [
            f"generation.{name}: found {show(getattr(self, name))}, which has no effect unless "
            f"{condition}; change one of the two"
            for name in names
            if getattr(self, name) != type(self).model_fields[name].default
        ]


TrackerName = Literal["tensorboard", "wandb", "mlflow", "swanlab", "trackio"]


class DecisionPlan(Section):
    """The rule that ranks the candidates and decides, fixed before the run."""

    metric: Text = "f1"
    """The metric used for ranking; every evaluation must compute it."""
    confidence: Annotated[float, Field(strict=True, ge=0.5, lt=1)] = 0.95
    """Confidence of the intervals. 1 - confidence bounds the chance of any false finding among all
    comparisons of the run."""
    min_gain: NonNegative = 0.0
    """A candidate helps if it is better than the base by more than this, in the metric's unit:
    0.01 is one point of em or f1. It is also the gain that must be ruled out for `none helps` or
    `equal`; if it is 0, that gain is 0.02."""
