"""`loracle init`: a plan with comments, for files or from another tool's training file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loracle.cli.shell import START, app


@app.command(rich_help_panel=START, epilog="loracle init --from train.yaml --eval test.jsonl")
def init(
    candidates: Annotated[
        list[str] | None, typer.Argument(help="Training sets to compare: files or hub addresses.")
    ] = None,
    evaluation: Annotated[
        list[str] | None, typer.Option("--eval", help="An evaluation set; may be repeated.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A training file of LLaMA-Factory, axolotl or ms-swift (YAML), or a script that "
            "starts one of them.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The plan to write.")] = Path("plan.yaml"),
) -> None:
    """Write a plan, for your files or from another tool's settings.

    With --from it lists what was kept, what changed, and what is not supported.
    """
    from loracle.migration import init_plan, listing

    written = init_plan(candidates or (), evaluation or (), source=source, out=out)
    print("\n".join(listing(written)))
