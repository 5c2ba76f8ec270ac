"""Commands about a run as a whole: resume, status, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loracle.cli.running import Devices, RayAddress, devices_of, show_finished
from loracle.cli.shell import (
    EXIT_FAILED,
    RESULTS,
    START,
    app,
    print_json,
    print_lines,
    print_note,
    print_problems,
    session,
)
from loracle.text import counted

if TYPE_CHECKING:
    from loracle.report.status import RunStatus

_Run = Annotated[Path, typer.Argument(help="The folder of a run, or its URL.")]


@app.command(rich_help_panel=START, epilog="loracle resume runs/demo --retry-failed")
def resume(
    run_folder: _Run,
    candidate: Annotated[
        str | None,
        typer.Option(help="Run only this candidate's trials; leave the others as they are."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also run failed trials again.")
    ] = False,
    devices: Devices = None,
    ray_address: RayAddress = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results.json instead of the table.")
    ] = False,
) -> None:
    """Finish a run from its folder, whatever state it is in.

    A finished run loads no model. Plan, data and model must not have changed since the run started.
    """
    import loracle
    from loracle.run_folder.remote import url_of

    found = loracle.resume(
        run_folder,
        candidate=candidate,
        retry_failed=retry_failed,
        devices=devices_of(devices),
        ray_address=ray_address,
        progress="plain" if as_json and session.progress == "auto" else session.progress,
        language=session.language,
    )
    for note in found.notes:
        print_note(note)
    if found.was_finished:
        shown = url_of(run_folder) or run_folder
        print_note(f"{shown} is finished; all its files are intact")
    show_finished(found, as_json=as_json)


@app.command(rich_help_panel=RESULTS, epilog="loracle status runs")
def status(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a folder of runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the progress of a run, or of every run in a folder.

    Only reads files; changes nothing.
    """
    from loracle.report.status import run_status
    from loracle.run_folder.folder import run_folders
    from loracle.run_folder.local_copies import local_copy

    found = [run_status(path) for path in run_folders(local_copy(folder))]
    if as_json:
        print_json([run.record() for run in found])
        return
    for run in found:
        _print_status(run)


@app.command(rich_help_panel=RESULTS, epilog="loracle verify runs/demo")
def verify(
    run_folder: _Run,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that no file of a run has changed since it was written.

    Exit code 1 if something is damaged.
    """
    from loracle.run_folder.local_copies import local_copy
    from loracle.run_folder.verifying import verify_run

    found = verify_run(local_copy(run_folder))
    if as_json:
        print_json(found._asdict())
    else:
        print_problems(tuple(found.problems), label="damaged")
        for name in found.unfinished:
            print_note(f"{name} is not finished: its files cannot be checked yet")
        whole = "all as written" if not found.problems else "see above"
        print(f"{counted(found.num_files, 'file')} checked: {whole}")
    if found.problems:
        raise typer.Exit(EXIT_FAILED)


def _print_status(run: RunStatus) -> None:
    from rich.console import Console

    from loracle.report.status_lines import status_lines

    print_lines(status_lines(run, session.language), Console().width)
