"""Runs with Ray on this machine: eight trials of a tiny model, and what may happen to them.

    python -m tests.executors.ray_runs WORLD RUN [KEY=VALUE ...]

runs one in a process of its own, as `loracle run` does.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loracle.experiment.run import run
from loracle.plan import Plan, load_plan
from loracle.run_folder import signals
from loracle.run_folder.reporter import View
from loracle.run_folder.views import PlainView, QuietView
from tests.small_run import World

SETTINGS = (
    "training.epochs=2",
    "training.batch_size=4",
    "training.learning_rate=0.01",
    "training.checkpoint_every=2",
    "lora.dropout=0.2",
    "generation.max_new_tokens=6",
    "generation.batch_size=2",
    "seeds=[0,1,2,3]",
)


def plan_of(world: World, *overrides: str) -> Plan:
    """Two candidates with four seeds. overrides: in place of the settings of the same key."""
    keys = {override.partition("=")[0] for override in overrides}
    settings = [setting for setting in SETTINGS if setting.partition("=")[0] not in keys]
    return load_plan(
        candidates=[world.root / "a.jsonl", world.root / "b.jsonl"],
        evaluations=[world.root / "test.jsonl"],
        model=str(world.model),
        overrides=[*settings, *overrides],
    )


def start(world: World, name: str, *overrides: str, view: View | None = None) -> Path:
    """Run in this process; returns the run folder."""
    root = world.root / name
    with contextlib.redirect_stderr(io.StringIO()):
        run(plan_of(world, *overrides), root, view or QuietView())
    return root


class Watching:
    """A view that acts on events. It knows the process of every trial's worker."""

    def __init__(self, act: Callable[[Watching, str, Mapping[str, Any]], None]) -> None:
        self._act = act
        self.processes: dict[str, int] = {}
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.killed: list[str] = []

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        self.events.append((kind, fields))
        if kind == "trial_placed" and (found := re.search(r"process (\d+)$", fields["device"])):
            self.processes[fields["trial"]] = int(found[1])
        self._act(self, kind, fields)

    def close(self) -> None:
        """Nothing is open."""

    def kill(self, trial: str, why: str) -> None:
        """End the process of a trial's worker, once for each reason."""
        if why not in self.killed:
            self.killed.append(why)
            os.kill(self.processes[trial], signal.SIGKILL)


def processes_of_ray() -> list[str]:
    """The command lines of Ray's processes on this machine that do work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "ray::TrialActor" in command or "/raylet/raylet" in command:
                found.append(command)
    return found


if __name__ == "__main__":
    signals.install()
    folder = Path(sys.argv[1])
    world = World(folder, folder / sys.argv[2])
    run(plan_of(world, *sys.argv[3:]), world.run, PlainView(every_event=True))
