"""From the plan and what is there to the number of trials at the same time."""

from __future__ import annotations

from typing import Any

import pytest

from loracle.errors import MissingExtraError, PlanError
from loracle.executors.placement import (
    Found,
    Left,
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
    return placed_here(asked, found, left(num_trials), has_ray=has_ray)


def left(num_trials: int) -> Left:
    """So many trials, of which the first is the base's evaluation."""
    return Left(num_trials, num_trials - 1)


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
        (wish(8), FOUR_GPUS, "devices: found 8, but only 4 GPUs are visible"),
        (wish([0, 7]), FOUR_GPUS, r"devices: found \[0, 7\], but only 4 GPUs are visible"),
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
    placed = placed_on_cluster(wish(address="head:6379"), Found("cuda", 16, 64), left(100))
    assert placed == Placement(False, 16, 1, 1)


def test_a_cluster_without_gpus_is_used_by_number():
    found = Found("cpu", 0, 2)
    assert placed_on_cluster(wish(2, address="head:6379"), found, left(9)).num_slots == 2
    assert placed_on_cluster(wish(address="head:6379"), found, left(9)).num_slots == 1
    with pytest.raises(PlanError, match="the cluster at head:6379 has room for 2 processes"):
        placed_on_cluster(wish(3, address="head:6379"), found, left(9))


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


@pytest.mark.parametrize(
    ("asked", "found", "num_trials", "expected"),
    [
        # (slots, GPUs a slot, processes a training)
        (wish(replicas=2), FOUR_GPUS, 9, (2, 2, 2)),
        (wish(4, replicas=2), Found("cuda", 8, 64), 9, (2, 2, 2)),
        (wish(replicas="auto"), FOUR_GPUS, 9, (4, 1, 1)),
        (wish(replicas="auto"), Found("cuda", 8, 64), 4, (4, 2, 2)),
        (wish(replicas="auto"), Found("cuda", 8, 64), 3, (2, 4, 4)),
        (wish(replicas="auto", devices_per_trial=2), FOUR_GPUS, 9, (2, 2, 2)),
        (wish(4, replicas=2), CPU, 9, (2, 0, 2)),
        (wish(4, replicas="auto"), CPU, 3, (2, 0, 2)),
    ],
)
def test_a_slot_holds_the_devices_that_share_its_trainings(asked, found, num_trials, expected):
    placed = here(asked, found, num_trials)
    assert not placed.is_inline
    assert (placed.num_slots, placed.gpus_per_slot, placed.num_replicas) == expected


@pytest.mark.parametrize(
    ("asked", "found", "num_replicas"),
    [
        (wish(replicas="auto"), FOUR_GPUS, 4),
        (wish(replicas=4), FOUR_GPUS, 4),
        (wish([0, 2], replicas=2), FOUR_GPUS, 2),
        (wish(2, replicas="auto"), CPU, 2),
        (wish(replicas=2), CPU, 2),
        (wish(1, replicas=2), CPU, 2),
        (wish(replicas="auto"), CPU, 1),
        (wish(replicas="auto"), Found("cuda", 1, 8), 1),
    ],
)
def test_one_training_on_several_devices_needs_no_ray(asked, found, num_replicas):
    placed = here(asked, found, num_trials=2)
    assert placed.is_inline
    assert placed.num_replicas == num_replicas


def test_without_ray_the_trainings_follow_one_another_each_on_all_gpus():
    placed = here(wish(replicas="auto"), FOUR_GPUS, has_ray=False)
    assert (placed.is_inline, placed.num_replicas, placed.warning) == (True, 4, None)
    placed = here(wish(replicas=2), FOUR_GPUS, has_ray=False)
    assert (placed.num_replicas, placed.gpus) == (2, (0, 1))
    assert placed.warning is not None
    assert "4 GPUs are visible and 2 are used" in placed.warning


def test_a_model_that_is_spread_is_not_shared():
    asked = wish(spreads=True, devices_per_trial=2)
    assert here(asked, FOUR_GPUS).num_replicas == 1


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (wish(replicas=8), FOUR_GPUS),
        (wish(1, replicas=2), FOUR_GPUS),
        (wish(2, replicas=4), CPU),
    ],
)
def test_more_processes_than_devices_are_refused(asked, found):
    with pytest.raises(
        PlanError, match=r"training\.data_parallel: found \d, and the run has \d de"
    ):
        here(asked, found)


def test_a_slot_of_a_cluster_is_on_one_machine():
    cluster = Found("cuda", 10, 80, (4, 4, 2))
    asked = wish(address="head:6379")
    placed = placed_on_cluster(asked._replace(replicas=4), cluster, left(9))
    assert (placed.num_slots, placed.gpus_per_slot, placed.num_replicas) == (2, 4, 4)
    placed = placed_on_cluster(asked._replace(replicas="auto"), cluster, left(3))
    assert (placed.num_slots, placed.num_replicas) == (3, 2)
    with pytest.raises(PlanError, match="no machine of the cluster at head:6379 has more than 4"):
        placed_on_cluster(asked._replace(replicas=5), cluster, left(9))


def test_processes_that_share_a_training_have_a_core_each_on_a_cluster():
    asked = wish(2, address="head:6379", replicas=2)
    placed = placed_on_cluster(asked, Found("cpu", 0, 2), left(9))
    assert (placed.num_slots, placed.cpus_per_slot, placed.num_replicas) == (1, 2, 2)
