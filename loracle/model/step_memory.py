"""The memory of one training step: the formula, its parts, and the shape they come from.

    weights + adapter and optimizer + activations + attention + logits + pieces

    weights      frozen, in the model's precision or quantised
    adapter      float32: weights, gradients and AdamW's two moments, or these in 8 bits
    activations  what the backward pass needs for every token in every layer
    attention    probabilities of explicit attention (CPU), or one mask at a time
    logits       of at most 512 targets at once (losses.py)
    pieces       on a CPU, freed memory that the C library cannot use again within the step

Used by the longest row allowed, which errs on the safe side (max_length.py), and by the forecast,
which counts the activations on a model without weights (forecast/counting.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple, Self

from loracle.forest.limits import MAX_EXPLICIT_TOKENS

_ACTIVATION_FACTOR = {"cpu": 2.0, "cuda": 4.0}
"""Without a count: activations kept for the backward, over the widths of the linear layers (inputs
and outputs) in the model's precision. Measured on a CPU: 1.55 to 1.9. On a GPU, where the LoRA
layers are peft's own and keep more, it is not measured yet."""
_LOGIT_TARGETS, _LOGIT_BYTES = 512, 12
"""Targets whose logits exist at once, in float32 and three copies (losses.py)."""
_LOGIT_COPIES = 2
"""With kernels, in bfloat16: the logits, which their gradient replaces, and a copy that fills up
rows."""
_ATTENTION_COPIES = 3
"""One layer's scores, gradients and their products during its attention's backward pass."""
_TRAINED_BYTES, _MOMENT_BYTES = 8, 8
"""Weight and gradient of every trained number, and its two moments, in float32."""
_QUANTISED_BYTES = {"int8": 1.0, "nf4": 0.516}
"""Bytes of one number of a quantised linear layer: nf4 with double quantisation has 4 bits, and
0.127 bits for the scales (QLoRA, arXiv 2305.14314)."""
_PIECES = {(2, False): 0.26, (2, True): 0.24, (4, False): 0.44, (4, True): 0.65}
"""Freed memory that glibc cannot use again within a step, as a share of the activations of all
layers, by (bytes of a number, gradient checkpointing). Measured (docs/log.md): the C library
aligns every tensor, and a piece of exactly the same size is then too small for the next one."""
_QUANTISED_PIECES = {**_PIECES, (4, True): 0.58}
"""The same over a quantised base, whose LoRA layers are peft's own."""


class MicroBatch(NamedTuple):
    """What is computed at once.

    num_pairs: (query, key) pairs of explicit attention. longest_row: tokens of its longest row.
    num_spans: of explicit attention, which takes time for each. num_dense_pairs: pairs of the fused
    kernel's attention instead. These two take no memory that is kept.
    """

    num_tokens: int
    num_pairs: int
    num_targets: int
    longest_row: int
    num_spans: int = 0
    num_dense_pairs: int = 0

    @classmethod
    def of_row(cls, num_tokens: int) -> Self:
        """One row that shares nothing, all of it targets: the maximum for this many tokens."""
        return cls(num_tokens, min(num_tokens, MAX_EXPLICIT_TOKENS) ** 2, num_tokens, num_tokens)


@dataclass(frozen=True)
class StepMemory:
    """The peak memory of a training step, in bytes."""

    weights: int
    adapter: int
    activations: int
    attention: int
    logits: int
    pieces: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True)
class ModelShape:
    """What the memory of a training step depends on.

    width: inputs and outputs of all linear layers but the head, added up. layer_width: the same of
    the widest layer. value_bytes: of one number in the model's precision.
    num_linear_parameters: of all linear layers but the head; they are what a quantised base packs.
    kept_token_bytes: what the backward keeps of one token in all layers, attention's probabilities
    aside; None: not counted, and a careful factor stands for it. kept_target_bytes: what it keeps
    besides of a target, in the last layer (last_layer.py).
    """

    num_parameters: int
    width: int
    layer_width: int
    num_layers: int
    num_heads: int
    hidden_size: int
    vocabulary_size: int
    value_bytes: int
    device_type: str
    num_linear_parameters: int = 0
    num_adapter_parameters: int = 0
    kept_token_bytes: float | None = None
    kept_target_bytes: float = 0.0
    cached_token_bytes: int = 0
    """Keys and values of one token in all layers."""
    quantization: str = "none"
    moment_bytes: int | None = None
    """Of the optimizer; None: two moments in float32."""

    @property
    def weight_bytes(self) -> int:
        packed = self.num_linear_parameters if self.quantization != "none" else 0
        return (self.num_parameters - packed) * self.value_bytes + self.packed_bytes

    @property
    def packed_bytes(self) -> int:
        """The linear layers of a quantised base; 0 for any other."""
        return int(self.num_linear_parameters * _QUANTISED_BYTES.get(self.quantization, 0.0))

    @property
    def adapter_bytes(self) -> int:
        """The adapter with its gradients and its optimizer."""
        moments = self.moment_bytes
        if moments is None:
            moments = _MOMENT_BYTES * self.num_adapter_parameters
        return _TRAINED_BYTES * self.num_adapter_parameters + moments

    def step_bytes(self, num_tokens: int, *, gradient_checkpointing: bool) -> int:
        """The memory of a training step over one row, including the weights."""
        return self.step_memory(MicroBatch.of_row(num_tokens), gradient_checkpointing).total

    def step_memory(self, batch: MicroBatch, gradient_checkpointing: bool) -> StepMemory:
        """The memory of a training step whose largest micro-batch is `batch`."""
        width, num_kept_layers = float(self.width), self.num_layers
        kept = self.kept_token_bytes
        if kept is None:
            kept = _ACTIVATION_FACTOR[self.device_type] * width * self.value_bytes
        of_targets = self.kept_target_bytes * batch.num_targets
        everything = kept * batch.num_tokens + of_targets
        if gradient_checkpointing:
            # The last layer is then computed at every token.
            kept, of_targets = kept + self.kept_target_bytes, 0.0
            # Each layer's input is kept, and one layer at a time is recomputed.
            inputs = self.num_layers * self.hidden_size * self.value_bytes
            kept, num_kept_layers = kept * self.layer_width / max(1.0, width) + inputs, 1
        return StepMemory(
            weights=self.weight_bytes,
            adapter=self.adapter_bytes,
            activations=int(kept * batch.num_tokens + of_targets),
            attention=self._attention_bytes(batch, num_kept_layers),
            logits=self._logit_bytes(batch.num_targets),
            pieces=self._pieces(everything, gradient_checkpointing),
        )

    def _logit_bytes(self, num_targets: int) -> int:
        has_kernel = self.device_type == "cpu" and self.value_bytes == 2 and _has_kernels()
        each = _LOGIT_COPIES * self.value_bytes if has_kernel else _LOGIT_BYTES
        return min(num_targets, _LOGIT_TARGETS) * self.vocabulary_size * each

    def _attention_bytes(self, batch: MicroBatch, num_kept_layers: int) -> int:
        explicit = 0
        if self.device_type == "cpu" or self.kept_token_bytes is None:
            counted = self.kept_token_bytes is not None
            layers = num_kept_layers + (_ATTENTION_COPIES if counted else 0)
            explicit = batch.num_pairs * self.num_heads * layers * self.value_bytes
        # Beyond, one layer's mask at a time: spread over the heads, and its parts.
        mask = batch.longest_row**2 * (self.num_heads * self.value_bytes + 8)
        if self.kept_token_bytes is not None and self.device_type == "cpu":
            return explicit if batch.longest_row <= MAX_EXPLICIT_TOKENS else mask
        return max(explicit, mask)

    def _pieces(self, activation_bytes: float, gradient_checkpointing: bool) -> int:
        if self.device_type != "cpu" or self.kept_token_bytes is None:
            return 0
        shares = _PIECES if self.quantization == "none" else _QUANTISED_PIECES
        share = shares[min(4, max(2, self.value_bytes)), gradient_checkpointing]
        return int(share * activation_bytes)


def _has_kernels() -> bool:
    # Imported here: a check of data without a model needs no torch.
    from loracle.native import kernels

    return kernels() is not None
