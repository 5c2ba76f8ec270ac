"""Commands about data, before anything is trained: check, inspect, split, convert."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loracle.cli.shell import DATA, EXIT_FAILED, app, print_json, print_problems, session
from loracle.text import counted

if TYPE_CHECKING:
    from loracle.data_check.result import Check

# How a file is read, for every command that reads one: the keys of a plan's entry.
_Format = Annotated[
    str | None,
    typer.Option("--format", help="The form of the rows. Default: detected from their keys."),
]
_Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="A field under another name: question=query."),
]
_Ignored = Annotated[
    list[str] | None,
    typer.Option("--ignore-column", help="A column to leave out on purpose."),
]
_Split = Annotated[str | None, typer.Option(help="The split to read, if there is more than one.")]
_Encoding = Annotated[str | None, typer.Option(help="Encoding of text other than UTF-8: gb18030.")]
_Unanswerable = Annotated[
    str | None,
    typer.Option(help="What to do with questions marked as unanswerable: answer, drop or error."),
]


@app.command(
    rich_help_panel=DATA, epilog="loracle check a.jsonl b.jsonl --eval test.jsonl --model embedded"
)
def check(
    candidates: Annotated[
        list[str] | None, typer.Argument(help="Training sets to check, as for `run`.")
    ] = None,
    evaluation: Annotated[
        list[str] | None,
        typer.Option("--eval", help="An evaluation set that training data must not overlap."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Count in this model's tokens. Default: in characters."),
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Check the data of this plan.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Set one key of the plan, as for `run`.")
    ] = None,
    form: _Format = None,
    columns: _Columns = None,
    ignored: _Ignored = None,
    split: _Split = None,
    encoding: _Encoding = None,
    unanswerable: _Unanswerable = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of cards.")] = False,
) -> None:
    """Show what is in the datasets, and what is wrong with them.

    Exit code 2: some data cannot be used. 1: training data overlaps evaluation data, or too many
    rows are lost. 0: otherwise.
    """
    import loracle
    from loracle.cli.reading_bar import reading_bar

    with reading_bar(session.language, session.progress):
        checked = loracle.check(
            candidates or (),
            evaluation or (),
            model=model,
            plan_file=plan,
            overrides=overrides or (),
            reading=_settings(form, columns, ignored, split, encoding, unanswerable),
        )
    if as_json:
        print_json(checked.to_dict())
    else:
        _print_cards(checked)
    raise typer.Exit(checked.exit_code)


@app.command(rich_help_panel=DATA, epilog="loracle inspect a.jsonl --row 12 --model embedded")
def inspect(
    path: Annotated[str, typer.Argument(help="The data file.")],
    row: Annotated[int, typer.Option(help="The row's number, counted from 1.")] = 1,
    model: Annotated[
        str | None,
        typer.Option(help="The model whose template and tokens are used. Default: embedded."),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Show each token's id after it.")] = False,
    plan: Annotated[
        Path | None, typer.Option(help="Render according to this plan (max_length, train_on, ...).")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Set one key of the plan, as for `run`.")
    ] = None,
    form: _Format = None,
    columns: _Columns = None,
    ignored: _Ignored = None,
    split: _Split = None,
    encoding: _Encoding = None,
    unanswerable: _Unanswerable = None,
) -> None:
    """Show a row as the model sees it: supervised, context, cut."""
    from rich.console import Console

    from loracle.api.quiet import quiet_libraries
    from loracle.cli.token_view import inspected_lines
    from loracle.data_check.datasets import inspect_file

    with quiet_libraries():
        found = inspect_file(
            path,
            row,
            model=model,
            plan=plan,
            overrides=overrides or (),
            settings=_settings(form, columns, ignored, split, encoding, unanswerable),
        )
    console = Console(highlight=False)
    for line in inspected_lines(found, colours=console.color_system is not None, ids=ids):
        console.print(line, soft_wrap=True)


@app.command(
    "split", rich_help_panel=DATA, epilog="loracle split all.jsonl --holdout 0.1 --out data"
)
def split_in_two(
    path: Annotated[str, typer.Argument(help="The data file.")],
    holdout: Annotated[float, typer.Option(help="The share of rows to hold out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="The seed that decides which rows are held out.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    form: _Format = None,
    columns: _Columns = None,
    ignored: _Ignored = None,
    split: _Split = None,
    encoding: _Encoding = None,
    unanswerable: _Unanswerable = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Split a file into training and held-out rows.

    Writes NAME-train.jsonl and NAME-holdout.jsonl. Rows that share a passage stay together.
    """
    from loracle.data.reading.options import named_options
    from loracle.data.split_file import split_file

    options = named_options(path, _settings(form, columns, ignored, split, encoding, unanswerable))
    separated = split_file(path, holdout, seed, out, options)
    if as_json:
        print_json(separated.to_dict())
    else:
        print("\n".join(separated.lines()))


@app.command(rich_help_panel=DATA, epilog="loracle convert data.parquet --out data.jsonl")
def convert(
    path: Annotated[
        str, typer.Argument(help="A file, a folder, or an entry: dataset_info.json#name.")
    ],
    out: Annotated[Path, typer.Option(help="The JSONL file to write.")],
    form: _Format = None,
    columns: _Columns = None,
    ignored: _Ignored = None,
    split: _Split = None,
    encoding: _Encoding = None,
    unanswerable: _Unanswerable = None,
    limit: Annotated[
        int | None, typer.Option(help="How many rows to write, from the first.")
    ] = None,
) -> None:
    """Write any dataset as messages in JSONL.

    Rows that cannot be used are left out and listed, and the exit code is 1.
    """
    from loracle.data.converting import convert as convert_dataset
    from loracle.data.reading.fields import columns_line
    from loracle.data.reading.options import named_options

    settings = _settings(form, columns, ignored, split, encoding, unanswerable)
    options = named_options(path, settings if limit is None else {**settings, "limit": limit})
    conversion = convert_dataset(path, out, options)
    print(f"{path}: {conversion.description}", file=sys.stderr)
    print(f"{path}: {columns_line(conversion.fields)}", file=sys.stderr)
    for note in conversion.notes:
        print(f"{path}: {note}", file=sys.stderr)
    for drop in conversion.drops:
        print_problems(tuple(drop.problems), "left out")
    print(f"{counted(conversion.num_written, 'row')} written to {out}")
    if any(not drop.by_policy for drop in conversion.drops):
        raise typer.Exit(EXIT_FAILED)


def _settings(
    form: str | None,
    columns: list[str] | None,
    ignored: list[str] | None,
    split: str | None,
    encoding: str | None,
    unanswerable: str | None,
) -> dict[str, object]:
    from loracle.data.reading.options import named_settings

    return named_settings(
        columns=columns or (),
        format=form,
        ignore_columns=ignored or None,
        split=split,
        encoding=encoding,
        unanswerable=unanswerable,
    )


def _print_cards(checked: Check) -> None:
    from rich.console import Console

    from loracle.data_check.card import cards

    console = Console(highlight=False)
    for card in cards(checked):
        console.print(card)
