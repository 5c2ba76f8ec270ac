"""The longest trial first, none lost, none twice; and how near that comes to the best there is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loracle.executors.schedule import MAX_LOSSES, Ended, Lost, Ran, Schedule, drive
from tests.executors.simulation import Failures, candidates, simulate


class OneSlot:
    """A slot that does as it is told: the happenings of its trials, in order."""

    def __init__(self, *happenings: Ran | Lost) -> None:
        self._happenings = list(happenings)
        self.started: list[str] = []
        self._is_idle = True

    def idle(self) -> Sequence[int]:
        return [0] if self._is_idle else []

    def start(self, slot: int, trial: str) -> None:
        self.started.append(trial)
        self._is_idle = False

    def wait(self) -> Sequence[Ran | Lost]:
        self._is_idle = True
        trial = self.started[-1]
        happened = self._happenings.pop(0) if self._happenings else Ran(0, trial, None)
        return [happened._replace(trial=trial)]


def test_the_base_comes_first_and_then_the_longest():
    slot = OneSlot()
    schedule = Schedule({"short": 1.0, "long": 9.0, "base": 2.0, "middle": 4.0}, first=["base"])
    assert {ended.trial for ended in drive(schedule, slot)} == {"short", "long", "base", "middle"}
    assert slot.started == ["base", "long", "middle", "short"]


def test_equal_trials_run_in_their_own_order():
    slot = OneSlot()
    list(drive(Schedule(dict.fromkeys("cab", 1.0)), slot))
    assert slot.started == list("cab")


def test_a_lost_trial_is_placed_by_what_is_left_of_it():
    slot = OneSlot(Lost(0, "", "killed", 0.2))
    assert len(list(drive(Schedule({"long": 9.0, "middle": 4.0}), slot))) == 2
    assert slot.started == ["long", "middle", "long"]


def test_a_trial_that_is_lost_without_progress_ends_with_the_reason():
    slot = OneSlot(*[Lost(0, "", "signal 9", 1.0)] * MAX_LOSSES)
    (ended,) = drive(Schedule({"a": 1.0}), slot)
    assert ended == Ended("a", "its process was lost 3 times: signal 9")


def test_losses_count_from_the_last_progress():
    lost = [Lost(0, "", "preempted", 1.0 - 0.1 * n) for n in range(1, 9)]
    slot = OneSlot(*lost)
    (ended,) = drive(Schedule({"a": 1.0}), slot)
    assert ended == Ended("a", None)
    assert len(slot.started) == len(lost) + 1


@given(
    seconds=st.lists(st.floats(1.0, 1e5), min_size=1, max_size=40),
    num_slots=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_every_trial_ends_once_however_often_devices_fail(seconds, num_slots, seed):
    trials = {f"t{n}": value for n, value in enumerate(seconds)}
    failures = Failures(hours_between=5.0, checkpoint_seconds=60.0)
    found = simulate(trials, trials, num_slots, failures, seed)
    assert sorted(ended.trial for ended in found.ended) == sorted(trials)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("failures", [None, Failures(hours_between=100.0)], ids=["calm", "failing"])
def test_a_thousand_candidates_on_256_devices_come_within_five_percent_of_the_best(seed, failures):
    trials = candidates(1000, seed, spread=0.3)
    found = simulate(trials, trials, 256, failures, seed)
    assert all(ended.reason is None for ended in found.ended)
    assert len(found.ended) == 1001
    assert found.ratio <= 1.05
    assert found.utilisation >= 0.95
    assert bool(found.num_failures) == (failures is not None)


def test_without_predictions_the_same_trials_take_far_longer():
    trials = candidates(1000, spread=0.3)
    blind = simulate(trials, dict.fromkeys(trials, 1.0), 256)
    assert blind.ratio > 1.2


def test_errors_of_a_tenth_in_what_was_predicted_cost_less_than_a_tenth():
    trials = candidates(1000, spread=0.3)
    generator = np.random.default_rng(0)
    predicted = {name: s * float(generator.lognormal(0, 0.1)) for name, s in trials.items()}
    assert simulate(trials, predicted, 256).ratio <= 1.1
