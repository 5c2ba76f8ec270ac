"""How many slots a run gets, and what each of them holds: from the plan and what is there.

devices, ray, what the machine or the cluster has --> Placement
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from loracle.errors import MissingExtraError, PlanError
from loracle.text import counted

LOCAL = "local"
RAY_EXTRA = "pip install 'loracle[ray]'"


class Wish(NamedTuple):
    """What the plan says. address: None means this machine alone. spreads: whether one model is
    laid over all the devices that its process sees (`device_map: auto`). replicas: processes that
    share a training (`data_parallel`), one on each device of its slot."""

    devices: Literal["auto"] | int | Sequence[int]
    address: str | None
    devices_per_trial: int
    cpus_per_trial: Literal["auto"] | int
    spreads: bool
    replicas: Literal["auto"] | int = 1


class Found(NamedTuple):
    """What there is: of this machine, or of a whole cluster. device_type: cpu, cuda or mps.

    on_nodes: the devices of every machine of a cluster, since a slot is on one of them; None: all
    are on one.
    """

    device_type: str
    num_gpus: int
    num_cpus: int
    on_nodes: tuple[int, ...] | None = None


class Left(NamedTuple):
    """What a start of the run has to do. num_trials: the base's evaluation included."""

    num_trials: int
    num_trainings: int


class Placement(NamedTuple):
    """How the run's trials are placed.

    num_slots: trials at the same time. gpus_per_slot, cpus_per_slot: for one. gpus: which of this
    machine's, by number; None: any. warning: what to say of it. num_replicas: processes that share
    a slot's trainings.
    """

    is_inline: bool
    num_slots: int
    gpus_per_slot: int
    cpus_per_slot: int
    gpus: tuple[int, ...] | None = None
    warning: str | None = None
    num_replicas: int = 1


def address_of(address: str, environment_address: str | None) -> str | None:
    """The cluster's address; None means this machine alone. environment_address: RAY_ADDRESS."""
    if address == "auto":
        return None if environment_address in (None, "", LOCAL) else environment_address
    return None if address == LOCAL else address


def placed_here(wish: Wish, found: Found, left: Left, *, has_ray: bool) -> Placement:
    """The placement on this machine.

    Raises:
        PlanError: there are fewer devices than were asked for.
        MissingExtraError: several devices were asked for, and Ray is not installed.
    """
    gpus = _gpus(wish, found)
    num_devices = _num_devices(wish, found, gpus)
    each = devices_of_each(wish, num_devices, left.num_trainings)
    if wish.replicas == "auto" and not has_ray and wish.devices == "auto":
        # One after the other, each on all of them.
        each = num_devices
    _require_devices(wish, found, num_devices, each)
    num_replicas = 1 if wish.spreads else each
    num_slots = min(num_devices // each, max(left.num_trials, 1))
    if wish.devices == "auto" and wish.spreads and wish.devices_per_trial == 1:
        num_slots = 1
    if num_slots <= 1:
        return Placement(
            True, 1, len(gpus), found.num_cpus, gpus or None, num_replicas=num_replicas
        )
    if not has_ray:
        if wish.devices != "auto":
            raise MissingExtraError(
                f"devices: {_shown(wish.devices)} needs Ray; run: {RAY_EXTRA}, or set devices to 1"
            )
        used = "one is" if each == 1 else f"{each} are"
        warning = f"{len(gpus)} GPUs are visible and {used} used; to use all, run: {RAY_EXTRA}"
        return Placement(True, 1, each, found.num_cpus, gpus[:each], warning, num_replicas)
    auto_cpus = max(1, found.num_cpus // num_slots)
    cpus = auto_cpus if wish.cpus_per_trial == "auto" else wish.cpus_per_trial
    per_slot = each if found.device_type == "cuda" else 0
    return Placement(False, num_slots, per_slot, cpus, gpus or None, num_replicas=num_replicas)


def devices_of_each(wish: Wish, num_devices: int, num_trainings: int) -> int:
    """How many devices one trial gets. `data_parallel: auto` shares out those that would have no
    trial of their own."""
    if wish.spreads or wish.devices_per_trial > 1:
        return wish.devices_per_trial
    if wish.replicas != "auto":
        return wish.replicas
    return max(1, num_devices // max(1, num_trainings))


def _require_devices(wish: Wish, found: Found, num_devices: int, each: int) -> None:
    """Raise PlanError if no trial gets the devices that it is to have."""
    # On one device that is a processor, or Apple's, replicas share it.
    if each <= num_devices or (found.device_type != "cuda" and wish.devices in ("auto", 1)):
        return
    key = "ray.devices_per_trial" if wish.devices_per_trial > 1 else "training.data_parallel"
    raise PlanError(
        f"{key}: found {each}, and the run has {counted(num_devices, 'device')} "
        f"(devices: {_shown(wish.devices)}); give at most {num_devices}, or more devices"
    )


def num_devices_foreseen(
    devices: Literal["auto"] | int | Sequence[int], num_gpus: int, *, has_ray: bool
) -> int:
    """How many GPUs of this machine a run would use; 1 without GPUs."""
    if num_gpus <= 1 or not has_ray:
        return 1
    if isinstance(devices, str):
        return num_gpus
    return min(num_gpus, devices if isinstance(devices, int) else len(devices))


def placed_on_cluster(wish: Wish, found: Found, left: Left) -> Placement:
    """The placement on a running cluster.

    Raises PlanError if the cluster has fewer devices than were asked for.
    """
    cpus = 1 if wish.cpus_per_trial == "auto" else wish.cpus_per_trial
    on_gpus = found.device_type == "cuda"
    there = found.num_gpus if on_gpus else found.num_cpus // cpus
    if wish.devices == "auto":
        num_devices = there if on_gpus else 1
    else:
        assert isinstance(wish.devices, int), "a plan with a list has no address"
        num_devices = wish.devices
    if num_devices > there or there == 0:
        kind = "GPUs" if on_gpus else f"processes of {cpus} processor cores"
        raise PlanError(
            f"devices: found {_shown(wish.devices)}, and the cluster at {wish.address} has room "
            f"for {there} {kind}; give a smaller number"
        )
    on_nodes = found.on_nodes or (there,)
    each = devices_of_each(wish, num_devices, left.num_trainings)
    if wish.replicas == "auto":
        each = min(each, *on_nodes)
    _require_devices(wish, found, num_devices, each)
    on_machines = sum(there_too // each for there_too in on_nodes)
    if on_machines == 0:
        raise PlanError(
            f"the devices of one trial ({each}) must be on one machine, and no machine of the "
            f"cluster at {wish.address} has more than {max(on_nodes)}; give a smaller number"
        )
    num_slots = max(1, min(num_devices // each, on_machines, left.num_trials))
    num_replicas = 1 if wish.spreads else each
    shares_cores = wish.cpus_per_trial == "auto" and not on_gpus
    cpus_per_slot = cpus * num_replicas if shares_cores else cpus
    per_slot = each if on_gpus else 0
    return Placement(False, num_slots, per_slot, cpus_per_slot, num_replicas=num_replicas)


def _gpus(wish: Wish, found: Found) -> tuple[int, ...]:
    """The GPUs that are to be used, of those that are visible."""
    if found.device_type != "cuda":
        if not isinstance(wish.devices, str | int):
            raise PlanError(
                f"devices: found {_shown(wish.devices)}, numbers of GPUs, and this run is on "
                f"{found.device_type}; give a number of processes, or remove it"
            )
        return ()
    if isinstance(wish.devices, str):
        return tuple(range(found.num_gpus))
    asked = range(wish.devices) if isinstance(wish.devices, int) else wish.devices
    missing = [index for index in asked if index >= found.num_gpus]
    if missing:
        raise PlanError(
            f"devices: found {_shown(wish.devices)}, but only {found.num_gpus} GPUs are visible "
            "(numbered from 0); give fewer, or make more visible (CUDA_VISIBLE_DEVICES)"
        )
    return tuple(asked)


def _num_devices(wish: Wish, found: Found, gpus: Sequence[int]) -> int:
    if found.device_type == "cuda":
        return len(gpus)
    if wish.devices == "auto":
        return 1
    assert isinstance(wish.devices, int), "a list was refused"
    if found.device_type == "mps" and wish.devices > 1:
        raise PlanError(
            f"devices: found {wish.devices}, and this machine has one GPU, Apple's; remove it"
        )
    per_trial = 1 if wish.cpus_per_trial == "auto" else wish.cpus_per_trial
    most = found.num_cpus // per_trial
    if wish.devices > max(1, most):
        raise PlanError(
            f"devices: found {wish.devices}, and this machine has {found.num_cpus} processor cores"
            f" for trials of {per_trial}; give at most {max(1, most)}"
        )
    return wish.devices


def _shown(devices: str | int | Sequence[int]) -> str:
    return str(list(devices)) if not isinstance(devices, str | int) else str(devices)
