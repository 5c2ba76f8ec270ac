"""From counted work to time.

training    products of the linear layers, forward and backward, at the machine's rate, and what
            layers cost beside them (parts.py), where that was measured (layer_rates.py)
answering   prompts at the same rate; each decoding pass reads the weights once
a GPU       the share of its rate that trainings reach, no less than what starting its kernels
            takes, and unpacking the weights of a quantised base
"""

from __future__ import annotations

from loracle.forecast.machines import Machine, used_share
from loracle.forecast.parts import parts_of_answering, parts_of_training, seconds_of
from loracle.forecast.work import AnsweringWork, TrainingWork
from loracle.model.step_memory import ModelShape

REPLICA_EFFICIENCY = 0.92
"""The share of a device that a step gains with every GPU. Measured on a CPU only, and rounded down:
two processes of one core take 0.52 of one's time (benchmarks/results/data_parallel.json)."""
_GPU_LAYER_SECONDS = 0.0006
"""Estimated: a layer's forward pass with LoRA starts about 80 kernels, 7 microseconds each, however
little they compute."""


def training_flops(work: TrainingWork, shape: ModelShape, gradient_checkpointing: bool) -> float:
    """Products of a training: base layers forward and back to their inputs, head at targets.

    The first layer's queries, keys and values pass no gradient to the frozen embedding; behind its
    attention, the last layer is computed at targets only, unless it is computed again.
    """
    passes = 6.0 if gradient_checkpointing else 4.0
    keys_values = _keys_values_parameters(shape)
    linear = passes * shape.num_linear_parameters * work.tokens_computed
    linear -= 2.0 * (shape.hidden_size**2 + keys_values) * work.tokens_computed
    if not gradient_checkpointing:
        elsewhere = max(0, work.tokens_computed - work.num_targets)
        linear -= passes * _behind_attention(shape) * elsewhere
    head = 4.0 * shape.hidden_size * shape.vocabulary_size * work.num_targets
    # Scores and their mixing, forward and twice back, on as many features as the model is wide.
    attention = 3 * passes * shape.hidden_size * shape.num_layers * work.num_pairs
    return max(0.0, linear) + head + attention


def answering_flops(work: AnsweringWork, shape: ModelShape) -> float:
    """Products of an answering; in the last layer, prompts are computed at their ends only. Those
    of the output head are not among them."""
    products = 2.0 * shape.num_linear_parameters
    elsewhere = max(0, work.tokens_computed - work.num_questions)
    flops = products * (work.tokens_computed + work.num_new_tokens)
    attention = 4.0 * shape.hidden_size * shape.num_layers * work.num_pairs
    return flops + attention - 2.0 * _behind_attention(shape) * elsewhere


def _keys_values_parameters(shape: ModelShape) -> float:
    """Weights that make one layer's keys and values."""
    num_values = shape.cached_token_bytes / (shape.num_layers * shape.value_bytes)
    return shape.hidden_size * num_values


def _behind_attention(shape: ModelShape) -> float:
    """Weights of one layer that come after its attention, which serve the token itself alone."""
    of_layer = shape.num_linear_parameters / shape.num_layers
    return max(0.0, of_layer - 2.0 * shape.hidden_size**2 - _keys_values_parameters(shape))


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
        others = parts_of_training(work, shape, gradient_checkpointing)
        return flops / max(machine.flops, 1.0) + seconds_of(others, rates.training)
    rate = probed_flops or machine.flops * used_share(machine.device_type, shape.value_bytes)
    seconds = flops / max(rate, 1.0)
    if machine.device_type != "cuda":
        return seconds
    if probed_flops is None:
        num_passes = 3 if gradient_checkpointing else 2
        # A backward starts about twice as many kernels as its forward.
        num_starts = (num_passes + 1) * work.num_micro_batches
        seconds = max(seconds, num_starts * shape.num_layers * _GPU_LAYER_SECONDS)
        seconds += _unpacking_seconds(shape, machine, num_passes * work.num_micro_batches)
    return seconds / (num_replicas * REPLICA_EFFICIENCY if num_replicas > 1 else 1.0)


def answering_seconds(work: AnsweringWork, shape: ModelShape, machine: Machine) -> float:
    """The time of one model's answers to one evaluation set."""
    flops = answering_flops(work, shape)
    rates = machine.layer_rates
    num_passes = work.num_steps + work.num_prefills
    if rates is None:
        reading = work.num_steps * shape.weight_bytes / max(1.0, machine.bytes_per_second)
        share = used_share(machine.device_type, shape.value_bytes)
        num_logits = shape.vocabulary_size * (work.num_questions + work.num_new_tokens)
        flops += 2.0 * shape.hidden_size * num_logits
        seconds = reading + flops / max(1.0, machine.flops * share)
        if machine.device_type != "cuda":
            return seconds
        seconds = max(seconds, num_passes * shape.num_layers * _GPU_LAYER_SECONDS)
        return seconds + _unpacking_seconds(shape, machine, num_passes)
    others = seconds_of(parts_of_answering(work, shape), rates.answering)
    return flops / max(1.0, machine.flops) + others


def _unpacking_seconds(shape: ModelShape, machine: Machine, num_passes: int) -> float:
    """A GPU reads the packed weights, writes them in the model's precision and reads these."""
    if shape.quantization == "none":
        return 0.0
    unpacked = shape.num_linear_parameters * shape.value_bytes
    packed = shape.packed_bytes
    return num_passes * (packed + 2 * unpacked) / max(1.0, machine.bytes_per_second)
