"""From the plan and what is there to the number of trials at the same time."""

from __future__ import annotations

from typing import Any

import pytest

from loracle.errors import MissingExtraError, PlanError
from loracle.executors.placement import (
    Found,
    Placement,
    Wish,
    address_of,
    num_devices_foreseen,
    placed_here,
    placed_on_cluster,
)

FOUR_GPUS = Found("cuda", 4, 32)
CPU = Found("cpu", 0, 8)


def wish(devices: Any = "auto", **changes: Any) -> Wish:
    return Wish(devices, None, 1, "auto", False)._replace(**changes)


def here(asked: Wish, found: Found, num_trials: int = 9, *, has_ray: bool = True) -> Placement:
    return placed_here(asked, found, num_trials, has_ray=has_ray)


def test_all_visible_gpus_are_used_if_nothing_is_said():
    assert here(wish(), FOUR_GPUS) == Placement(False, 4, 1, 8, (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (wish(), CPU),
        (wish(), Found("mps", 0, 8)),
        (wish(), Found("cuda", 1, 8)),
        (wish(1), FOUR_GPUS),
        (wish([2]), FOUR_GPUS),
        (wish(spreads=True), FOUR_GPUS),
    ],
)
def test_one_device_needs_no_ray(asked, found):
    placed = here(asked, found, has_ray=False)
    assert placed.is_inline
    assert placed.warning is None


def test_a_single_gpu_may_be_named():
    assert here(wish([2]), FOUR_GPUS).gpus == (2,)


def test_no_more_workers_than_trials_are_started():
    assert here(wish(), FOUR_GPUS, num_trials=3).num_slots == 3
    assert here(wish(), FOUR_GPUS, num_trials=1).is_inline


def test_a_model_may_be_spread_over_two_gpus_of_each_trial():
    placed = here(wish(devices_per_trial=2, spreads=True), FOUR_GPUS)
    assert (placed.num_slots, placed.gpus_per_slot) == (2, 2)


def test_cores_are_shared_unless_they_are_given():
    assert here(wish(2), CPU) == Placement(False, 2, 0, 4)
    assert here(wish(2, cpus_per_trial=1), CPU).cpus_per_slot == 1


def test_several_gpus_without_ray_are_a_warning_unless_they_were_asked_for():
    placed = here(wish(), FOUR_GPUS, has_ray=False)
    assert placed.is_inline
    assert placed.gpus == (0,)
    assert placed.warning is not None
    assert "4 GPUs are visible and one is used" in placed.warning
    with pytest.raises(MissingExtraError, match=r"devices: 2 needs Ray; run: pip install"):
        here(wish(2), FOUR_GPUS, has_ray=False)


@pytest.mark.parametrize(
    ("asked", "found", "message"),
    [
        (wish(8), FOUR_GPUS, "devices: found 8, and 4 GPUs are visible"),
        (wish([0, 7]), FOUR_GPUS, r"devices: found \[0, 7\], and 4 GPUs are visible"),
        (wish([0]), CPU, r"devices: found \[0\], numbers of GPUs, and this run is on cpu"),
        (wish(9), CPU, "devices: found 9, and this machine has 8 processor cores"),
        (wish(3, cpus_per_trial=4), CPU, "give at most 2"),
        (wish(2), Found("mps", 0, 8), "this machine has one GPU, Apple's"),
    ],
)
def test_more_than_there_is_is_refused_with_what_there_is(asked, found, message):
    with pytest.raises(PlanError, match=message):
        here(asked, found)


def test_a_cluster_gives_all_its_gpus():
    placed = placed_on_cluster(wish(address="head:6379"), Found("cuda", 16, 64), 100)
    assert placed == Placement(False, 16, 1, 1)


def test_a_cluster_without_gpus_is_used_by_number():
    found = Found("cpu", 0, 2)
    assert placed_on_cluster(wish(2, address="head:6379"), found, 9).num_slots == 2
    assert placed_on_cluster(wish(address="head:6379"), found, 9).num_slots == 1
    with pytest.raises(PlanError, match="the cluster at head:6379 has room for 2 processes"):
        placed_on_cluster(wish(3, address="head:6379"), found, 9)


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        ("auto", None, None),
        ("auto", "local", None),
        ("auto", "head:6379", "head:6379"),
        ("local", "head:6379", None),
        ("node:1", "head:6379", "node:1"),
    ],
)
def test_the_cluster_is_the_plans_or_the_environments(address, environment, expected):
    assert address_of(address, environment) == expected


def test_a_forecast_counts_the_devices_that_a_run_would_use():
    assert num_devices_foreseen("auto", 4, has_ray=True) == 4
    assert num_devices_foreseen("auto", 4, has_ray=False) == 1
    assert num_devices_foreseen([0, 2], 4, has_ray=True) == 2
    assert num_devices_foreseen(1, 4, has_ray=True) == 1
    assert num_devices_foreseen(8, 1, has_ray=True) == 1
