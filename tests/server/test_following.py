from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loracle.server.following import MAX_CURVE_POINTS, Curve, Follower

STARTED = {"event": "run_started", "time": "t0", "num_trials": 2, "candidates": ["a", "b"]}


def step(number: int, trial: str = "a", num_steps: int = 10) -> dict[str, Any]:
    return {
        "event": "step",
        "time": f"t{number}",
        "trial": trial,
        "step": number,
        "num_steps": num_steps,
        "loss": 1 / number,
        "tokens_read": 100,
        "seconds": 0.5,
    }


def append(path: Path, *events: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def trial(state: dict[str, Any], name: str = "a") -> dict[str, Any]:
    return next(dict(one) for one in state["trials"] if one["name"] == name)


def started(name: str, num_steps: int = 10) -> dict[str, Any]:
    return {"event": "trial_started", "time": "t", "trial": name, "num_steps": num_steps}


def test_a_run_without_events_waits(tmp_path: Path) -> None:
    state = Follower(tmp_path / "events.jsonl").read()
    assert (state["status"], state["num_events"], state["trials"]) == ("waiting", 0, [])


def test_a_trial_is_followed_through_its_stages(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    append(path, STARTED, started("a"), step(1), step(2))
    now = trial(follower.read())
    assert (now["stage"], now["done"], now["total"], now["loss"]) == ("training", 2, 10, 0.5)
    assert now["tokens_per_second"] == 200
    assert now["curve"] == [[1, 1.0], [2, 0.5]]
    append(
        path, {"event": "evaluation_started", "trial": "a", "evaluation": "t", "num_examples": 9}
    )
    append(
        path,
        {"event": "evaluated", "trial": "a", "evaluation": "t", "num_done": 4, "num_examples": 9},
    )
    now = trial(follower.read())
    assert (now["stage"], now["done"], now["total"]) == ("evaluating", 4, 9)
    append(path, {"event": "scored", "trial": "a", "evaluation": "t", "means": {"f1": 0.5}})
    append(path, {"event": "trial_finished", "trial": "a", "seconds": 3.0})
    append(path, {"event": "trial_failed", "trial": "b", "reason": "loss is nan"})
    append(path, {"event": "run_finished", "time": "t9", "num_failed": 1})
    state = follower.read()
    assert trial(state)["means"] == {"t": {"f1": 0.5}}
    assert (trial(state)["stage"], trial(state, "b")["stage"]) == ("done", "failed")
    assert trial(state, "b")["detail"] == "loss is nan"
    assert (state["status"], state["num_failed"], state["updated"]) == ("finished", 1, "t9")


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    text = json.dumps(STARTED) + "\n"
    path.write_text(text[:20])
    assert follower.read()["num_events"] == 0
    path.write_text(text)
    assert follower.read()["num_events"] == 1
    assert follower.read()["num_events"] == 1


def test_a_run_that_starts_again_keeps_what_is_done_and_restarts_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    append(path, STARTED, started("a"), {"event": "trial_finished", "trial": "a", "seconds": 1.0})
    append(path, started("b"), step(7, "b"), STARTED)
    state = follower.read()
    assert (trial(state)["stage"], trial(state, "b")["stage"]) == ("done", "waiting")
    append(path, started("b"), step(1, "b"))
    assert trial(follower.read(), "b")["curve"] == [[1, 1.0]]


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = Follower(path)
    append(path, STARTED, started("a"), step(1))
    assert follower.read()["num_events"] == 3
    path.unlink()
    assert follower.read()["status"] == "waiting"
    append(path, STARTED)
    state = follower.read()
    assert state["num_events"] == 1
    assert [(one["name"], one["stage"], one["curve"]) for one in state["trials"]] == [
        ("a", "waiting", []),
        ("b", "waiting", []),
    ]


def test_lines_that_cannot_be_read_are_counted_and_the_rest_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b'{"event": \n\xff\xfe\n[1]\n{"event": "step", "trial": "a"}\n{"event": "later"}\n'
    )
    append(path, STARTED)
    state = Follower(path).read()
    assert state["num_unreadable"] == 4
    assert state["status"] == "running"


def test_the_last_warnings_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, *({"event": "warning", "message": f"w{number}"} for number in range(50)))
    state = Follower(path).read()
    assert state["num_warnings"] == 50
    assert state["warnings"] == [f"w{number}" for number in range(30, 50)]


def test_two_hundred_thousand_events_give_a_small_state_and_no_line_twice(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    num_steps = 200_000
    append(path, STARTED, started("a", num_steps))
    append(path, *(step(number, num_steps=num_steps) for number in range(1, num_steps + 1)))
    follower = Follower(path)
    state = follower.read()
    assert state["num_events"] == num_steps + 2
    assert trial(state)["done"] == num_steps
    assert len(json.dumps(state)) < 20_000
    append(path, {"event": "run_finished", "time": "t", "num_failed": 0})
    assert follower.read()["num_events"] == num_steps + 3


def test_a_long_curve_is_the_means_of_equally_many_neighbours() -> None:
    curve = Curve(max_points=4)
    for number in range(1, 17):
        curve.add(number, number * 10.0)
    points = curve.points()
    assert len(points) <= 5
    assert points == [(2.5, 25.0), (6.5, 65.0), (10.5, 105.0), (14.5, 145.0)]
    assert len(points) <= MAX_CURVE_POINTS


def test_the_state_says_how_long_the_run_will_still_take(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    minute = "2026-01-01T10:{:02d}:00+00:00".format
    append(
        path,
        {"event": "run_started", "time": minute(0), "num_trials": 1, "candidates": ["a"]},
        {"event": "work_planned", "time": minute(0), "num_steps": {"a": 10}, "num_questions": 60},
        {"event": "evaluation_started", "time": minute(1), "trial": "base"}
        | {"evaluation": "t", "num_examples": 60},
        {"event": "evaluated", "time": minute(2), "trial": "base"}
        | {"evaluation": "t", "num_done": 60, "num_examples": 60, "num_tokens": 90},
        {"event": "base_finished", "time": minute(2), "seconds": 60.0},
        {"event": "trial_started", "time": minute(2), "trial": "a", "num_steps": 10},
    )
    follower = Follower(path)
    assert follower.read()["remaining_seconds"] is None
    step = {"trial": "a", "step": 4, "num_steps": 10, "loss": 1.0, "tokens_read": 9, "seconds": 5.0}
    append(path, {"event": "step", "time": minute(3), **step})
    # 6 steps of 5 s, 60 answers of 1 s.
    assert follower.read()["remaining_seconds"] == 90.0
    append(path, {"event": "run_finished", "time": minute(9), "num_failed": 0})
    assert follower.read()["remaining_seconds"] is None
