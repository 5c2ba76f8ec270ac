"""The command line: `loracle run`, `fetch` and `score`. Starts without torch.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 ran but
something failed, 2 bad plan or data, 130 and 143 for signals.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from loracle.errors import UserError

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2


class Hub(StrEnum):
    """Values of --hub, as of model.hub in a plan."""

    auto = "auto"
    huggingface = "huggingface"
    modelscope = "modelscope"


app = typer.Typer(
    help="Tells which dataset is worth fine-tuning on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _root() -> None:
    """Tells which dataset is worth fine-tuning on."""
    _prepare_stderr()


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
) -> None:
    """Train on every candidate from the same base, evaluate all, and rank them.

    The same command goes on where it was: finished trials are not run again.
    """
    from loracle.plan import load_plan
    from loracle.progress import choose_view

    loaded = load_plan(
        plan,
        candidates=candidates or (),
        evaluations=evaluation or (),
        model=model,
        overrides=overrides or (),
    )
    _quiet_libraries()
    from loracle import experiment

    results = experiment.run(loaded, out, choose_view(json_output=as_json))
    if as_json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
    else:
        _print_results(results)
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
        Hub, typer.Option(help="Where model ids without hf:// or ms:// are looked up.")
    ] = Hub.auto,
) -> None:
    """Download datasets and models of a hub once; later runs work offline (HF_HUB_OFFLINE=1)."""
    from loracle.data.fetching import fetch_targets, fetched_line

    for files in fetch_targets(targets, hub=hub.value):
        print(fetched_line(files))


@app.command()
def convert(
    path: Annotated[
        str, typer.Argument(help="A file, a folder, or an entry: dataset_info.json#name.")
    ],
    out: Annotated[Path, typer.Option(help="The JSONL file to write.")],
    form: Annotated[
        str, typer.Option("--format", help="The form of the rows; auto: by their keys.")
    ] = "auto",
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="A field under another name, question=query; repeatable."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split, where there are several.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of text, where it is not UTF-8: gb18030, say.")
    ] = None,
    unanswerable: Annotated[
        str, typer.Option(help="Questions marked as without answer: answer, drop or error.")
    ] = "answer",
    limit: Annotated[int | None, typer.Option(help="How many rows, from the first.")] = None,
) -> None:
    """Write any dataset as messages JSONL, without a model.

    Rows that cannot be used are left out and listed; then the exit code is 1.
    """
    from loracle.data.converting import convert as convert_dataset
    from loracle.data.options import named_options

    options = named_options(
        path,
        format=form,
        columns=columns or (),
        split=split,
        encoding=encoding,
        unanswerable=unanswerable,
        limit=limit,
    )
    conversion = convert_dataset(path, out, options)
    print(f"{path}: {conversion.description}", file=sys.stderr)
    for drop in conversion.drops:
        _print_problems(tuple(drop.problems), "left out")
    print(f"{conversion.num_written} rows written to {out}")
    if any(not drop.by_policy for drop in conversion.drops):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="JSONL rows of {prediction, answers}.")],
    metrics: Annotated[str, typer.Option(help="Names, separated by commas.")] = "em,f1",
    per_row: Annotated[
        Path | None, typer.Option(help="Write the rows with their scores to this JSONL file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score predictions in a file, without a model."""
    from loracle.scoring import format_scores, score_file, to_json

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    scores = score_file(file, names, per_row=per_row)
    print(to_json(scores) if as_json else format_scores(scores))


def main() -> None:
    """The entry point: user errors become messages and exit code 2."""
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, _end)
    try:
        sys.exit(app())
    except UserError as error:
        _print_problems(error.problems)
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:
        # The reader of our output left (`| head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)


def _end(signal_number: int, frame: FrameType | None) -> None:
    name = signal.Signals(signal_number).name
    print(
        f"\n{name}: stopped. The same command goes on with the unfinished trials.", file=sys.stderr
    )
    raise SystemExit(128 + signal_number)


def _print_problems(problems: tuple[str, ...], label: str = "error") -> None:
    for problem in problems:
        print(f"{label}: {problem}", file=sys.stderr)


def _print_results(results: dict[str, object]) -> None:
    from rich.console import Console

    from loracle.report.table import results_table, summary_lines

    console = Console(highlight=False)
    for table in results_table(results):
        console.print(table)
    for line in summary_lines(results):
        console.print(line, markup=False)


def _quiet_libraries() -> None:
    """Keep the libraries' own progress bars and advice off the terminal; errors still show."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Deprecations among transformers and peft are theirs to mend, not the user's.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _prepare_stderr() -> None:
    """Show Loracle's own messages, and the hubs' progress bars to who is there to see them."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
    logger = logging.getLogger("loracle")
    logger.setLevel(logging.INFO)
    # On the root logger, it would show again what the libraries' own handlers show.
    logger.handlers = [logging.StreamHandler()]
