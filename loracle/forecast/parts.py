"""What a training and an answering do beside matrix products: counts and seconds.

    TrainingParts    per gradient of a micro-batch, per layer, per weight, per byte kept, ...
    AnsweringParts   per pass, per layer, per weight, per (query, key) pair, ...

The same tuple holds counts (parts_of_training) or seconds for one (layer_rates.py);
`seconds_of` multiplies the two.
"""

from __future__ import annotations

from typing import NamedTuple

from loracle.forecast.work import AnsweringWork, TrainingWork
from loracle.model.step_memory import ModelShape


class TrainingParts(NamedTuple):
    """passes: micro-batches, forward and backward, whatever they hold. layers, weights: layers and
    weights that a micro-batch passes through, however few its tokens: Python, and reading,
    reordering or unpacking the weights. cuts: spans of explicit attention, which are cut once a
    micro-batch. spans: the same in every layer. kept_bytes: what the backward
    keeps, which is written once and read once. dense_pairs: (query, key) pairs and heads of torch's
    own attention. logits: targets times vocabulary. stepped_layers: layers that the optimizer
    steps."""

    passes: float = 0.0
    layers: float = 0.0
    weights: float = 0.0
    cuts: float = 0.0
    spans: float = 0.0
    kept_bytes: float = 0.0
    dense_pairs: float = 0.0
    logits: float = 0.0
    stepped_layers: float = 0.0


class AnsweringParts(NamedTuple):
    """passes: over prompts, and of decoding. layers, weights: as in TrainingParts. kept_bytes: as
    a training would keep of the same tokens. pairs: (query, key) pairs and heads of decoding; keys:
    stored keys and heads that its passes read; gathered: the same, once for every batch.
    heads, logits: weights of the output head by passes, and choices times vocabulary; both with
    their products, which are of few tokens."""

    passes: float = 0.0
    layers: float = 0.0
    weights: float = 0.0
    kept_bytes: float = 0.0
    pairs: float = 0.0
    keys: float = 0.0
    gathered: float = 0.0
    heads: float = 0.0
    logits: float = 0.0


class LayerRates(NamedTuple):
    """What one part of a kind takes, in seconds."""

    training: TrainingParts
    answering: AnsweringParts


def seconds_of(
    counts: TrainingParts | AnsweringParts, rates: TrainingParts | AnsweringParts
) -> float:
    """The time of all parts together."""
    return sum(count * rate for count, rate in zip(counts, rates, strict=True))


def parts_of_training(
    work: TrainingWork, shape: ModelShape, gradient_checkpointing: bool
) -> TrainingParts:
    """Count what a training does beside its products."""
    probabilities = work.num_pairs * shape.num_heads * shape.num_layers * shape.value_bytes
    of_targets = shape.kept_target_bytes * work.num_targets
    if gradient_checkpointing:
        # The last layer is then computed at every token (last_layer.py).
        of_targets = shape.kept_target_bytes * work.tokens_computed
    return TrainingParts(
        passes=work.num_micro_batches,
        layers=shape.num_layers * work.num_micro_batches,
        weights=shape.num_linear_parameters * work.num_micro_batches,
        cuts=work.num_spans,
        spans=shape.num_layers * work.num_spans,
        kept_bytes=_kept_token_bytes(shape) * work.tokens_computed + of_targets + probabilities,
        dense_pairs=shape.num_heads * shape.num_layers * work.num_dense_pairs,
        logits=shape.vocabulary_size * work.num_targets,
        stepped_layers=shape.num_layers * work.num_steps,
    )


def parts_of_answering(work: AnsweringWork, shape: ModelShape) -> AnsweringParts:
    """Count what an answering does beside its products."""
    num_passes = work.num_steps + work.num_prefills
    num_tokens = work.tokens_computed + work.num_new_tokens
    heads = shape.num_heads * shape.num_layers
    kept = _kept_token_bytes(shape) * num_tokens + work.num_pairs * heads * shape.value_bytes
    return AnsweringParts(
        passes=num_passes,
        layers=shape.num_layers * num_passes,
        weights=shape.num_linear_parameters * num_passes,
        kept_bytes=kept,
        pairs=heads * work.num_decoding_pairs,
        keys=heads * work.num_decoding_keys,
        gathered=heads * work.num_gathered_keys,
        heads=shape.hidden_size * shape.vocabulary_size * num_passes,
        logits=shape.vocabulary_size * (work.num_questions + work.num_new_tokens),
    )


def _kept_token_bytes(shape: ModelShape) -> float:
    kept = shape.kept_token_bytes
    return 2.0 * shape.width * shape.value_bytes if kept is None else kept
