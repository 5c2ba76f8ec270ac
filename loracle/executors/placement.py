"""How many slots a run gets, and what each of them holds: from the plan and what is there.

devices, ray, what the machine or the cluster has --> Placement
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from loracle.errors import MissingExtraError, PlanError

LOCAL = "local"
RAY_EXTRA = "pip install 'loracle[ray]'"


class Wish(NamedTuple):
    """What the plan says. address: None means this machine alone. spreads: whether one model is
    laid over all the devices that its process sees (`device_map: auto`)."""

    devices: Literal["auto"] | int | Sequence[int]
    address: str | None
    devices_per_trial: int
    cpus_per_trial: Literal["auto"] | int
    spreads: bool


class Found(NamedTuple):
    """What there is: of this machine, or of a whole cluster. device_type: cpu, cuda or mps."""

    device_type: str
    num_gpus: int
    num_cpus: int


class Placement(NamedTuple):
    """How the run's trials are placed.

    num_slots: trials at the same time. gpus_per_slot, cpus_per_slot: for one. gpus: which of this
    machine's, by number; None: any. warning: what to say of it.
    """

    is_inline: bool
    num_slots: int
    gpus_per_slot: int
    cpus_per_slot: int
    gpus: tuple[int, ...] | None = None
    warning: str | None = None


def address_of(address: str, environment_address: str | None) -> str | None:
    """The cluster's address; None means this machine alone. environment_address: RAY_ADDRESS."""
    if address == "auto":
        return None if environment_address in (None, "", LOCAL) else environment_address
    return None if address == LOCAL else address


def placed_here(wish: Wish, found: Found, num_trials: int, *, has_ray: bool) -> Placement:
    """The placement on this machine. num_trials: those that are left, the base included.

    Raises:
        PlanError: there are fewer devices than were asked for.
        MissingExtraError: several devices were asked for, and Ray is not installed.
    """
    gpus = _gpus(wish, found)
    num_devices = _num_devices(wish, found, gpus)
    num_slots = min(num_devices // wish.devices_per_trial, max(num_trials, 1))
    if wish.devices == "auto" and wish.spreads and wish.devices_per_trial == 1:
        num_slots = 1
    if num_slots <= 1:
        return Placement(True, 1, len(gpus), found.num_cpus, gpus or None)
    if not has_ray:
        if wish.devices != "auto":
            raise MissingExtraError(
                f"devices: {_shown(wish.devices)} needs Ray; run: {RAY_EXTRA}, or set devices to 1"
            )
        warning = f"{len(gpus)} GPUs are visible and one is used; to use all, run: {RAY_EXTRA}"
        return Placement(True, 1, 1, found.num_cpus, gpus[:1], warning)
    auto_cpus = max(1, found.num_cpus // num_slots)
    cpus = auto_cpus if wish.cpus_per_trial == "auto" else wish.cpus_per_trial
    per_slot = wish.devices_per_trial if found.device_type == "cuda" else 0
    return Placement(False, num_slots, per_slot, cpus, gpus or None)


def num_devices_foreseen(
    devices: Literal["auto"] | int | Sequence[int], num_gpus: int, *, has_ray: bool
) -> int:
    """How many GPUs of this machine a run would use; 1 without GPUs."""
    if num_gpus <= 1 or not has_ray:
        return 1
    if isinstance(devices, str):
        return num_gpus
    return min(num_gpus, devices if isinstance(devices, int) else len(devices))


def placed_on_cluster(wish: Wish, found: Found, num_trials: int) -> Placement:
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
    num_slots = max(1, min(num_devices // wish.devices_per_trial, num_trials))
    return Placement(False, num_slots, wish.devices_per_trial if on_gpus else 0, cpus)


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
            f"devices: found {_shown(wish.devices)}, and {found.num_gpus} GPUs are visible "
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
