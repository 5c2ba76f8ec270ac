"""The training loop: one adapter, one dataset, over the prefix forest or over padded batches.

The loss of a step is a sum over its targets divided by their total weight, so any cut of the
batch into rows and micro-batches gives the same gradient. That is also the answer to running out
of memory: drop the step's gradient, halve the budget, do the same step again. Checkpoints are
written between steps; a training that resumes from one ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from loracle.errors import NonFiniteError
from loracle.forest.attention.rows import RowAttention
from loracle.forest.attention.uploading import on_device
from loracle.forest.ordering import Ordering
from loracle.forest.trie import Forest, IntArray, Sequences
from loracle.model import adapter
from loracle.model.base import BaseModel, computing, forest_hidden_states
from loracle.model.head import output_head
from loracle.model.losses import added, padded_loss, target_loss
from loracle.model.token_dropout import keyed, token_dropouts
from loracle.run_folder import signals
from loracle.training.budget import MemoryEvent, TokenBudget
from loracle.training.checkpoint import Checkpoint, CheckpointFolder
from loracle.training.micro_batches import (
    NOT_CUT,
    CutStep,
    Lockstep,
    MicroBatch,
    cut,
    in_step,
    take,
)
from loracle.training.mode import training_mode
from loracle.training.optimizers import AdamSettings, OptimizerName, make_optimizer
from loracle.training.replicas import Replicas
from loracle.training.saving import BY_COST, CheckpointInterval, Saving
from loracle.training.team import ALONE, Part, PartDone, Team

AUTO_BUDGET_TOKENS = {"cpu": 4096, "mps": 2048, "cuda": 16384}
"""Tokens of a micro-batch where memory is no limit, by the kind of device; measured on a CPU alone
(docs/log.md)."""


@dataclass(frozen=True)
class TrainingSettings:
    """What the loop needs. Lengths: `max_steps` decides, else `max_tokens`, else `epochs`.

    max_tokens: read tokens (separate sequences) after which the step under way is the last.
    budget_tokens: tokens computed at once; the effective batch never depends on it.
    """

    epochs: float
    max_steps: int | None
    max_tokens: int | None
    batch_size: int
    learning_rate: float
    schedule: Literal["linear", "cosine", "constant"]
    warmup_ratio: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    max_grad_norm: float | None
    grouped: bool
    forest: bool
    budget_tokens: int
    gradient_checkpointing: bool
    seed: int
    checkpoint_every: CheckpointInterval = BY_COST
    optimizer: OptimizerName = "adamw"


@dataclass(frozen=True)
class StepRecord:
    """One line of steps.jsonl. `tokens_read` counts the separate sequences of this step,
    `tokens_computed` what went through the model; `seconds` is this step's wall time."""

    step: int
    epoch: float
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens_read: int
    tokens_computed: int
    seconds: float


class TrainingRows(Protocol):
    """What is trained on: token ids with loss weights, and the prefix group for each, (S,)."""

    @property
    def sequences(self) -> Sequences: ...

    @property
    def groups(self) -> IntArray: ...


@dataclass(frozen=True)
class Following:
    """Who is told of a training, and where its checkpoints are.

    resume_from: the checkpoint whose step was the last one done; None starts with the first.
    """

    on_step: Callable[[StepRecord], None]
    on_memory: Callable[[MemoryEvent], None]
    checkpoints: CheckpointFolder | None = None
    resume_from: Checkpoint | None = None


def train(
    base: BaseModel,
    adapted: Any,
    rows: TrainingRows,
    settings: TrainingSettings,
    following: Following,
    replicas: Replicas | None = None,
) -> None:
    """Train the adapter in place.

    replicas: processes that share in every step; None computes all of it in this one.

    Raises:
        NonFiniteError: the loss or the gradient is not finite.
        OutOfMemoryError: a single sequence does not fit.
        ReplicaError: a replica was lost; the steps since the last checkpoint are lost, too.
        Stopped: a signal asked for it; the last step done is in a checkpoint.
    """
    ordering = _ordering(rows.groups, settings)
    num_steps = num_training_steps(ordering, rows.sequences.lengths, settings)
    next_step = NOT_CUT
    parameters = dict(adapter.trainable(adapted))
    optimizer = make_optimizer(settings.optimizer, parameters.values(), _adam(settings))
    budget = TokenBudget(settings.budget_tokens, following.on_memory)
    saving = Saving(following.checkpoints, settings.checkpoint_every, parameters, optimizer)
    first_step = _first_step(saving, following, budget)
    with (
        _team(replicas, adapted, rows, settings) as team,
        _mode(base, adapted, settings),
        signals.held("the step under way, then a checkpoint"),
    ):
        for step in range(first_step, num_steps):
            started = time.perf_counter()
            batch = take(rows.sequences, ordering.batch(step))
            _set_rate(optimizer, learning_rate := learning_rate_at(step, num_steps, settings))
            with saving.if_stopped(step, budget.budget_tokens):
                own_rows = team.begin(step, ordering.batch(step), batch, budget.budget_tokens)
                part = Part(take(rows.sequences, own_rows), total_weight(batch), next_step)
                with team.computing():
                    own = step_gradient(base, adapted, part, step, settings, budget, team.lockstep)
                done = team.add_up(own, step, budget)
            norm = _clipped(parameters.values(), settings.max_grad_norm or math.inf)
            if team is ALONE and step + 1 < num_steps and is_asynchronous(base.device):
                next_step = _cut_ahead(rows.sequences, ordering, step + 1, settings, budget)
            loss, gradient_norm = _waited_for(step, done.loss, norm)
            optimizer.step()
            following.on_step(
                StepRecord(
                    step=step + 1,
                    epoch=(step + 1) / ordering.steps_per_epoch,
                    loss=loss,
                    gradient_norm=gradient_norm,
                    learning_rate=learning_rate,
                    tokens_read=len(batch.token_ids),
                    tokens_computed=done.tokens_computed,
                    seconds=time.perf_counter() - started,
                )
            )
            at_end = (step + 1) % ordering.steps_per_epoch == 0
            saving.after_step(step + 1, budget.budget_tokens, ends_epoch=at_end)


def _first_step(saving: Saving, following: Following, budget: TokenBudget) -> int:
    """Where the training starts, with the checkpoint's state and budget if it is resumed."""
    if following.resume_from is None:
        return 0
    first_step, budget.budget_tokens = saving.resume(following.resume_from)
    return first_step


def is_asynchronous(device: torch.device) -> bool:
    """Whether the host has time to spare while the device computes."""
    return device.type != "cpu"


def _cut_ahead(
    sequences: Sequences,
    ordering: Ordering,
    step: int,
    settings: TrainingSettings,
    budget: TokenBudget,
) -> CutStep:
    batch, seed = take(sequences, ordering.batch(step)), step_seed(settings.seed, step)
    pieces = cut(batch, budget.budget_tokens, seed, forest=settings.forest)
    return CutStep(step, budget.budget_tokens, tuple(pieces))


def _team(
    replicas: Replicas | None, adapted: Any, rows: TrainingRows, settings: TrainingSettings
) -> AbstractContextManager[Team]:
    if replicas is None:
        return nullcontext(ALONE)
    return replicas.training(adapted, rows.sequences, rows.groups, dataclasses.asdict(settings))


def _mode(
    base: BaseModel, adapted: Any, settings: TrainingSettings
) -> AbstractContextManager[None]:
    return training_mode(
        base,
        adapted,
        forest=settings.forest,
        gradient_checkpointing=settings.gradient_checkpointing,
    )


def _set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _clipped(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale the whole gradient down to `max_norm`; returns its norm before, where it is."""
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def _adam(settings: TrainingSettings) -> AdamSettings:
    return AdamSettings(settings.learning_rate, settings.betas, settings.eps, settings.weight_decay)


def step_gradient(
    base: BaseModel,
    adapted: Any,
    part: Part,
    step: int,
    settings: TrainingSettings,
    budget: TokenBudget,
    lockstep: Lockstep | None = None,
) -> PartDone:
    """A part's gradient, its share of the loss and its tokens: again with half the budget if need
    be. lockstep: of a sharded base, whose processes compute every pass together."""
    while True:
        adapted.zero_grad(set_to_none=True)
        if part.sequences.num_sequences == 0 and lockstep is None:
            return PartDone(torch.zeros((), dtype=torch.float64), 0)
        seed = step_seed(settings.seed, step)
        # LoRA's dropout has keys of its own; this is for a base with random parts.
        torch.manual_seed(seed)
        ahead = part.cut_ahead
        is_cut = (ahead.step, ahead.budget_tokens) == (step, budget.budget_tokens)
        try:
            return accumulate_gradient(
                base,
                adapted,
                part.sequences,
                budget_tokens=budget.budget_tokens,
                forest=settings.forest,
                seed=seed,
                weight_of_all=part.total_weight,
                micro_batches=ahead.micro_batches if is_cut else None,
                lockstep=lockstep,
            )
        except (RuntimeError, MemoryError) as error:
            if lockstep is None:
                budget.halve(error, step, part.sequences)
            else:
                budget.refuse(error, step)


def _waited_for(step: int, of_loss: Tensor, of_norm: Tensor) -> tuple[float, float]:
    """The loss and the gradient's norm: the only place where a step waits for its device."""
    loss, gradient_norm = torch.stack([of_loss, of_norm.to(of_loss.device)]).tolist()
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise NonFiniteError(
            f"step {step + 1}: loss {loss}, gradient norm {gradient_norm}; "
            "lower training.learning_rate, or set model.dtype to float32"
        )
    return loss, gradient_norm


def num_steps_planned(sequences: Sequences, groups: IntArray, settings: TrainingSettings) -> int:
    """How many optimizer steps `train` will take."""
    return num_training_steps(_ordering(groups, settings), sequences.lengths, settings)


def _ordering(groups: IntArray, settings: TrainingSettings) -> Ordering:
    labels = tuple(groups.tolist())
    return Ordering(labels, settings.batch_size, settings.seed, settings.grouped)


def num_training_steps(ordering: Ordering, lengths: IntArray, settings: TrainingSettings) -> int:
    """How many optimizer steps the settings ask for."""
    if settings.max_steps is not None:
        return settings.max_steps
    if settings.max_tokens is not None:
        num_steps = tokens_read = 0
        while tokens_read < settings.max_tokens:
            tokens_read += int(lengths[ordering.batch(num_steps)].sum())
            num_steps += 1
        return num_steps
    return max(1, math.ceil(settings.epochs * ordering.steps_per_epoch))


def learning_rate_at(step: int, num_steps: int, settings: TrainingSettings) -> float:
    """The rate of step `step` (from 0): a linear warm-up, then the schedule down to zero."""
    num_warmup = math.ceil(settings.warmup_ratio * num_steps)
    if step < num_warmup:
        return settings.learning_rate * (step + 1) / num_warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
    return settings.learning_rate * (1.0 - progress)


def step_seed(seed: int, step: int) -> int:
    """The generator seed of one step's dropout."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def accumulate_gradient(
    base: BaseModel,
    adapted: Any,
    batch: Sequences,
    *,
    budget_tokens: int,
    forest: bool,
    seed: int,
    weight_of_all: float | None = None,
    micro_batches: Iterable[MicroBatch] | None = None,
    lockstep: Lockstep | None = None,
) -> PartDone:
    """Add the gradient of the batch's mean loss; return that loss and the tokens computed.

    seed: of the dropout, whatever the budget is.
    weight_of_all: what the sum is divided by; None: the weight of the batch's own targets.
    micro_batches: of the batch, cut by this budget with this seed; None cuts it here.
    """
    weight = total_weight(batch) if weight_of_all is None else weight_of_all
    losses, tokens_computed = [], 0
    dropouts = token_dropouts(adapted)
    pieces = micro_batches or _pieces(batch, budget_tokens, seed, forest=forest)
    if lockstep is not None:
        pieces = in_step(pieces, lockstep, forest=forest)
    for micro_batch, keys, counts in pieces:
        signals.stop_if_urgent()
        with keyed(dropouts, keys):
            with computing(base.dtype, base.device, adapted):
                if isinstance(micro_batch, Forest):
                    loss, num_tokens = forest_loss(base, micro_batch), micro_batch.num_nodes
                else:
                    loss, num_tokens = padded_loss(base.model, micro_batch, base.device)
            (loss / weight if counts else loss * 0.0).backward()  # type: ignore[no-untyped-call]
        if counts:
            losses.append(loss.detach())
            tokens_computed += num_tokens
    return PartDone(added(losses) / weight, tokens_computed)


def _pieces(
    batch: Sequences, budget_tokens: int, seed: int, *, forest: bool
) -> Iterable[MicroBatch]:
    """No row is no micro-batch."""
    return cut(batch, budget_tokens, seed, forest=forest) if batch.num_sequences else ()


def total_weight(batch: Sequences) -> float:
    """The weight of all targets, by which the loss of a step is divided."""
    assert batch.weights is not None, "training needs loss weights"
    return float(batch.weights.sum(dtype=np.float64))


def forest_loss(base: BaseModel, micro_batch: Forest) -> Tensor:
    """The weighted sum of the targets' cross entropies, with its graph."""
    context = RowAttention.of(micro_batch, base.device, backend=base.attention)
    hidden = forest_hidden_states(base.model, micro_batch, context, micro_batch.target_nodes)
    token_ids = on_device(micro_batch.target_token_ids, base.device)
    weights = on_device(micro_batch.target_weights, base.device)
    return target_loss(hidden, output_head(base.model), token_ids, weights)
