"""`loracle plan`: read and render the data, and estimate the run. Starts nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from loracle.data.hubs.fetching import fetch_plan
from loracle.data_check.cached import lost_rows, refuse_unreadable
from loracle.data_check.datasets import read_plan_data, renderer_of
from loracle.data_check.examine import ready_sets, render_all
from loracle.errors import DataError, ModelError, PlanError
from loracle.executors.placement import devices_of_each, num_devices_foreseen
from loracle.executors.ray_cluster import has_ray
from loracle.experiment.executing import wish_of
from loracle.experiment.foreseeing import Circumstances, foreseen
from loracle.experiment.planned import check_plan
from loracle.experiment.setup import EvaluationSet, TrainingSet, load_model
from loracle.forecast.counting import counted_shape
from loracle.forecast.machines import Machine, MachineChoice, named_machine, this_machine
from loracle.forecast.probe import probed_flops
from loracle.forecast.record import Forecast
from loracle.forecast.work import Rows
from loracle.model.max_length import LengthLimit, length_limit
from loracle.model.source import model_source
from loracle.model.step_memory import ModelShape
from loracle.model.tokenizer import Tokenizing, load_tokenizing
from loracle.plan import Plan
from loracle.training.loop import TrainingSettings


def plan_run(
    plan: Plan,
    *,
    out: Path | None = None,
    machine: MachineChoice = MachineChoice(),  # noqa: B008
    price_per_hour: float | None = None,
    probe: bool = False,
) -> Forecast:
    """What `run` would take with this plan, on this machine or on a named card.

    Raises:
        UserError: the plan, the data or the model cannot be used: every error that `run` would
            report before loading the weights.
    """
    if probe and machine.is_named:
        raise PlanError("--probe runs on this machine; remove --device and --memory, or --probe")
    lora = check_plan(plan)
    fetched = fetch_plan(plan, with_model=probe)
    datasets, _ = read_plan_data(fetched.pinned(plan))
    refuse_unreadable(datasets)
    source = model_source(plan.model, with_weights=probe)
    tokenizing = load_tokenizing(source, trust_remote_code=plan.model.trust_remote_code)
    limit = _limit_elsewhere(plan, tokenizing) if machine.is_named else None
    renderer = renderer_of(tokenizing, plan.model, plan.training, limit)
    fitted = render_all(datasets, renderer, plan.generation.max_new_tokens)
    candidates = ready_sets(fitted, "candidate")
    asked = ready_sets(fitted, "evaluation")
    if not candidates or not asked:
        allowed = f"rows may have {renderer.max_length:,} tokens ({renderer.max_length_reason})"
        lost = [*lost_rows(datasets), *([allowed] if renderer.max_length else [])]
        raise DataError(["no rows are left for training or evaluation", *lost])
    named = _named(machine) if machine.is_named else None
    shape, found_machine = _shape_and_machine(plan, tokenizing.config, lora, named)
    plan = _settled(plan, found_machine, len(candidates))
    sets = [TrainingSet.of(name, found.training_rows) for name, found in candidates.items()]
    rows = [Rows(one.name, one.sequences, one.groups) for one in sets]
    evaluations = [
        EvaluationSet(name, (), found.examples, found.prompts) for name, found in asked.items()
    ]

    def run_two_steps(first: Rows, settings: TrainingSettings, shape: ModelShape) -> float:
        model_folder = fetched.model.folder if fetched.model else None
        return probed_flops(load_model(plan, model_folder), lora, first, settings, shape)

    return foreseen(
        plan,
        rows,
        evaluations,
        shape,
        found_machine,
        Circumstances(
            forest=plan.training.batching != "padded",
            root=out,
            price_per_hour=price_per_hour,
            probe=run_two_steps if probe else None,
        ),
    )


def _limit_elsewhere(plan: Plan, tokenizing: Tokenizing) -> LengthLimit:
    """The longest row on a named machine: this one's memory says nothing about it, and a row that
    is too long for that one shows as a forecast that does not fit."""
    if plan.training.max_length is not None:
        return LengthLimit(plan.training.max_length, "training.max_length")
    return length_limit(tokenizing.max_length_tokens, None, None)


def _settled(plan: Plan, machine: Machine, num_candidates: int) -> Plan:
    """The plan with the number of processes that share a training."""
    wish = wish_of(plan)
    each = devices_of_each(wish, machine.num_devices, num_candidates * len(plan.seeds))
    if machine.device_type == "cuda":
        each = min(each, machine.num_devices)
    training = plan.training.model_copy(update={"data_parallel": 1 if wish.spreads else each})
    return plan.model_copy(update={"training": training})


def _named(choice: MachineChoice) -> Machine:
    return named_machine(choice.device, choice.memory, choice.count)


def _shape_and_machine(
    plan: Plan, config: object, lora: object, named: Machine | None
) -> tuple[ModelShape, Machine]:
    import torch

    from loracle.model.base import chosen_dtype
    from loracle.model.placement import AUTO, chosen_device

    device = chosen_device(AUTO if named is not None else plan.model.device)
    dtype = chosen_dtype(plan.model.dtype, device)
    if named is not None and plan.model.dtype == "auto":
        dtype = torch.bfloat16
    machine = named or _used(plan, this_machine(str(dtype).removeprefix("torch."), device.type))
    shape = counted_shape(
        config,
        lora,
        dtype,
        machine.device_type,
        quantization=plan.model.quantization,
        optimizer=plan.training.optimizer,
        trust_remote_code=plan.model.trust_remote_code,
    )
    if shape is None:
        raise ModelError(
            f"model {plan.model.name}: the model cannot be built without weights, so there is no "
            "forecast; start it with `loracle run`"
        )
    return shape, machine


def _used(plan: Plan, machine: Machine) -> Machine:
    """The machine with those of its devices that the run would use."""
    num_devices = num_devices_foreseen(plan.devices, machine.num_devices, has_ray=has_ray())
    return dataclasses.replace(machine, num_devices=num_devices)
