"""A program that runs `loracle` in child processes which are stopped at a chosen moment.

Started by test_kills.py. It imports everything once and forks for every run, so that a run starts
within milliseconds. Reads a JSON object a line from standard input:

    {"arguments": ["run", ...], "folder": "/where/to/stand", "log": "/where/output/goes",
     "moment": "mid-step", "delay": null, "signal": 9, "beat_seconds": null}

and answers {"code": -9, "left_running": false} when the child has ended. moment: a key of MOMENTS,
or null; delay: seconds after which the signal is sent from outside, or null; beat_seconds: between
two copies of a run folder at a URL, or null.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair  # noqa: F401
import peft  # noqa: F401
import scipy.stats  # noqa: F401
import torch
import transformers  # noqa: F401

from loracle import cli
from loracle.data.scripts import language_shares
from loracle.experiment import answering, learning, preparing
from loracle.experiment import run as experiment
from loracle.forecast import counting
from loracle.forecast.counting import counted_shape
from loracle.forecast.layer_rates import LayerKind, layer_rates
from loracle.generation import prefill
from loracle.model import adapter
from loracle.model.base import preferred_dtype
from loracle.plan import LoraPlan
from loracle.report import page
from loracle.run_folder import mirror
from loracle.training import checkpoint, saving
from loracle.training import loop as training
from tests import tiny

STEPS_PER_EPOCH = 3
ENDING_SECONDS = 5.0


def before(module: Any, name: str, call: int, action: Callable[[], None]) -> None:
    """Act just before the `call`th call (from 1) of a function."""
    function = getattr(module, name)
    calls: list[None] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            action()
        return function(*arguments, **options)

    setattr(module, name, counted)


def half_a_file(action: Callable[[], None]) -> None:
    """Act when half of a tensor file of the second checkpoint is written."""
    write = checkpoint._write_file
    calls: list[None] = []

    def write_half(path: Path, data: bytes, final: Path) -> None:
        calls.append(None)
        if len(calls) == 5:
            path.write_bytes(b"half of a file")
            action()
            path.unlink()
        write(path, data, final)

    checkpoint._write_file = write_half


MOMENTS: dict[str, Callable[[Callable[[], None]], None]] = {
    "loading": lambda act: before(preparing, "load_model", 1, act),
    "counting what layers keep": lambda act: before(counting, "_kept_in_pass", 2, act),
    "first step": lambda act: before(training, "forest_loss", 1, act),
    # With several micro-batches a step, this is inside one of the first epoch.
    "mid-step": lambda act: before(training, "forest_loss", 8, act),
    "a checkpoint is written": half_a_file,
    "a checkpoint was written": lambda act: before(checkpoint, "_verified_state", 1, act),
    "between epochs": lambda act: before(saving.Saving, "after_step", STEPS_PER_EPOCH, act),
    "the adapter is saved": lambda act: before(adapter, "_sort_sets", 1, act),
    "the training is recorded": lambda act: before(learning, "_record", 2, act),
    "checkpoints are removed": lambda act: before(checkpoint.CheckpointFolder, "remove", 1, act),
    "answering": lambda act: before(prefill, "_accept", 4, act),
    "predictions are written": lambda act: before(answering, "_prediction", 7, act),
    "scoring": lambda act: before(answering, "_score", 2, act),
    "report writing": lambda act: before(experiment, "write_report", 1, act),
}


def warm_up() -> None:
    """Load what a run loads when it first needs it: every child would do so again."""
    language_shares(["Which of the boxes in the hall holds the red pens and the cups?"])
    templates = page._environment()
    for name in templates.list_templates(["j2"]):
        templates.get_template(name)
    lora = adapter.lora_config(LoraPlan().model_dump())
    shape = counted_shape(
        tiny.model().config, lora, preferred_dtype(torch.device("cpu")), "cpu", optimizer="adamw"
    )
    assert shape is not None
    layer_rates(LayerKind.of(shape, gradient_checkpointing=False, longest_row=1))


def main() -> None:
    torch.set_num_threads(1)
    warm_up()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run_child(json.loads(line))) + "\n")
        sys.stdout.flush()


def run_child(asked: dict[str, Any]) -> dict[str, Any]:
    child = os.fork()
    if child == 0:
        be_child(asked)
    if asked["delay"] is not None:
        time.sleep(asked["delay"])
        # It may have ended before.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, asked["signal"])
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "left_running": not all_end(child, ENDING_SECONDS)}


def all_end(group: int, seconds: float) -> bool:
    """Whether every process of a group ends: those that follow their parent need a moment."""
    until = time.monotonic() + seconds
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.02)


def be_child(asked: dict[str, Any]) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(asked["folder"])
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, stream in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, stream)
        # torch makes its pool of threads again at the first call after a fork. Two threads that
        # load weights, and call first, would meet a half-made one.
        torch.set_num_threads(1)
        if asked["beat_seconds"] is not None:
            mirror.BEAT_SECONDS = asked["beat_seconds"]
        if asked["moment"] is not None:
            MOMENTS[asked["moment"]](lambda: os.kill(os.getpid(), asked["signal"]))
        sys.argv = ["loracle", *asked["arguments"]]
        cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
