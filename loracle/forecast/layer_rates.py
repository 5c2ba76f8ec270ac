"""What layers cost beside their products, measured on small models by real work.

    narrow models of 1 and 12 layers  Python and the start of every operation, by pass and layer
    two layers as wide as the model's reading or unpacking weights, norms, gates, rotation, LoRA,
                                      softmax, and products where they are slower than large ones
    many rows, one longer row         what attention pays for each span of the forest, and for what
                                      the backward keeps
    a very long row                   attention by torch's own kernel

They run the code of a training and of an answering, so that the kernels, the processor and what
else runs on it are included. What is elementwise writes what the backward keeps, and reads it
there, so its time is counted by the bytes that counting.py finds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from loracle.forecast.machines import Clock, measured_rates
from loracle.forecast.measured_model import VOCABULARY_SIZE, MeasuredModel, Widths, measured_model
from loracle.forecast.parts import (
    AnsweringParts,
    LayerRates,
    TrainingParts,
    parts_of_answering,
    parts_of_training,
    seconds_of,
)
from loracle.forecast.seconds import answering_flops, training_flops
from loracle.forecast.work import TrainingWork, answering_work, measured
from loracle.forest.limits import MAX_EXPLICIT_TOKENS, MAX_ROW_TOKENS
from loracle.forest.trie import Sequences, build_forest
from loracle.generation.generate import generate
from loracle.generation.types import GenerationSettings, Question
from loracle.model import adapter
from loracle.model.losses import target_loss
from loracle.model.step_memory import ModelShape
from loracle.training.loop import accumulate_gradient
from loracle.training.mode import training_mode

_FEW_LAYERS, _MANY_LAYERS, _WIDE_LAYERS = 1, 12, 2
_SHORT, _MANY, _LONG = (16, 1), (16, 24), (256, 2)
"""Tokens of a row, and rows."""
_ASKED, _NEW_TOKENS = (256, 8), 12
_DENSE = (MAX_EXPLICIT_TOKENS + 128, 1)
_BUDGET_TOKENS = 2048
_LOSS_TARGETS, _CHOICES = 128, 16
_MOST_LOGITS = 32_768
_FEWEST_TIMES, _MOST_TIMES, _SECONDS_EACH = 2, 6, 0.06
_LEAST_SHARE = 0.05
"""Of a measured time, what is taken to be beside products, even if these seem to explain all."""


class LayerKind(NamedTuple):
    """What is measured, so that it is measured once. vocabulary_size: of the output head, at most
    32,768."""

    widths: Widths
    dtype_name: str
    gradient_checkpointing: bool
    quantization: str
    has_long_rows: bool
    vocabulary_size: int

    @classmethod
    def of(cls, shape: ModelShape, gradient_checkpointing: bool, longest_row: int) -> Self:
        """Rows that exceed what is computed with explicit products have a rate of their own."""
        return cls(
            Widths.of(shape),
            "float32" if shape.value_bytes > 2 else "bfloat16",
            gradient_checkpointing,
            shape.quantization,
            longest_row > MAX_EXPLICIT_TOKENS,
            min(shape.vocabulary_size, _MOST_LOGITS),
        )


@cache
def layer_rates(kind: LayerKind, clock: Clock = time.perf_counter) -> LayerRates:
    """Measured in a few seconds, on the CPU.

    Raises:
        MissingExtraError: for a quantised base, bitsandbytes is not installed.
    """
    flops = measured_rates("cpu", kind.dtype_name, clock).flops
    dtype = getattr(torch, kind.dtype_name)
    narrow, wide = kind.widths.narrow(), kind.widths
    sizes = [(narrow, _FEW_LAYERS), (narrow, _MANY_LAYERS), (wide, _WIDE_LAYERS)]
    with torch.random.fork_rng(devices=[]), ExitStack() as stack:
        models = [
            _Measured(
                stack.enter_context(measured_model(*size, dtype, kind.quantization)),
                kind.gradient_checkpointing,
                flops,
                clock,
            )
            for size in sizes
        ]
        head = models[-1].head_seconds(kind.vocabulary_size)
        training = _training_rates(models, kind.has_long_rows)._replace(logits=head.loss)
        answering = _answering_rates(models)._replace(heads=head.weight, logits=head.choice)
        return LayerRates(training, answering)


def _training_rates(models: Sequence[_Measured], has_long_rows: bool) -> TrainingParts:
    few, many, wide = models
    found = [
        model.gradient(_batch(*size))
        for model, sizes in ((few, (_SHORT, _MANY)), (many, (_SHORT, _MANY)))
        for size in sizes
    ]
    found += [wide.gradient(_batch(*size)) for size in (_SHORT, _MANY, _LONG)]
    rates = TrainingParts(*_solved(found))
    if has_long_rows:
        seconds, parts = wide.gradient(_batch(*_DENSE))
        pair = max(0.0, seconds - seconds_of(parts, rates)) / parts.dense_pairs
        rates = rates._replace(dense_pairs=pair)
    return rates._replace(stepped_layers=wide.optimizer_seconds() / _WIDE_LAYERS)


def _answering_rates(models: Sequence[_Measured]) -> AnsweringParts:
    wide = models[-1]
    short, apart = _batch(*_SHORT), _batch(*_ASKED)
    together = _batch(*_ASKED, num_shared_tokens=_ASKED[0] * 3 // 4)
    found = [model.answers(short, _NEW_TOKENS) for model in models]
    found += [wide.answers(_batch(*_LONG), 1)]
    found += [wide.answers(apart, 2)]
    found += [wide.answers(prompts, _NEW_TOKENS) for prompts in (apart, together)]
    return AnsweringParts(*_solved(found))


def _solved(
    found: Sequence[tuple[float, TrainingParts]] | Sequence[tuple[float, AnsweringParts]],
) -> list[float]:
    """The seconds of every part, none negative, that come closest to all times by their ratios."""
    seconds = np.array([one for one, _ in found])
    counts = np.array([parts for _, parts in found]) / seconds[:, None]
    scale = np.maximum(counts.max(axis=0), 1e-30)
    solved: list[float] = (nnls(counts / scale, np.ones(len(found)))[0] / scale).tolist()
    return solved


class _HeadSeconds(NamedTuple):
    """loss: of a logit beside its product, in a training. weight: of one of the head's weights in a
    pass, and choice: of a logit more, when tokens are chosen."""

    loss: float
    weight: float
    choice: float


@dataclass(frozen=True)
class _Measured:
    """A small model, and what it is measured with."""

    model: MeasuredModel
    gradient_checkpointing: bool
    flops: float
    clock: Clock

    def gradient(self, batch: Sequences) -> tuple[float, TrainingParts]:
        """Seconds of a gradient beside its products, and their parts."""
        base, adapted, shape = self.model.base, self.model.adapted, self.model.shape
        parameters = self._parameters()

        def accumulated() -> object:
            for parameter in parameters:
                parameter.grad = None
            return accumulate_gradient(
                base, adapted, batch, budget_tokens=_BUDGET_TOKENS, forest=True, seed=0
            )

        checkpointing = self.gradient_checkpointing
        with training_mode(base, adapted, forest=True, gradient_checkpointing=checkpointing):
            seconds = self._fastest(accumulated)
        work = _work_of(batch)
        parts = parts_of_training(work, shape, checkpointing)
        # Logits are measured alone, and are next to nothing in so small a vocabulary.
        products = training_flops(work, shape, checkpointing) / self.flops
        return self._beside(seconds, products), parts._replace(logits=0.0, stepped_layers=0.0)

    def answers(self, prompts: Sequences, num_new_tokens: int) -> tuple[float, AnsweringParts]:
        """Seconds of answering all prompts in one batch, beside products, and their parts."""
        ids = [list(map(int, one)) for one in np.split(prompts.token_ids, prompts.offsets[1:-1])]
        num_prompts = len(ids)
        settings = GenerationSettings(
            max_new_tokens=num_new_tokens,
            repetition_penalty=1.0,
            prompt_lookup=False,
            answer_nll=False,
            batch_size=num_prompts,
            budget_tokens=_BUDGET_TOKENS,
        )
        questions = [Question(one) for one in ids]
        base, adapted, shape = self.model.base, self.model.adapted, self.model.shape
        seconds = self._fastest(lambda: list(generate(base, adapted, questions, settings)))
        # The first token is chosen with the prompt, and there is no end token here.
        new = [num_new_tokens - 1] * num_prompts
        work = answering_work(prompts, new, num_prompts, _BUDGET_TOKENS)
        products = answering_flops(work, shape) / self.flops
        return self._beside(seconds, products), parts_of_answering(work, shape)._replace(
            heads=0.0, logits=0.0
        )

    def head_seconds(self, vocabulary_size: int) -> _HeadSeconds:
        """Of an output head as wide as this model."""
        base, width = self.model.base, self.model.shape.hidden_size
        head = nn.Linear(width, vocabulary_size, bias=False, device="meta", dtype=base.dtype)
        head = head.to_empty(device="cpu").requires_grad_(False)
        head.weight.fill_(0.01)
        hidden = torch.randn(_LOSS_TARGETS, width).to(base.dtype)
        ids, weights = torch.zeros(_LOSS_TARGETS, dtype=torch.long), torch.ones(_LOSS_TARGETS)
        loss = self._fastest(lambda: target_loss(hidden.requires_grad_(), head, ids, weights))
        products = 4.0 * width * vocabulary_size * _LOSS_TARGETS / self.flops
        with torch.inference_mode():
            one, many = (self._fastest(partial(_choose, head, hidden[:n])) for n in (1, _CHOICES))
        return _HeadSeconds(
            loss=self._beside(loss, products) / (_LOSS_TARGETS * vocabulary_size),
            weight=one / (width * vocabulary_size),
            choice=max(0.0, many - one) / (_CHOICES * vocabulary_size),
        )

    def optimizer_seconds(self) -> float:
        """Of a step with the gradients that are there, as the loop takes it."""
        parameters = self._parameters()
        gradients = [parameter.grad for parameter in parameters]
        optimizer = torch.optim.AdamW(parameters, lr=0.0)

        def step() -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            self.model.adapted.zero_grad(set_to_none=True)

        return self._fastest(step)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in adapter.trainable(self.model.adapted)]

    def _beside(self, seconds: float, products: float) -> float:
        return max(seconds - products, _LEAST_SHARE * seconds)

    def _fastest(self, work: Callable[[], Any]) -> float:
        """Of several times, after one that warms up."""
        work()
        seconds: list[float] = []
        while len(seconds) < _FEWEST_TIMES or (
            len(seconds) < _MOST_TIMES and sum(seconds) < _SECONDS_EACH
        ):
            started = self.clock()
            work()
            seconds.append(self.clock() - started)
        return max(min(seconds), 1e-9)


def _choose(head: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    chosen: torch.Tensor = head(hidden).float().argmax(dim=-1)
    return chosen


def _work_of(batch: Sequences) -> TrainingWork:
    """One gradient of a batch that is a single micro-batch."""
    forest = measured(build_forest(batch, max_row_tokens=MAX_ROW_TOKENS))
    return TrainingWork(
        num_steps=0,
        num_counted_steps=0,
        tokens_read=forest.num_tokens,
        tokens_computed=forest.num_tokens,
        num_targets=forest.num_targets,
        num_pairs=forest.num_pairs,
        largest=forest,
        num_micro_batches=1,
        num_spans=forest.num_spans,
        num_dense_pairs=forest.num_dense_pairs,
    )


def _batch(num_tokens: int, num_rows: int, num_shared_tokens: int = 0) -> Sequences:
    """Rows that share their beginning, with a quarter of their tokens as targets."""
    generator = np.random.default_rng(0)
    rows = generator.integers(1, VOCABULARY_SIZE, (num_rows, num_tokens))
    rows[:, :num_shared_tokens] = rows[0, :num_shared_tokens]
    start = num_tokens - num_tokens // 4
    weights = [[0.0] * start + [1.0] * (num_tokens - start)] * num_rows
    return Sequences.of(rows.tolist(), weights)
