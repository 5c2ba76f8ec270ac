"""From the work, the shape and the machine to hours, memory and disk.

time     seconds.py
memory   step_memory.py, and the keys and values of a batch of prompts
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loracle.forecast.advice import advice_for
from loracle.forecast.disk import trial_disk
from loracle.forecast.machines import Machine, process_bytes
from loracle.forecast.record import CandidateForecast, Forecast
from loracle.forecast.seconds import answering_seconds, training_seconds
from loracle.forecast.work import GUESS_TOKENS, AnsweringBatch, AnsweringWork, TrainingWork
from loracle.model.max_length import SPARE_SHARE
from loracle.model.step_memory import MicroBatch, ModelShape, StepMemory

_LOGIT_NODES, _LOGIT_BYTES = 256, 8
"""Prompts' logits that exist at once (prefill.py), in float32 and two copies."""
_GATHERED = 2
"""While answers are decoded, the keys of their prompts are there a second time (decoding.py)."""
MAX_BATCH_SIZE = 256


@dataclass(frozen=True)
class Request:
    """What to forecast.

    training, answering: by candidate; by evaluation set, of an adapter and of the base (whose
    answers are longer). seconds_per_step: of a probe, by candidate. num_replicas: processes that
    share a training; on a processor they share its cores, too.
    """

    model: str
    dtype: str
    shape: ModelShape
    training: Mapping[str, TrainingWork]
    answering: Sequence[AnsweringWork]
    base_answering: Sequence[AnsweringWork]
    num_seeds: int
    micro_batch_tokens: int
    gradient_checkpointing: bool
    longest_row: int
    free_disk_bytes: int | None = None
    probed_flops: float | None = None
    price_per_hour: float | None = None
    notes: tuple[str, ...] = ()
    num_replicas: int = 1
    answering_batch: int | None = None


def foresee(request: Request, machine: Machine) -> Forecast:
    """Everything that an experiment will take on a machine."""
    shape = request.shape
    of_process = process_bytes(machine.device_type)
    steps = {
        name: shape.step_memory(work.largest, request.gradient_checkpointing)
        for name, work in request.training.items()
    }
    answers = [*request.answering, *request.base_answering]
    of_answers = sum(answering_seconds(work, shape, machine) for work in request.answering)
    candidates = tuple(
        _candidate(request, machine, name, of_answers, of_process + steps[name].total)
        for name in request.training
    )
    answering_bytes = max(answering_memory(shape, work.batch) for work in answers) + of_process
    base_seconds = sum(answering_seconds(w, shape, machine) for w in request.base_answering)
    of_each = request.num_replicas if machine.device_type == "cuda" else 1
    trials = [c.training_seconds + c.answering_seconds for c in candidates] * request.num_seeds
    seconds = longest_queue(trials, machine.num_devices // of_each) + base_seconds
    heaviest = max(steps.values(), key=lambda step: step.total)
    largest_batch = largest_answering_batch(
        shape, usable_bytes(machine), max(answers, key=lambda work: work.batch.num_nodes).batch
    )
    found = Forecast(
        machine=machine.name,
        device_type=machine.device_type,
        num_devices=machine.num_devices,
        is_here=machine.is_here,
        memory_bytes=machine.memory_bytes,
        model=request.model,
        num_parameters=shape.num_parameters,
        dtype=request.dtype,
        quantization=shape.quantization,
        num_runs_each=request.num_seeds,
        candidates=candidates,
        base_answering_seconds=base_seconds,
        tokens_read=request.num_seeds * sum(c.tokens_read for c in candidates),
        tokens_computed=request.num_seeds * sum(c.tokens_computed for c in candidates),
        seconds=seconds,
        training_parts=dataclasses.asdict(heaviest),
        process_bytes=of_process,
        answering_bytes=answering_bytes,
        disk_bytes=_disk_bytes(request),
        free_disk_bytes=request.free_disk_bytes,
        micro_batch_tokens=request.micro_batch_tokens,
        gradient_checkpointing=request.gradient_checkpointing,
        largest_micro_batch_tokens=largest_micro_batch(
            shape, machine, request.longest_row, request.gradient_checkpointing
        ),
        largest_answering_batch=largest_batch,
        longest_row=request.longest_row,
        fits=of_process + heaviest.total <= usable_bytes(machine) and largest_batch > 0,
        advice=(),
        notes=request.notes,
        price=_price(seconds, machine, request.price_per_hour),
        num_replicas=request.num_replicas,
        price_per_hour=request.price_per_hour,
        answering_batch=request.answering_batch,
    )
    return dataclasses.replace(found, advice=advice_for(found, shape, usable_bytes(machine)))


def _candidate(
    request: Request, machine: Machine, name: str, of_answers: float, training_bytes: int
) -> CandidateForecast:
    work = request.training[name]
    return CandidateForecast(
        name=name,
        num_steps=work.num_steps,
        tokens_read=work.tokens_read,
        tokens_computed=work.tokens_computed,
        training_seconds=training_seconds(
            work,
            request.shape,
            machine,
            request.gradient_checkpointing,
            probed_flops=request.probed_flops,
            num_replicas=request.num_replicas,
        ),
        answering_seconds=of_answers,
        training_bytes=training_bytes,
    )


def longest_queue(seconds: Sequence[float], num_at_once: int) -> float:
    """How long it takes until all are done, if the longest ones start first."""
    queues = [0.0] * max(1, num_at_once)
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(queues, queues[0] + one)
    return max(queues)


def usable_bytes(machine: Machine) -> int:
    """The share of memory that a plan may use: the rest is for uncounted memory and other
    programs."""
    return int((1 - SPARE_SHARE) * machine.memory_bytes)


def largest_micro_batch(
    shape: ModelShape, machine: Machine, longest_row: int, gradient_checkpointing: bool
) -> int:
    """The most tokens computed at once that fit, in steps of 256; 0: not even the longest row."""
    usable = usable_bytes(machine) - process_bytes(machine.device_type)

    def fits(num_tokens: int) -> bool:
        row = max(1, min(num_tokens, max(longest_row, 1)))
        batch = MicroBatch(num_tokens, num_tokens * min(row, 1024), num_tokens, row)
        return shape.step_memory(batch, gradient_checkpointing).total <= usable

    if not fits(max(1, min(longest_row, 256))) or not fits(longest_row):
        return 0
    low, high = 1, 1 << 12
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(256 * middle) else (low, middle - 1)
    return max(256 * low, longest_row)


def answering_memory(shape: ModelShape, batch: AnsweringBatch) -> int:
    """Peak memory of answering a batch: weights, keys and values, and what is computed at once."""
    kept = batch.num_nodes * shape.cached_token_bytes * _GATHERED
    branches = batch.num_questions * (batch.num_new_tokens + GUESS_TOKENS)
    attention = 2 * batch.prefill.num_pairs * shape.num_heads * shape.value_bytes
    if shape.device_type != "cpu":
        # At most one layer's mask; kernels for GPUs have none.
        attention = batch.prefill.longest_row**2 * (shape.num_heads * shape.value_bytes + 8)
    at_once = StepMemory(
        weights=shape.weight_bytes,
        adapter=4 * shape.num_adapter_parameters,
        activations=2 * shape.layer_width * shape.value_bytes * batch.prefill.num_tokens,
        attention=attention,
        logits=_LOGIT_NODES * shape.vocabulary_size * _LOGIT_BYTES,
        pieces=0,
    )
    return at_once.total + kept + branches * shape.cached_token_bytes


def largest_answering_batch(shape: ModelShape, usable: int, batch: AnsweringBatch) -> int:
    """The most questions like those of `batch` that can be answered together: 0 to 256."""

    def fits(num_questions: int) -> bool:
        return answering_memory(shape, _scaled(batch, num_questions)) <= usable

    low, high = 0, MAX_BATCH_SIZE
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _scaled(batch: AnsweringBatch, num_questions: int) -> AnsweringBatch:
    """A batch of this many questions like those of another. The tokens computed at once stay the
    same, but are no more than there are."""
    nodes = -(-batch.num_nodes * num_questions // max(1, batch.num_questions))
    whole = batch.prefill
    at_once = min(whole.num_tokens, max(nodes, whole.longest_row))
    pairs = -(-whole.num_pairs * at_once // max(1, whole.num_tokens))
    prefill = whole._replace(num_tokens=at_once, num_pairs=pairs)
    return batch._replace(num_questions=num_questions, num_nodes=nodes, prefill=prefill)


def _disk_bytes(request: Request) -> int:
    num_questions = sum(work.num_questions for work in request.base_answering)
    num_new_tokens = max(work.batch.num_new_tokens for work in request.base_answering)
    num_parameters = request.shape.num_adapter_parameters
    kept, checkpoints = trial_disk(
        num_parameters, num_questions, num_new_tokens, request.shape.moment_bytes
    )
    num_trials = request.num_seeds * len(request.training)
    answers_of_base = trial_disk(0, num_questions, num_new_tokens).kept
    return num_trials * kept + checkpoints + answers_of_base


def _price(seconds: float, machine: Machine, per_hour: float | None) -> float | None:
    return None if per_hour is None else per_hour * machine.num_devices * seconds / 3600
