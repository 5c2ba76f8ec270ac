"""Where the trials of a run are executed: in this process, or in workers on several devices.

plan.devices, plan.ray, what is visible --workplace--> Workplace: the base's facts, run(trials)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial

from loracle.data_check.cached import check_run
from loracle.errors import TrialError
from loracle.executors.inline import run_inline
from loracle.executors.leases import end_former_workers
from loracle.executors.placement import (
    Found,
    Placement,
    Wish,
    address_of,
    placed_here,
    placed_on_cluster,
)
from loracle.executors.ray_cluster import has_ray, joined_cluster, own_cluster, resources
from loracle.executors.ray_slots import Calls, RaySlots
from loracle.executors.schedule import Ended, Schedule, drive
from loracle.experiment.planned import Planned
from loracle.experiment.preparing import BaseFacts, prepare_planned
from loracle.experiment.setup import Rendered, rendered_sets
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


@contextmanager
def workplace(
    planned: Planned,
    folder: RunFolder,
    report: Reporter,
    base: BaseModel | None,
    num_trials: int,
) -> Iterator[Workplace]:
    """Load the base wherever trials are to run.

    base: a model that the caller loaded. num_trials: how many are left, the base's included.

    Raises:
        UserError: the data or the model cannot be used, or there are fewer devices than asked for.
    """
    end_former_workers(folder.root)
    plan = planned.data.plan
    wish = _wish(plan)
    with ExitStack() as stack:
        if base is not None:
            if plan.devices not in ("auto", 1):
                report.emit("warning", message=_GIVEN_BASE)
            _tell_of_kernels(base.device.type, report)
            yield _inline(planned, folder, report, base, stack)
        elif wish.address is not None:
            ray = stack.enter_context(joined_cluster(wish.address))
            found = resources(ray).found(plan.model.device)
            placement = placed_on_cluster(wish, found, num_trials)
            yield _on_ray(ray, placement, planned, folder, report, stack)
        else:
            here = _found_here(plan)
            _tell_of_kernels(here.device_type, report)
            placement = placed_here(wish, here, num_trials, has_ray=has_ray())
            if placement.warning is not None:
                report.emit("warning", message=placement.warning)
            if placement.is_inline:
                _use_gpu(placement)
                yield _inline(planned, folder, report, None, stack)
            else:
                ray = stack.enter_context(own_cluster(placement))
                yield _on_ray(ray, placement, planned, folder, report, stack)


_GIVEN_BASE = (
    "devices: a model that a program gives is used in that program's process, on one device"
)


def _wish(plan: Plan) -> Wish:
    address = address_of(plan.ray.address, os.environ.get("RAY_ADDRESS"))
    spreads = plan.model.device_map is not None
    return Wish(plan.devices, address, plan.ray.devices_per_trial, plan.ray.cpus_per_trial, spreads)


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
    """Where one GPU of several was named, it is the one that `cuda` means from here on."""
    import torch

    if placement.gpus is not None and len(placement.gpus) == 1:
        torch.cuda.set_device(placement.gpus[0])


def _inline(
    planned: Planned,
    folder: RunFolder,
    report: Reporter,
    base: BaseModel | None,
    stack: ExitStack,
) -> Workplace:
    prepared = prepare_planned(planned, folder, report, base)
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
    rendered = rendered_sets(planned.data.plan, check_run(planned.data, folder, report))
    work = Workload(planned, folder, rendered)
    calls = Calls(open_worker, work.share_left, _difference)
    slots = stack.enter_context(RaySlots(ray, folder.root, placement, calls, report))
    if planned.data.plan.generation.drafts == "all":
        report.emit("warning", message=_NO_OTHER_DRAFTS)
    first: WorkerFacts = slots.open_first()
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
    "generation.drafts: all means references here: with several devices, which trials are "
    "finished when one answers depends on time, and no answer may"
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
