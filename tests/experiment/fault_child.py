"""Runs in a child process under failing_writes.c: one run after another, each with one fault.

    python -m tests.experiment.fault_child WORLD STEP [ERROR]

Every STEP-th call that writes fails with ERROR (ENOSPC, EIO, EACCES); without it the errors take
turns. Prints JSON: how many calls write, how many faults were tried, and what went wrong; on
standard error a line for each fault as it is tried.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from loracle import cli
from loracle.cli import shell
from loracle.experiment import attempt, foreseeing
from loracle.files import read_json
from loracle.model import attention_choice
from loracle.report.sections import judged, measured
from tests.small_run import SETTINGS, World, numbers

NUMBERS = (errno.ENOSPC, errno.EIO, errno.EACCES)
# A checkpoint after every step: its files are among what a disk refuses.
WITH_CHECKPOINTS = (*SETTINGS, "training.checkpoint_every=1")


def run_once(world: World) -> tuple[int, str]:
    """The run by its command: exit code, and what it wrote to standard error."""
    settings = [part for setting in WITH_CHECKPOINTS for part in ("--set", setting)]
    data = [str(world.root / name) for name in ("a.jsonl", "b.jsonl")]
    evaluation = ["--eval", str(world.root / "test.jsonl"), "--model", str(world.model)]
    sys.argv = ["loracle", "run", *data, *evaluation, "--out", str(world.run), *settings]
    errors = io.StringIO()
    code = 70
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        # What a user would see as a traceback.
        except BaseException as error:  # noqa: BLE001
            errors.write(f"Traceback: {type(error).__name__}: {error}")
    return code, errors.getvalue()


def try_fault(shim: Any, world: World, n: int, number: int, expected: Any) -> tuple[str, list[str]]:
    """How the run with the fault ended (as if nothing was, with failed trials, refused), and what
    is wrong with that or with the run after it."""
    shutil.rmtree(world.run, ignore_errors=True)
    shim.arm_fault(str(world.run).encode(), n, number)
    code, said = run_once(world)
    was_reached = shim.seen_calls() >= n
    shim.arm_fault(b"", 0, 0)
    if not was_reached:
        return "not reached", []
    problems = []
    name = errno.errorcode[number]
    if "Traceback" in said or code not in (0, 1, 2):
        problems.append(f"a traceback: {said[-400:]}")
    elif code == 0 and numbers(read_json(world.run / "results.json")) != expected:
        problems.append("other numbers, without a word")
    elif code != 0 and (name not in said or str(world.run) not in said):
        problems.append(f"the message names no file or no cause: {said[-400:]}")
    code_after, said_after = run_once(world)
    if code_after != 0:
        problems.append(f"the run after it ended with {code_after}: {said_after[-400:]}")
    elif numbers(read_json(world.run / "results.json")) != expected:
        problems.append("other numbers after the next run")
    if leftovers := [str(path) for path in world.run.rglob(".loracle-unfinished-*")]:
        problems.append(f"left behind: {leftovers}")
    ending = {0: "finished", 1: "trials failed or a file refused", 2: "refused"}.get(code, "else")
    return ending, [f"call {n}, {name}: {problem}" for problem in problems]


def without_what_writes_nothing() -> None:
    """Leave out what takes most of a small run's time and writes no file: charts, what stays the
    same (the model's shape, its self-test, the tree of commands), and the pauses before another
    attempt. The shim lets no call wait for the disk."""
    for module, name in (
        (judged, "estimates_chart"),
        (judged, "sizes_chart"),
        (measured, "loss_chart"),
    ):
        setattr(module, name, lambda *_, **__: Markup("<svg/>"))
    for module, name in (
        (foreseeing, "counted_shape"),
        (attention_choice, "run_self_test"),
        (shell, "command_tree"),
    ):
        setattr(module, name, once(getattr(module, name)))
    attempt._PAUSES_SECONDS = (0.0, 0.0)


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which gives its first result every time."""
    results: list[Any] = []

    def known(*arguments: Any, **options: Any) -> Any:
        if not results:
            results.append(function(*arguments, **options))
        return results[0]

    return known


def main() -> None:
    root, step = Path(sys.argv[1]), int(sys.argv[2])
    errors = [getattr(errno, name) for name in sys.argv[3:]] or NUMBERS
    without_what_writes_nothing()
    world = World(root, root / "run")
    shim = ctypes.CDLL(None)
    shim.seen_calls.restype = ctypes.c_long
    shim.arm_fault.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
    shutil.rmtree(world.run, ignore_errors=True)
    shim.arm_fault(str(world.run).encode(), -1, 0)
    code, said = run_once(world)
    num_calls = shim.seen_calls()
    assert code == 0, said
    expected = numbers(read_json(world.run / "results.json"))
    endings: dict[str, int] = {}
    problems = []
    for turn, n in enumerate(range(1, num_calls + 1, step)):
        ending, found = try_fault(shim, world, n, errors[turn % len(errors)], expected)
        endings[ending] = endings.get(ending, 0) + 1
        problems += found
        sys.stderr.write("".join(f"{problem}\n" for problem in found or [f"call {n}: {ending}"]))
        sys.stderr.flush()
    record = {"num_calls": num_calls, "endings": endings, "problems": problems}
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
