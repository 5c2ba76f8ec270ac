"""Commands to use before spending anything: plan, recommend, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loracle.api.quiet import quiet_libraries
from loracle.cli.shell import EXIT_FAILED, START, app, print_json

if TYPE_CHECKING:
    from loracle.forecast.machines import MachineChoice
    from loracle.forecast.record import Forecast
    from loracle.plan import Plan

_Device = Annotated[str | None, typer.Option(help="Plan for this card, not this machine: rtx4090.")]
_Memory = Annotated[str | None, typer.Option(help="Plan for a card with this much memory: 24GB.")]
_Count = Annotated[int, typer.Option(min=1, help="Number of such cards.")]
_Price = Annotated[float | None, typer.Option(min=0, help="Price of one card per hour.")]
_Probe = Annotated[
    bool, typer.Option("--probe", help="Time two real training steps; loads the weights.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Set one key of the plan: training.epochs=2.")
]


@app.command(
    rich_help_panel=START,
    epilog="loracle plan a.jsonl b.jsonl --eval test.jsonl --device rtx4090",
)
def plan(
    candidates: Annotated[
        list[str] | None, typer.Argument(help="Training sets to compare, as for `run`.")
    ] = None,
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval", help="An evaluation set; may be repeated.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model folder, a hub id, or `embedded` (the default).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to plan for.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan in YAML.")] = None,
    overrides: _Overrides = None,
    device: _Device = None,
    memory: _Memory = None,
    count: _Count = 1,
    price: _Price = None,
    probe: _Probe = False,
    as_json: _Json = False,
) -> None:
    """Estimate a run: tokens, hours, memory, disk, money.

    Needs the model's config and tokenizer, not its weights. Exit code 1 if it does not fit.
    """
    from loracle.forecast.machines import MachineChoice

    loaded = given_plan(plan, candidates, evaluation, model, overrides)
    show_forecast(
        loaded, out, MachineChoice(device, memory, count), price, probe=probe, as_json=as_json
    )


@app.command(
    rich_help_panel=START,
    epilog="loracle recommend Qwen/Qwen2.5-7B-Instruct a.jsonl --memory 24GB",
)
def recommend(
    model: Annotated[str, typer.Argument(help="A model folder, a hub id, or `embedded`.")],
    dataset: Annotated[str, typer.Argument(help="A training set.")],
    overrides: _Overrides = None,
    device: _Device = None,
    memory: _Memory = None,
    count: _Count = 1,
    price: _Price = None,
    probe: _Probe = False,
    as_json: _Json = False,
) -> None:
    """Estimate training one model on one dataset: batches, hours.

    The dataset's own rows serve as the questions. Exit code 1 if it does not fit.
    """
    from loracle.forecast.machines import MachineChoice

    settings: dict[str, object] = {"generation": {"batch_size": "auto"}}
    loaded = given_plan(None, [dataset], [dataset], model, overrides, settings)
    show_forecast(
        loaded, None, MachineChoice(device, memory, count), price, probe=probe, as_json=as_json
    )


@app.command(
    rich_help_panel=START,
    epilog="loracle doctor --json",
)
def doctor(as_json: _Json = False) -> None:
    """Show what this machine has, what it lacks, and how to get it.

    Exit code 1 if something needs attention. HF_HUB_OFFLINE=1 keeps it off the network.
    """
    from loracle.doctor.examination import examined
    from loracle.doctor.wording import finding_lines

    # No library is made quiet first: one that cannot be imported is for the examination to find.
    found = examined()
    if as_json:
        print_json(found.to_dict())
    else:
        for line in finding_lines(found):
            print(line)
    if found.needs_attention:
        raise typer.Exit(EXIT_FAILED)


def given_plan(
    plan: Path | None,
    candidates: list[str] | None,
    evaluation: list[str] | None,
    model: str | None,
    overrides: list[str] | None,
    settings: dict[str, object] | None = None,
) -> Plan:
    """The plan that the command line gives."""
    from loracle.plan import load_plan

    return load_plan(
        plan,
        candidates=candidates or (),
        evaluations=evaluation or (),
        model=model,
        settings=settings or {},
        overrides=overrides or (),
    )


def show_forecast(
    loaded: Plan,
    out: Path | None,
    machine: MachineChoice | None = None,
    price: float | None = None,
    *,
    probe: bool = False,
    as_json: bool = False,
) -> None:
    """Estimate the plan and print the forecast; exit with code 1 if it does not fit."""
    from loracle.experiment.planning import plan_run
    from loracle.forecast.machines import MachineChoice

    with quiet_libraries():
        found = plan_run(
            loaded, out=out, machine=machine or MachineChoice(), price_per_hour=price, probe=probe
        )
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)
    if not found.fits:
        raise typer.Exit(EXIT_FAILED)


def _print(found: Forecast) -> None:
    from rich.console import Console

    from loracle.forecast.wording import forecast_lines, forecast_table, settings_table

    console = Console(highlight=False)
    console.print(forecast_table(found))
    for line in forecast_lines(found):
        console.print(line, markup=False, soft_wrap=True)
    if found.alternatives:
        console.print()
        console.print(settings_table(found))
