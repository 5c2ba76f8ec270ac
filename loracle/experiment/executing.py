"""Where the trials of a run are executed: in this process, or in workers on several devices.

plan.devices, plan.ray, what is visible --workplace--> Workplace: the base's facts, run(trials)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import NamedTuple

from loracle.data_check.cached import check_run
from loracle.errors import TrialError
from loracle.executors.inline import run_inline
from loracle.executors.leases import end_former_workers
from loracle.executors.placement import (
    Found,
    Left,
    Placement,
    Wish,
    address_of,
    placed_here,
    placed_on_cluster,
)
from loracle.executors.ray_cluster import OwnCluster, has_ray, joined_cluster, resources
from loracle.executors.ray_slots import Calls, RaySlots
from loracle.executors.schedule import Ended, Schedule, drive
from loracle.experiment.planned import Planned
from loracle.experiment.preparing import BaseFacts, prepare_planned
from loracle.experiment.setup import ProcessesOfOne, Rendered, rendered_sets
from loracle.experiment.working import TrialRunner, WorkerFacts, open_worker
from loracle.experiment.workload import Workload
from loracle.forecast.record import FORECAST_NAME
from loracle.model.base import BaseModel
from loracle.model.placement import chosen_device
from loracle.plan import BASE_NAME, Plan
from loracle.run_folder import signals
from loracle.run_folder.environment import num_cpus
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter


@dataclass(frozen=True)
class Workplace:
    """What runs the trials of an experiment.

    run: runs trials by their names, the base under BASE_NAME, and yields each one at its end.
    num_at_once: how many train at the same time.
    """

    rendered: Rendered
    base: BaseFacts
    run: Callable[[Sequence[str]], Iterator[Ended]]
    peak_memory_bytes: Callable[[], int]
    num_at_once: int = 1


class Ahead(NamedTuple):
    """What is known and started before the data are read. found: None where the devices of this
    machine are not asked for; cluster: None where one device or a running cluster is used."""

    found: Found | None
    cluster: OwnCluster | None


@contextmanager
def started_ahead(plan: Plan, base: BaseModel | None) -> Iterator[Ahead]:
    """Start Ray while the data are read and checked, if this machine's devices are to be shared.

    base: a model that the caller loaded.

    Raises:
        UserError: there are fewer devices than asked for.
    """
    wish = wish_of(plan)
    if base is not None or wish.address is not None:
        yield Ahead(None, None)
        return
    found = _found_here(plan)
    num_trainings = len(plan.candidates) * len(plan.seeds)
    placement = placed_here(wish, found, Left(1 + num_trainings, num_trainings), has_ray=has_ray())
    if placement.is_inline:
        yield Ahead(found, None)
        return
    cluster = OwnCluster(placement)
    try:
        yield Ahead(found, cluster)
    finally:
        cluster.close()


@contextmanager
def workplace(
    planned: Planned,
    folder: RunFolder,
    report: Reporter,
    base: BaseModel | None,
    left: Left,
    ahead: Ahead,
) -> Iterator[Workplace]:
    """Load the base wherever trials are to run.

    base: a model that the caller loaded. left: what this start has to do.
    ahead: of `started_ahead` with the same plan and base.

    Raises:
        UserError: the data or the model cannot be used, or there are fewer devices than asked for.
    """
    end_former_workers(folder.root)
    plan = planned.data.plan
    wish = wish_of(plan)
    with ExitStack() as stack:
        if base is not None:
            if plan.devices not in ("auto", 1):
                report.emit("warning", message=_GIVEN_BASE)
            _tell_of_kernels(base.device.type, report)
            yield _inline(planned, folder, report, base, stack)
        elif wish.address is not None:
            ray = stack.enter_context(joined_cluster(wish.address))
            found = resources(ray).found(plan.model.device)
            placement = placed_on_cluster(wish, found, left)
            yield _on_ray(ray, placement, planned, folder, report, stack)
        else:
            assert ahead.found is not None, "devices are looked for ahead"
            _tell_of_kernels(ahead.found.device_type, report)
            placement = placed_here(wish, ahead.found, left, has_ray=has_ray())
            if placement.warning is not None:
                report.emit("warning", message=placement.warning)
            if placement.is_inline:
                _use_gpu(placement)
                planned = planned.sharing(placement.num_replicas)
                processes = ProcessesOfOne(_replica_devices(placement))
                yield _inline(planned, folder, report, None, stack, processes)
            else:
                assert ahead.cluster is not None, "more trials are left than there are"
                stack.callback(ahead.cluster.begin_to_end)
                ray = ahead.cluster.ray()
                yield _on_ray(ray, placement, planned, folder, report, stack)


_GIVEN_BASE = (
    "devices: a model that your program loaded is used in that program's process, on one device; "
    "set devices to 1, or name the model's folder"
)


def wish_of(plan: Plan) -> Wish:
    address = address_of(plan.ray.address, os.environ.get("RAY_ADDRESS"))
    spreads = plan.model.device_map is not None
    return Wish(
        plan.devices,
        address,
        plan.ray.devices_per_trial,
        plan.ray.cpus_per_trial,
        spreads,
        1 if spreads and plan.training.data_parallel == "auto" else plan.training.data_parallel,
    )


def _found_here(plan: Plan) -> Found:
    import torch

    device_type = chosen_device(plan.model.device).type
    num_gpus = torch.cuda.device_count() if device_type == "cuda" else 0
    return Found(device_type, num_gpus, num_cpus())


def _tell_of_kernels(device_type: str, report: Reporter) -> None:
    """Say once a run what a CPU without a compiler costs."""
    from loracle.native import cost_of_none

    if device_type == "cpu" and (message := cost_of_none()) is not None:
        report.emit("warning", message=message)


def _use_gpu(placement: Placement) -> None:
    """Where GPUs were named, the first is the one that `cuda` means from here on."""
    import torch

    if placement.gpus is not None and len(placement.gpus) == max(1, placement.num_replicas):
        torch.cuda.set_device(placement.gpus[0])


def _replica_devices(placement: Placement) -> list[str] | None:
    """The GPUs that share in this process' trainings, its own first; None: it decides itself."""
    if placement.gpus is None or placement.num_replicas == 1:
        return None
    return [f"cuda:{index}" for index in placement.gpus[: placement.num_replicas]]


def _inline(
    planned: Planned,
    folder: RunFolder,
    report: Reporter,
    base: BaseModel | None,
    stack: ExitStack,
    processes: ProcessesOfOne = ProcessesOfOne(),  # noqa: B008
) -> Workplace:
    prepared = prepare_planned(planned, folder, report, base, processes=processes)
    runner = TrialRunner(planned, prepared, folder)
    stack.callback(runner.close)
    return Workplace(
        prepared.rendered, runner.facts(), partial(run_inline, runner), runner.peak_memory_bytes
    )


def _on_ray(
    ray: object,
    placement: Placement,
    planned: Planned,
    folder: RunFolder,
    report: Reporter,
    stack: ExitStack,
) -> Workplace:
    calls = Calls(open_worker, _difference)
    slots = stack.enter_context(RaySlots(ray, folder.root, placement, calls, report))
    slots.begin()
    rendered = rendered_sets(planned.data.plan, check_run(planned.data, folder, report))
    work = Workload(planned, folder, rendered)
    if planned.data.plan.generation.drafts == "all":
        report.emit("warning", message=_NO_OTHER_DRAFTS)
    first: WorkerFacts = slots.open_first(work.share_left)
    for message in first.warnings:
        report.emit("warning", message=message)
    if first.forecast is not None:
        folder.write(folder.root / FORECAST_NAME, first.forecast)

    def run(trials: Sequence[str]) -> Iterator[Ended]:
        schedule = Schedule(work.predicted(trials), first=[BASE_NAME])
        with signals.held("what is under way on every device, then their checkpoints"):
            for ended in drive(schedule, slots):
                _record_lost(ended, work, report)
                yield ended

    return Workplace(
        rendered, first.base, run, lambda: slots.peak_memory_bytes, placement.num_slots
    )


_NO_OTHER_DRAFTS = (
    "generation.drafts: all is read as references: with several devices, it depends on timing "
    "which trials have finished when another one answers, and no answer may depend on timing"
)


def _difference(facts: WorkerFacts, first: WorkerFacts) -> str | None:
    """Why a worker may not take part."""
    return facts.base.difference(first.base)


def _record_lost(ended: Ended, work: Workload, report: Reporter) -> None:
    """Record the failure of a trial whose process was lost too often: nobody else could.

    Raises TrialError if it is the base, without which nothing can be compared.
    """
    folder = work.trial_folder(ended.trial)
    if ended.reason is None or folder.failure() is not None:
        return
    if ended.trial == BASE_NAME:
        raise TrialError(f"the base cannot be evaluated: {ended.reason}")
    folder.fail(ended.reason)
    report.emit("trial_failed", **asdict(work.places[ended.trial]), reason=ended.reason)
