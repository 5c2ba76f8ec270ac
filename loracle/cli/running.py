"""`loracle run` and `loracle fetch`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loracle.cli.catalogue import say
from loracle.cli.planning import given_plan, show_forecast
from loracle.cli.shell import DATA, EXIT_FAILED, START, app, print_json, print_lines, session
from loracle.run_folder.views import Progress
from loracle.text import cell_width, visible

if TYPE_CHECKING:
    from loracle.api.run import Run


class HubChoice(StrEnum):
    """Values of --hub, as of model.hub in a plan."""

    auto = "auto"
    huggingface = "huggingface"
    modelscope = "modelscope"


Devices = Annotated[
    str | None,
    typer.Option(help="How many devices, or which GPUs: 4, or 0,2. Default: all visible GPUs."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="A running Ray cluster, HOST:PORT. Default: this machine alone."),
]


_Out = Annotated[
    Path | None,
    typer.Option(
        help="The run folder, or its URL (s3://...). Default: runs/, then date and candidates."
    ),
]
_Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit with code 1 if anything is listed under `Read this first`."
    ),
]
_DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Estimate the run, as `loracle plan` does; start nothing."),
]
_BaseOnly = Annotated[
    bool,
    typer.Option("--base-only", help="Evaluate the base alone; `loracle resume` does the rest."),
]


def devices_of(text: str | None) -> str | int | list[int] | None:
    """The plan's `devices` as --devices has it; what is neither number nor numbers stays text."""
    if text is None or not re.fullmatch(r"\d+(,\d+)*,?", text):
        return text
    numbers = [int(part) for part in text.split(",") if part]
    return numbers if "," in text else numbers[0]


@app.command(
    rich_help_panel=START,
    epilog="loracle run a.jsonl b.jsonl --eval test.jsonl --set training.epochs=2",
)
def run(
    candidates: Annotated[
        list[str] | None, typer.Argument(help="Training sets to compare: files or hub addresses.")
    ] = None,
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval", help="An evaluation set; may be repeated.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model folder, a hub id, or `embedded` (the default)."),
    ] = None,
    out: _Out = None,
    plan: Annotated[Path | None, typer.Option(help="A plan in YAML.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set one key of the plan: training.epochs=2."),
    ] = None,
    devices: Devices = None,
    ray_address: RayAddress = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results.json instead of the table.")
    ] = False,
    strict: _Strict = False,
    dry_run: _DryRun = False,
    base_only: _BaseOnly = False,
) -> None:
    """Fine-tune on every candidate and say which one to use.

    All candidates start from the same base and answer the same questions. Run the same command
    again to resume: finished trials are not run again.
    """
    import loracle

    settings = _devices(devices, ray_address)
    if dry_run:
        given = given_plan(plan, candidates, evaluation, model, overrides, settings)
        show_forecast(given, out, as_json=as_json)
        return
    progress = _chosen_progress(as_json=as_json)
    with _reading_shown(progress):
        finished = loracle.run(
            candidates or (),
            evaluation or (),
            model=model,
            out=out,
            plan_file=plan,
            overrides=overrides or (),
            progress=progress,
            language=session.language,
            base_only=base_only,
            **settings,
        )
    show_finished(finished, as_json=as_json, base_only=base_only)
    if strict and finished.results["read_first"]:
        raise typer.Exit(EXIT_FAILED)


def _devices(devices: str | None, ray_address: str | None) -> dict[str, Any]:
    """The plan's keys that two options stand for."""
    settings: dict[str, Any] = {}
    if devices is not None:
        settings["devices"] = devices_of(devices)
    if ray_address is not None:
        settings["ray"] = {"address": ray_address}
    return settings


def _reading_shown(progress: Progress) -> AbstractContextManager[None]:
    from loracle.cli.reading_bar import reading_bar

    return reading_bar(session.language, progress)


def _chosen_progress(*, as_json: bool) -> Progress:
    return "plain" if as_json and session.progress == "auto" else session.progress


def show_finished(finished: Run, *, as_json: bool, base_only: bool = False) -> None:
    """Print a finished run; ends with exit code 1 if a candidate failed.

    base_only: candidates that have not run are no failure.
    """
    if as_json:
        print_json(finished.results)
    else:
        print_results(finished.results)
    if base_only:
        return
    if not as_json:
        print_next_steps(finished)
    if finished.results["num_failed"]:
        raise typer.Exit(EXIT_FAILED)


@app.command(
    rich_help_panel=DATA,
    epilog="loracle fetch hf://rajpurkar/squad Qwen/Qwen2.5-0.5B-Instruct",
)
def fetch(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Plans (.yaml), datasets (hf://org/name, ms://org/name), model ids (org/name)."
        ),
    ],
    hub: Annotated[
        HubChoice,
        typer.Option(
            help="Where model ids without hf:// or ms:// are looked up: auto, huggingface or "
            "modelscope."
        ),
    ] = HubChoice.auto,
) -> None:
    """Download datasets and models for later offline use.

    Later runs need no network (HF_HUB_OFFLINE=1).
    """
    from loracle.data.hubs.fetching import fetch_targets, fetched_line

    for files in fetch_targets(targets, hub=hub.value):
        print(fetched_line(files))


def print_results(results: Mapping[str, Any]) -> None:
    """Print a run's tables, and its decision with what could overturn it."""
    from rich.console import Console

    from loracle.report.decision_text import read_first_lines
    from loracle.report.table import results_table, summary_lines

    console, language = Console(highlight=False), session.language
    for table in results_table(results, language, console.width):
        console.print(table)
        console.print()
    read_first = read_first_lines(results["read_first"], language)
    gap = [""] if read_first else []
    decision = visible(results["decisions"][0]["sentence"][language])
    lines = [*summary_lines(results, language), *gap, *read_first, "", decision]
    print_lines(lines, console.width)


def print_next_steps(run: Run) -> None:
    """Print what to do next with the run, to standard error, since it is not part of the result."""
    if session.progress == "quiet":
        return
    folder = shlex.quote(str(run.folder))
    steps = [("the report", str(run.report)), ("the reasons", f"loracle decide {folder}")]
    if (name := run.decision.recommended) is not None:
        steps.append(("the adapter", f"loracle export {folder} {shlex.quote(name)}"))
    labels = [say(session.language, label) for label, _ in steps]
    width = max(map(cell_width, labels))
    print(f"\n{say(session.language, 'next')}", file=sys.stderr)
    for label, (_, command) in zip(labels, steps, strict=True):
        print(f"  {label}{' ' * (width - cell_width(label))}  {command}", file=sys.stderr)
