"""What layers cost beside their products, measured on a tiny model by real gradients.

    one short row     Python, and the start of every operation: seconds a layer
    many short rows   what attention pays for each span of the forest
    one longer row    norms, gates, rotation, LoRA, softmax: seconds a byte kept
    a very long row   attention by torch's own kernel: seconds a (query, key) pair and head

What is elementwise writes what the backward keeps, and reads it there, so its time is counted by
the bytes that counting.py finds. The tiny model runs the code of a training: the kernels, the
processor and what else runs on it are therefore included.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from loracle.forecast.counting import counted_shape
from loracle.forecast.machines import Clock, LayerRates, measured_rates
from loracle.forecast.seconds import Beside, beside, training_flops
from loracle.forecast.work import TrainingWork, measured
from loracle.forest.attention.interface import ATTENTION_NAME, attention_implementation
from loracle.forest.attention.rows import RowAttention
from loracle.forest.limits import MAX_EXPLICIT_TOKENS, MAX_ROW_TOKENS
from loracle.forest.trie import Sequences, build_forest
from loracle.model import adapter
from loracle.model.base import BaseModel, forest_hidden_states
from loracle.model.quantization import NONE, quantization_config, use_exact_products
from loracle.model.step_memory import ModelShape
from loracle.training.loop import accumulate_gradient
from loracle.training.mode import training_mode

_SIZES = {
    "hidden_size": 256, "intermediate_size": 1536, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 256, "tie_word_embeddings": True,
}  # fmt: skip
_LORA = {"r": 8, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"}
_SHORT, _MANY, _LONG = (16, 1), (16, 24), (256, 2)
"""Tokens of a row, and rows."""
_DENSE = (MAX_EXPLICIT_TOKENS + 128, 1)
_BUDGET_TOKENS = 2048
_REPEATS = 3


@cache
def layer_rates(
    dtype_name: str,
    *,
    gradient_checkpointing: bool = False,
    quantization: str = NONE,
    has_long_rows: bool = False,
    clock: Clock = time.perf_counter,
) -> LayerRates:
    """Measured in about two seconds, on the CPU.

    has_long_rows: whether rows exceed what is computed with explicit products.

    Raises:
        MissingExtraError: for a quantised base, bitsandbytes is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        tiny = _Tiny.of(dtype_name, gradient_checkpointing, quantization, clock)
        with adapter.attached(tiny.base.model, adapter.lora_config(_LORA), 0) as adapted:
            return tiny.rates(adapted, has_long_rows)


@dataclass(frozen=True)
class _Tiny:
    """A tiny model, and what it is measured with."""

    base: BaseModel
    shape: ModelShape
    gradient_checkpointing: bool
    flops: float
    clock: Clock

    @classmethod
    def of(
        cls, dtype_name: str, gradient_checkpointing: bool, quantization: str, clock: Clock
    ) -> _Tiny:
        from transformers import LlamaConfig

        dtype = getattr(torch, dtype_name)
        config: Any = LlamaConfig(**_SIZES)  # type: ignore[arg-type]
        model = _model(config, dtype, quantization).requires_grad_(False).eval()
        base = BaseModel(
            "tiny", model, None, dtype, torch.device("cpu"), frozenset({0}), quantization
        )
        lora = adapter.lora_config(_LORA)
        shape = counted_shape(config, lora, dtype, "cpu", quantization=quantization)
        assert shape is not None
        flops = measured_rates("cpu", dtype_name, clock).flops
        return cls(base, shape, gradient_checkpointing, flops, clock)

    def rates(self, adapted: Any, has_long_rows: bool) -> LayerRates:
        layers = self.shape.num_layers
        known = LayerRates(unpacking_seconds=self._unpacking_seconds())
        batches = [_batch(*size) for size in (_SHORT, _MANY, _LONG)]
        rest = [self._beside_products(adapted, batch, known) for batch in batches]
        counts = [self._counted(batch) for batch in batches]
        matrix = np.array([[one.num_layers, one.num_spans, one.kept_bytes] for one in counts])
        layer, span, byte = nnls(matrix / np.array(rest)[:, None], np.ones(3))[0].tolist()
        known = known._replace(layer_seconds=layer, span_seconds=span, kept_byte_seconds=byte)
        if has_long_rows:
            batch = _batch(*_DENSE)
            others = self._beside_products(adapted, batch, known)
            pair = max(0.0, others) / self._counted(batch).num_dense_pairs
            known = known._replace(dense_pair_seconds=pair)
        short, long = (self._forward_seconds(batch, known) for batch in batches[::2])
        return known._replace(
            optimizer_layer_seconds=self._optimizer_seconds(adapted) / layers,
            answering_layer_seconds=short / layers,
            answering_byte_seconds=max(0.0, long - short) / counts[2].kept_bytes,
        )

    def _counted(self, batch: Sequences) -> Beside:
        return beside(self._work(batch), self.shape, self.gradient_checkpointing)

    def _work(self, batch: Sequences) -> TrainingWork:
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

    def _beside_products(self, adapted: Any, batch: Sequences, known: LayerRates) -> float:
        """Seconds of a gradient, without its products and what is known already."""

        def gradient() -> object:
            return accumulate_gradient(
                self.base, adapted, batch, budget_tokens=_BUDGET_TOKENS, forest=True, seed=0
            )

        checkpointing = self.gradient_checkpointing
        with training_mode(self.base, adapted, forest=True, gradient_checkpointing=checkpointing):
            seconds = self._fastest(gradient)
        flops = training_flops(self._work(batch), self.shape, checkpointing)
        others = flops / self.flops + self._counted(batch).seconds(known)
        return max(seconds - others, 0.05 * seconds)

    def _forward_seconds(self, batch: Sequences, known: LayerRates) -> float:
        """Seconds of a prompt's pass, without its products and the unpacking."""
        model, device = self.base.model, self.base.device
        forest = build_forest(batch, max_row_tokens=MAX_ROW_TOKENS)

        def answer() -> object:
            context = RowAttention.of(forest, device, keep={})
            return forest_hidden_states(model, forest, context, np.array([0]))

        with torch.inference_mode(), attention_implementation(model, ATTENTION_NAME):
            seconds = self._fastest(answer)
        products = 2.0 * self.shape.num_linear_parameters * forest.num_nodes / self.flops
        unpacked = known.unpacking_seconds * self.shape.num_linear_parameters
        return max(seconds - products - unpacked, 0.05 * seconds)

    def _optimizer_seconds(self, adapted: Any) -> float:
        parameters = [parameter for _, parameter in adapter.trainable(adapted)]
        optimizer = torch.optim.AdamW(parameters, lr=0.0)

        def step() -> None:
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

        return self._fastest(step)

    def _unpacking_seconds(self) -> float:
        """Seconds a weight: a layer with one token has next to no products."""
        if self.base.quantization == NONE:
            return 0.0
        layer = self.base.model.model.layers[0].mlp.up_proj
        x = torch.zeros(1, layer.in_features, dtype=self.base.dtype)
        with torch.inference_mode():
            num_weights = int(layer.in_features) * int(layer.out_features)
            return self._fastest(lambda: layer(x)) / num_weights

    def _fastest(self, work: Callable[[], object]) -> float:
        work()
        seconds = []
        for _ in range(_REPEATS):
            started = self.clock()
            work()
            seconds.append(self.clock() - started)
        return max(min(seconds), 1e-9)


def _batch(num_tokens: int, num_rows: int) -> Sequences:
    """Rows that share nothing, with a quarter of their tokens as targets."""
    generator = np.random.default_rng(0)
    rows = generator.integers(1, _SIZES["vocab_size"], (num_rows, num_tokens)).tolist()
    start = num_tokens - num_tokens // 4
    weights = [[0.0] * start + [1.0] * (num_tokens - start)] * num_rows
    return Sequences.of(rows, weights)


def _model(config: Any, dtype: torch.dtype, quantization: str) -> Any:
    from transformers import AutoModelForCausalLM

    packing = quantization_config(quantization, dtype)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    if packing is None:
        return model
    with tempfile.TemporaryDirectory() as folder, _no_progress_bars():
        model.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, quantization_config=packing, device_map={"": "cpu"}
        )
    use_exact_products(model)
    return model


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    were_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if were_shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
