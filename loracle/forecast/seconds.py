"""From counted work to time.

training    products of the linear layers, forward and backward, at the machine's rate, and what
            layers cost beside them (layer_rates.py), where that was measured
answering   prompts at the same rate; each decoding pass reads the weights once
"""

from __future__ import annotations

from typing import NamedTuple

from loracle.forecast.machines import LayerRates, Machine, used_share
from loracle.forecast.work import AnsweringWork, TrainingWork
from loracle.model.step_memory import ModelShape

REPLICA_EFFICIENCY = 0.92
"""The share of a device that a step gains with every GPU. Measured on a CPU only, and rounded down:
two processes of one core take 0.52 of one's time (benchmarks/results/data_parallel.json)."""


class Beside(NamedTuple):
    """What a training does beside its products, in all of its layers."""

    num_layers: int
    num_spans: int
    kept_bytes: float
    num_dense_pairs: int
    num_unpacked: int
    num_stepped_layers: int

    def seconds(self, rates: LayerRates) -> float:
        return (
            self.num_layers * rates.layer_seconds
            + self.num_spans * rates.span_seconds
            + self.kept_bytes * rates.kept_byte_seconds
            + self.num_dense_pairs * rates.dense_pair_seconds
            + self.num_unpacked * rates.unpacking_seconds
            + self.num_stepped_layers * rates.optimizer_layer_seconds
        )


def beside(work: TrainingWork, shape: ModelShape, gradient_checkpointing: bool) -> Beside:
    """num_dense_pairs: by head. num_unpacked: weights of a quantised base, once in every pass."""
    kept = shape.kept_token_bytes
    if kept is None:
        kept = 2.0 * shape.width * shape.value_bytes
    probabilities = work.num_pairs * shape.num_heads * shape.num_layers * shape.value_bytes
    num_passes = 3 if gradient_checkpointing else 2
    packed = shape.num_linear_parameters if shape.quantization != "none" else 0
    return Beside(
        num_layers=shape.num_layers * work.num_micro_batches,
        num_spans=shape.num_layers * work.num_spans,
        kept_bytes=kept * work.tokens_computed
        + shape.kept_target_bytes * work.num_targets
        + probabilities,
        num_dense_pairs=shape.num_heads * shape.num_layers * work.num_dense_pairs,
        num_unpacked=packed * num_passes * work.num_micro_batches,
        num_stepped_layers=shape.num_layers * work.num_steps,
    )


def training_flops(work: TrainingWork, shape: ModelShape, gradient_checkpointing: bool) -> float:
    """Products of a training: base layers forward and back to their inputs, head at targets."""
    passes = 6.0 if gradient_checkpointing else 4.0
    linear = passes * shape.num_linear_parameters * work.tokens_computed
    head = 4.0 * shape.hidden_size * shape.vocabulary_size * work.num_targets
    # Scores and their mixing, forward and twice back, on as many features as the model is wide.
    attention = 3 * passes * shape.hidden_size * shape.num_layers * work.num_pairs
    return linear + head + attention


def training_seconds(
    work: TrainingWork,
    shape: ModelShape,
    machine: Machine,
    gradient_checkpointing: bool,
    *,
    probed_flops: float | None = None,
    num_replicas: int = 1,
) -> float:
    """The time of one training. probed_flops: the rate that two real steps reached."""
    flops = training_flops(work, shape, gradient_checkpointing)
    rates = machine.layer_rates
    if probed_flops is None and rates is not None:
        others = beside(work, shape, gradient_checkpointing).seconds(rates)
        return flops / max(machine.flops, 1.0) + others
    rate = probed_flops or machine.flops * used_share(machine.device_type, shape.value_bytes)
    if machine.device_type == "cuda" and num_replicas > 1:
        rate *= num_replicas * REPLICA_EFFICIENCY
    return flops / max(rate, 1.0)


def answering_seconds(work: AnsweringWork, shape: ModelShape, machine: Machine) -> float:
    """The time of one model's answers to one evaluation set."""
    products = 2.0 * shape.num_linear_parameters
    head = 2.0 * shape.hidden_size * shape.vocabulary_size
    flops = products * work.tokens_computed + head * work.num_questions
    flops += (products + head) * work.num_new_tokens
    reading = work.num_steps * shape.weight_bytes / max(1.0, machine.bytes_per_second)
    rates = machine.layer_rates
    if rates is None:
        share = used_share(machine.device_type, shape.value_bytes)
        return reading + flops / max(1.0, machine.flops * share)
    num_tokens = work.tokens_computed + work.num_new_tokens
    kept = (shape.kept_token_bytes or 0.0) * num_tokens
    layers = shape.num_layers * (work.num_steps + work.num_prefills)
    packed = shape.num_linear_parameters if shape.quantization != "none" else 0
    return (
        reading
        + flops / max(1.0, machine.flops)
        + layers * rates.answering_layer_seconds
        + kept * rates.answering_byte_seconds
        + packed * (work.num_steps + work.num_prefills) * rates.unpacking_seconds
    )
