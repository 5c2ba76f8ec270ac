"""`loracle run` and `loracle fetch`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from loracle.cli.planning import show_forecast
from loracle.cli.shell import EXIT_FAILED, app, print_json, quiet_libraries


class HubChoice(StrEnum):
    """Values of --hub, as of model.hub in a plan."""

    auto = "auto"
    huggingface = "huggingface"
    modelscope = "modelscope"


@app.command()
def run(
    candidates: Annotated[
        list[str] | None, typer.Argument(help="Training sets to compare: JSON or JSONL files.")
    ] = None,
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval", help="An evaluation set; may be repeated.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model folder, a hub id, or `embedded` (the default)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder. Without it: runs/, then a name made of the plan."),
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan in YAML.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set one key of the plan: training.epochs=2."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results.json instead of the table.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it would take, as `plan`; start nothing.")
    ] = False,
) -> None:
    """Train on every candidate from the same base, evaluate all, and rank them.

    The same command goes on where it was: finished trials are not run again.
    """
    from loracle.plan import load_plan
    from loracle.run_folder.views import choose_view

    loaded = load_plan(
        plan,
        candidates=candidates or (),
        evaluations=evaluation or (),
        model=model,
        overrides=overrides or (),
    )
    if dry_run:
        show_forecast(loaded, out, as_json=as_json)
        return
    quiet_libraries()
    from loracle.experiment import run as experiment

    results = experiment.run(loaded, out, choose_view(json_output=as_json))
    if as_json:
        print_json(results)
    else:
        print_results(results)
    if results["num_failed"]:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def fetch(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Plans (.yaml), datasets (hf://org/name, ms://org/name), model ids (org/name)."
        ),
    ],
    hub: Annotated[
        HubChoice, typer.Option(help="Where model ids without hf:// or ms:// are looked up.")
    ] = HubChoice.auto,
) -> None:
    """Download datasets and models of a hub once; later runs work offline (HF_HUB_OFFLINE=1)."""
    from loracle.data.hubs.fetching import fetch_targets, fetched_line

    for files in fetch_targets(targets, hub=hub.value):
        print(fetched_line(files))


def print_results(results: dict[str, object]) -> None:
    """The table of a run, with its decision."""
    from rich.console import Console

    from loracle.report.table import decision_line, results_table, summary_lines

    console = Console(highlight=False)
    for table in results_table(results):
        console.print(table)
    for line in (*summary_lines(results), "", decision_line(results)):
        console.print(line, markup=False)
