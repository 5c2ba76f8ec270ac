"""The cost of an experiment, from its rendered rows; and the values of its `auto` settings."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from loracle.experiment.setup import (
    EvaluationSet,
    ExperimentSetup,
    TrainingSet,
    generation_settings,
    training_settings,
)
from loracle.forecast.alternatives import Seconds, alternatives
from loracle.forecast.batch import DEFAULT_BATCH_SIZE, recommended_batch_size
from loracle.forecast.choosing import Chosen, chosen
from loracle.forecast.counting import counted_shape
from loracle.forecast.foresee import (
    Request,
    foresee,
    largest_answering_batch,
    longest_queue,
    usable_bytes,
)
from loracle.forecast.layer_rates import LayerKind, layer_rates
from loracle.forecast.machines import Machine, process_bytes, this_machine
from loracle.forecast.record import Forecast, ForecastRecord, read_forecast, write_forecast
from loracle.forecast.seconds import training_seconds
from loracle.forecast.work import AnsweringWork, Rows, TrainingWork, answering_work, training_work
from loracle.forest.trie import Sequences
from loracle.model.base import BaseModel
from loracle.model.step_memory import ModelShape
from loracle.plan import Plan
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter
from loracle.text import counted
from loracle.training.loop import TrainingSettings

_DIFFERENT = "answers that end early, and drafts, make answering faster than predicted"
_NOT_COUNTED = "loading the model and starting Python are not counted"
_Probe = Callable[[Rows, TrainingSettings, ModelShape], float]


class Circumstances(NamedTuple):
    """What a forecast counts beside the work.

    forest: whether prefixes are shared. root: where the run folder will be. probe: runs two real
    steps if the model is loaded, and returns the rate they reached.
    """

    forest: bool = True
    root: Path | None = None
    price_per_hour: float | None = None
    probe: _Probe | None = None


def settled(
    plan: Plan,
    setup: ExperimentSetup,
    training_sets: Mapping[str, TrainingSet],
    folder: RunFolder,
    report: Reporter,
    num_slots: int = 1,
) -> ExperimentSetup:
    """The setup with values for `auto`; also writes forecast.json when a run first starts.

    A later start reuses the first one's values, so that a resumed run splits its steps the same
    way.
    num_slots: how many trials run at the same time.
    """
    recorded = read_forecast(folder.root)
    if recorded is not None and recorded.plan_fingerprint == setup.plan_fingerprint:
        found = recorded.forecast
        setup = _with_batch(setup, found.answering_batch, report)
        return _with(setup, Chosen(found.micro_batch_tokens, found.gradient_checkpointing))
    batch = _recommended_batch(plan, setup)
    if not training_sets:
        return _with_batch(setup, batch, report)
    base = setup.base
    shape = counted_shape(
        base.model.config,
        setup.lora_config,
        base.dtype,
        base.device.type,
        quantization=plan.model.quantization,
        optimizer=plan.training.optimizer,
        trust_remote_code=plan.model.trust_remote_code,
    )
    if shape is None:
        report.emit(
            "warning", message="no forecast: this kind of model cannot be built without weights"
        )
        # What memory allows now cannot be kept for a later start.
        return _with_batch(setup, batch and DEFAULT_BATCH_SIZE, report)
    here = this_machine(str(base.dtype).removeprefix("torch."), base.device.type)
    num_each = num_replicas_of(plan) if here.device_type == "cuda" else 1
    used = dataclasses.replace(here, num_devices=num_slots * num_each)
    machine = _with_weights(used, base, shape)
    rows = _rows(training_sets)
    choice = _choice(plan, shape, machine, rows, forest=setup.training.forest)
    # Training alone is not a run, and has no forecast.
    if setup.evaluations:
        forest = setup.training.forest
        planned = _with_batch_size(plan, batch) if batch else plan
        made = foreseen(
            planned, rows, setup.evaluations, shape, machine, Circumstances(forest, folder.root)
        )
        made = dataclasses.replace(made, answering_batch=batch)
        record = ForecastRecord(setup.plan_fingerprint, made)
        write_forecast(folder.root, record, folder.write_json)
    return _with(_with_batch(setup, batch, report), choice)


def _recommended_batch(plan: Plan, setup: ExperimentSetup) -> int | None:
    """What `generation.batch_size: auto` stands for; None if the plan says it."""
    if plan.generation.batch_size != "auto" or not setup.evaluations:
        return None
    lengths = [len(prompt.token_ids) for one in setup.evaluations for prompt in one.prompts]
    return recommended_batch_size(setup.base.model, lengths, setup.generation.max_new_tokens)


def _with_batch(setup: ExperimentSetup, batch: int | None, report: Reporter) -> ExperimentSetup:
    if batch is None:
        return setup
    report.emit("batch_size_chosen", batch_size=batch)
    return dataclasses.replace(
        setup, generation=dataclasses.replace(setup.generation, batch_size=batch)
    )


def note_measured(folder: RunFolder, peak_memory_bytes: int, seconds: float) -> None:
    """Write what this start took next to what was predicted."""
    recorded = read_forecast(folder.root)
    if recorded is not None:
        measured = recorded.with_measured(peak_memory_bytes, seconds)
        write_forecast(folder.root, measured, folder.write_json)


def foreseen(
    plan: Plan,
    rows: Sequence[Rows],
    evaluations: Sequence[EvaluationSet],
    shape: ModelShape,
    machine: Machine,
    given: Circumstances = Circumstances(),  # noqa: B008
) -> Forecast:
    """What the plan will take on a machine."""
    choice = _choice(plan, shape, machine, rows, forest=given.forest)
    planned = dataclasses.replace(
        training_settings(plan.training, machine.device_type, forest=given.forest),
        budget_tokens=choice.budget_tokens,
        gradient_checkpointing=choice.gradient_checkpointing,
    )
    if machine.is_here and machine.device_type == "cpu" and given.probe is None:
        machine = _with_layer_rates(machine, shape, choice.gradient_checkpointing, _longest(rows))
    training = {one.name: training_work(one, planned) for one in rows}
    answered = _with_answering_batch(plan, evaluations, shape, machine)
    request = Request(
        model=plan.model.name,
        dtype={2: "half precision", 4: "float32"}.get(shape.value_bytes, "float32"),
        shape=shape,
        training=training,
        answering=[_answering(answered, one, machine, of_base=False) for one in evaluations],
        base_answering=[_answering(answered, one, machine, of_base=True) for one in evaluations],
        num_seeds=len(plan.seeds),
        micro_batch_tokens=choice.budget_tokens,
        gradient_checkpointing=choice.gradient_checkpointing,
        longest_row=_longest(rows),
        free_disk_bytes=_free_disk_bytes(given.root) if machine.is_here else None,
        probed_flops=given.probe(rows[0], planned, shape) if given.probe else None,
        price_per_hour=given.price_per_hour,
        notes=tuple(_notes(plan, training.values(), machine)),
        num_replicas=num_replicas_of(plan),
        answering_batch=_batch_size(answered if plan.generation.batch_size == "auto" else plan),
    )
    found = foresee(request, machine)
    if machine.device_type != "cuda" or given.probe is not None:
        return found
    seconds = _training_seconds(plan, machine, rows, forest=given.forest)
    others = alternatives(shape, machine, _longest(rows), choice, seconds)
    return dataclasses.replace(found, alternatives=others)


def _notes(plan: Plan, training: Collection[TrainingWork], machine: Machine) -> Iterator[str]:
    yield _DIFFERENT
    yield _NOT_COUNTED
    if any(work.num_counted_steps < work.num_steps for work in training):
        yield "for long trainings, 64 steps were counted"
    if machine.device_type == "cuda":
        yield "a GPU's hours come from published rates; --probe measures them on this machine"
        num_idle = machine.num_devices - len(training) * len(plan.seeds) * num_replicas_of(plan)
        if num_idle > 0:
            yield (
                f"{counted(num_idle, 'device')} would have no training; "
                "training.data_parallel: auto shares them out"
            )


def _with_layer_rates(
    machine: Machine, shape: ModelShape, gradient_checkpointing: bool, longest_row: int
) -> Machine:
    """The machine with what layers cost on its processor beside their products."""
    found = layer_rates(LayerKind.of(shape, gradient_checkpointing, longest_row))
    return dataclasses.replace(machine, layer_rates=found)


def _batch_size(plan: Plan) -> int:
    asked = plan.generation.batch_size
    return DEFAULT_BATCH_SIZE if asked == "auto" else asked


def _with_answering_batch(
    plan: Plan, evaluations: Sequence[EvaluationSet], shape: ModelShape, machine: Machine
) -> Plan:
    """The plan with the questions that will be answered together: those asked for, or what fits,
    which is where a run that runs out of memory ends up."""
    if not machine.memory_bytes:
        return plan
    works = [_answering(plan, one, machine, of_base=True) for one in evaluations]
    fitting = [largest_answering_batch(shape, usable_bytes(machine), one.batch) for one in works]
    return _with_batch_size(plan, max(1, min(_batch_size(plan), *fitting)))


def _with_batch_size(plan: Plan, number: int) -> Plan:
    generation = plan.generation.model_copy(update={"batch_size": number})
    return plan.model_copy(update={"generation": generation})


def _answering(
    plan: Plan, evaluation: EvaluationSet, machine: Machine, *, of_base: bool
) -> AnsweringWork:
    """An adapter's answers are about as long as the references; the base is assumed to use the full
    length."""
    settings = generation_settings(plan.generation, machine.device_type, answer_nll=False)
    most = settings.max_new_tokens
    lengths = [
        most
        if of_base or not prompt.reference_ids
        else min(most, max(len(ids) for ids in prompt.reference_ids))
        for prompt in evaluation.prompts
    ]
    prompts = Sequences.of([prompt.token_ids for prompt in evaluation.prompts])
    return answering_work(prompts, lengths, settings.batch_size, settings.budget_tokens)


def _choice(
    plan: Plan,
    shape: ModelShape,
    machine: Machine,
    rows: Sequence[Rows],
    *,
    forest: bool = True,
) -> Chosen:
    training = plan.training
    if machine.device_type == "cpu":
        # Every process that shares in a training holds the base, in the same memory.
        own_bytes = machine.memory_bytes // num_replicas_of(plan)
        machine = dataclasses.replace(machine, memory_bytes=own_bytes)
    compare = _training_seconds(plan, machine, rows, forest=forest)
    return chosen(
        training.micro_batch_tokens,
        training.gradient_checkpointing,
        shape,
        machine,
        _longest(rows),
        # On a CPU, each way would have to be measured.
        partial(compare, shape) if machine.device_type == "cuda" else None,
    )


def _training_seconds(
    plan: Plan, machine: Machine, rows: Sequence[Rows], *, forest: bool
) -> Seconds:
    """How long all trainings take together on a GPU, by the base's shape and what is chosen."""
    settings = training_settings(plan.training, machine.device_type, forest=forest)
    num_replicas = num_replicas_of(plan)
    num_at_once = machine.num_devices // num_replicas

    @cache
    def works(budget_tokens: int) -> list[TrainingWork]:
        planned = dataclasses.replace(settings, budget_tokens=budget_tokens)
        return [training_work(one, planned) for one in rows]

    def seconds(shape: ModelShape, choice: Chosen) -> float:
        on = choice.gradient_checkpointing
        of_all = [
            training_seconds(work, shape, machine, on, num_replicas=num_replicas)
            for work in works(choice.budget_tokens)
        ]
        return longest_queue(of_all * len(plan.seeds), num_at_once)

    return seconds


def num_replicas_of(plan: Plan) -> int:
    """How many processes share a training; auto is settled where a run's trials are placed."""
    number = plan.training.data_parallel
    return 1 if number == "auto" else number


def _rows(training_sets: Mapping[str, TrainingSet]) -> list[Rows]:
    return [Rows(one.name, one.sequences, one.groups) for one in training_sets.values()]


def _longest(rows: Sequence[Rows]) -> int:
    return max(int(one.sequences.lengths.max(initial=1)) for one in rows)


def _with(setup: ExperimentSetup, choice: Chosen) -> ExperimentSetup:
    training: Any = dataclasses.replace(
        setup.training,
        budget_tokens=choice.budget_tokens,
        gradient_checkpointing=choice.gradient_checkpointing,
    )
    return dataclasses.replace(setup, training=training)


def _with_weights(machine: Machine, base: BaseModel, shape: ModelShape) -> Machine:
    """Free memory excludes the weights and the libraries, which the forecast also counts."""
    taken = shape.weight_bytes + process_bytes(base.device.type)
    return dataclasses.replace(machine, memory_bytes=machine.memory_bytes + taken)


def _free_disk_bytes(root: Path | None) -> int:
    place = (root or Path()).absolute()
    return shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
