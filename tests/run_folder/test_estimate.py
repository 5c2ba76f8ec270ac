from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loracle.run_folder.estimate import RunEstimate, estimate_of_events

Event = tuple[float, str, dict[str, Any]]


def remaining(*events: Event) -> float | None:
    estimate = RunEstimate()
    for now, kind, fields in events:
        estimate.take(kind, fields, now)
    return estimate.remaining_seconds


def asked(now: float, trial: str) -> Event:
    return now, "evaluation_started", {"trial": trial, "evaluation": "t", "num_examples": 100}


def answered(now: float, trial: str, num_done: int, num_tokens: int = 9) -> Event:
    fields = {"trial": trial, "evaluation": "t", "num_done": num_done, "num_tokens": num_tokens}
    return now, "evaluated", fields


def started(now: float, trial: str, num_steps: int) -> Event:
    return now, "trial_started", {"trial": trial, "num_steps": num_steps}


def step(now: float, trial: str, number: int, seconds: float) -> Event:
    return now, "step", {"trial": trial, "step": number, "seconds": seconds}


PLANNED: Event = (0.0, "work_planned", {"num_steps": {"a": 10, "b": 20}, "num_questions": 100})
BASE = [PLANNED, asked(0, "base"), answered(50, "base", 100), (50.0, "base_finished", {})]


def test_nothing_is_said_before_a_step_and_an_answer_were_measured() -> None:
    assert remaining() is None
    assert remaining(PLANNED) is None
    assert remaining(*BASE) is None
    assert remaining(*BASE, started(50, "a", 10)) is None


def test_steps_and_answers_to_come_are_counted_at_the_measured_speed() -> None:
    # 9 and 20 steps of 2 s, 200 answers of 0.5 s.
    assert remaining(*BASE, started(50, "a", 10), step(52, "a", 1, 2.0)) == 158.0


def test_the_trial_under_way_is_measured_by_its_own_steps() -> None:
    events = [*BASE, started(50, "a", 10), *(step(0, "a", n, 2.0) for n in range(1, 11))]
    events += [asked(70, "a"), answered(80, "a", 100), (80.0, "trial_finished", {"trial": "a"})]
    # Answers of trained models take 0.1 s. Steps so far: 2 s; the first of b: 13 s.
    assert remaining(*events) == pytest.approx(20 * 2.0 + 100 * 0.1)
    assert remaining(*events, started(80, "b", 20), step(93, "b", 1, 13.0)) == pytest.approx(
        19 * 13.0 + 100 * 0.1
    )


def test_while_answers_are_given_only_the_others_are_left() -> None:
    events = [*BASE, started(50, "a", 10), *(step(0, "a", n, 2.0) for n in range(1, 11))]
    events += [asked(70, "a"), answered(76, "a", 60)]
    assert remaining(*events) == pytest.approx(20 * 2.0 + 140 * 0.1)


def test_what_an_earlier_process_did_is_done_and_says_nothing_of_speed() -> None:
    resumed: Event = (50.0, "trial_resumed", {"trial": "a", "step": 8, "num_steps": 10})
    before = [*BASE, started(50, "a", 10), resumed, step(52, "a", 9, 2.0)]
    # 1 and 20 steps of 2 s, 200 answers of 0.5 s.
    assert remaining(*before) == 142.0
    answers = [step(54, "a", 10, 2.0), asked(54, "a"), answered(54, "a", 40, num_tokens=0)]
    assert remaining(*before, *answers) == 20 * 2.0 + 160 * 0.5
    assert remaining(*before, *answers, answered(60, "a", 100)) == 20 * 2.0 + 100 * 0.1


def test_skipped_and_failed_trials_are_not_waited_for() -> None:
    skipped: Event = (0.0, "trial_skipped", {"trial": "a"})
    failed: Event = (9.0, "trial_failed", {"trial": "b"})
    assert remaining(PLANNED, skipped, failed) == 0.0


def test_after_the_last_trial_nothing_is_left() -> None:
    ends: list[Event] = [(9.0, "trial_finished", {"trial": name}) for name in ("a", "b")]
    assert remaining(*BASE, *ends) == 0.0


def placed(now: float, trial: str, device: str) -> Event:
    return now, "trial_placed", {"trial": trial, "device": device}


def test_on_several_devices_what_is_left_is_shared_among_them() -> None:
    work = (0.0, "work_planned", {"num_steps": {"a": 10, "b": 10, "c": 10}, "num_questions": 4})
    events = [
        work,
        placed(0, "base", "GPU 0"),
        placed(0, "a", "GPU 1"),
        asked(0, "base"),
        answered(8, "base", 4),
        placed(8, "b", "GPU 0"),
        started(8, "a", 10),
        started(8, "b", 10),
        step(9, "a", 1, 2.0),
        step(9, "b", 1, 2.0),
    ]
    # 9 steps of a, 9 of b and 10 of c, 2 s each; 4 questions a trial, 2 s each; on two devices.
    assert remaining(*events) == (28 * 2 + 12 * 2) / 2


def test_a_trial_that_is_placed_again_is_waited_for_again() -> None:
    work = (0.0, "work_planned", {"num_steps": {"a": 10, "b": 10}, "num_questions": 0})
    events = [work, placed(0, "a", "GPU 0"), started(0, "a", 10), step(2, "a", 1, 2.0)]
    lost = [*events, placed(3, "b", "GPU 0")]
    assert remaining(*lost) == 10 * 2
    assert remaining(*lost, placed(4, "a", "GPU 1")) == (10 * 2 + 10 * 2) / 2


def events_file(path: Path, *events: Event) -> Path:
    lines = [
        json.dumps(
            {"time": f"2026-01-01T00:{now // 60:02.0f}:{now % 60:02.0f}+00:00"}
            | {"event": kind}
            | fields
        )
        for now, kind, fields in events
    ]
    path.write_text("".join(f"{line}\n" for line in [*lines[:3], "{damaged", *lines[3:]]))
    return path


def test_a_file_of_events_says_the_same_whatever_a_disk_did_to_one_line(tmp_path: Path) -> None:
    events = [*BASE, started(50, "a", 10), step(52, "a", 1, 2.0)]
    path = events_file(tmp_path / "events.jsonl", *events)
    assert estimate_of_events(path).remaining_seconds == remaining(*events) == 158.0
    assert estimate_of_events(tmp_path / "none.jsonl").remaining_seconds is None


def test_a_second_process_is_not_measured_by_the_first(tmp_path: Path) -> None:
    events = [*BASE, started(50, "a", 10), step(52, "a", 1, 2.0), (60.0, "run_started", {})]
    assert estimate_of_events(events_file(tmp_path / "e", *events)).remaining_seconds is None
