"""The command line: every command of `loracle`, thin over the module that does the work.

Starts without torch. Results go to standard output, everything else to standard error. Exit
codes: 0 done, 1 ran but something failed, 2 bad plan or data, 130 and 143 for signals.
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
from typing import TYPE_CHECKING, Annotated

import typer

from loracle.errors import PlanError, UserError


class Language(StrEnum):
    """The languages that decisions are worded in."""

    en = "en"
    zh = "zh"


if TYPE_CHECKING:
    from loracle.checked import Check

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2


class ExportForm(StrEnum):
    """What `loracle export` makes of a candidate."""

    peft = "peft"
    merged = "merged"
    ollama = "ollama"


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


_MetricOption = Annotated[str | None, typer.Option(help="Another metric than the plan's rule has.")]
_ConfidenceOption = Annotated[
    float | None, typer.Option(help="Another confidence than the rule has, as 0.9.")
]


@app.command()
def decide(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    metric: _MetricOption = None,
    confidence: _ConfidenceOption = None,
    language: Annotated[Language, typer.Option(help="Of the words.")] = Language.en,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """State what the scores of a run support, from its files alone. Changes no file."""
    from loracle.report.evidence import read_evidence
    from loracle.report.judgement import frozen_rule, judge, judgement_record, other_rule
    from loracle.report.plain import decision_lines, other_rule_note

    evidence = read_evidence(run_folder)
    frozen = frozen_rule(evidence)
    rule = other_rule(frozen, metric=metric, confidence=confidence)
    record = judgement_record(judge(evidence, rule))
    if as_json:
        print(json.dumps({"frozen_rule": rule == frozen, **record}, ensure_ascii=False, indent=2))
        return
    if rule != frozen:
        print(f"note: {other_rule_note(frozen)}", file=sys.stderr)
    for line in decision_lines(record["decisions"], language.value):
        print(line)


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="A run folder.")],
    run_b: Annotated[Path, typer.Argument(help="Another run that asked the same questions.")],
    metric: _MetricOption = None,
    confidence: _ConfidenceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two runs question by question, from their files alone."""
    from rich.console import Console

    from loracle.report.comparing import compare_runs, comparison_record
    from loracle.report.evidence import read_evidence
    from loracle.report.judgement import frozen_rule, other_rule
    from loracle.report.plain import run_comparison_lines, run_comparison_tables

    a, b = read_evidence(run_a), read_evidence(run_b)
    rule = other_rule(frozen_rule(a), metric=metric, confidence=confidence)
    found = compare_runs(a, b, rule.metric, rule.confidence)
    if as_json:
        print(json.dumps(comparison_record(found), ensure_ascii=False, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"A: {run_a}\nB: {run_b}", markup=False)
    for line in run_comparison_lines(found):
        console.print(line, markup=False)
    for table in run_comparison_tables(found):
        console.print(table)


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


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Make RUN/report.html again from the run's files, without a model. Prints its path."""
    from loracle.report.page import write_report

    path = write_report(run_folder)
    print(path)
    if show:
        import webbrowser

        if not webbrowser.open(path.as_uri()):
            print("no browser was found here; open the file yourself", file=sys.stderr)


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    name: Annotated[
        str | None, typer.Argument(help="The candidate to export as a model, or NAME--sSEED.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Write all predictions with their scores to this Parquet file."),
    ] = None,
    to: Annotated[
        ExportForm, typer.Option(help="peft: the adapter; merged: with the base; ollama: likewise.")
    ] = ExportForm.peft,
    out: Annotated[Path | None, typer.Option(help="The new folder. Without it: NAME-FORM.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Precision of a merged model. Without it: the base's.")
    ] = None,
) -> None:
    """Export a trained candidate as a model, or the predictions for other programs."""
    if (name is None) == (predictions is None):
        raise PlanError("name a candidate to export, or a file with --predictions; one of the two")
    if predictions is not None:
        from loracle.report.export import export_predictions

        print(f"{export_predictions(run_folder, predictions):,} rows in {predictions}")
        return
    assert name is not None
    if to is not ExportForm.peft:
        _quiet_libraries()
    from loracle.winner import export_winner

    folder = out or Path(f"{name}-{to.value}")
    found = export_winner(run_folder, name, to.value, folder, dtype=dtype)
    print(f"{folder}: {found}")


@app.command()
def serve(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN|FOLDER", help="A run's folder, or one that holds runs.")
    ],
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Without it: 8642, or a free one where that is taken."),
    ] = None,
) -> None:
    """Show a run, or all runs of a folder, in the browser, live. Only this machine reaches it."""
    from loracle.server.serving import serve as serve_folder

    serve_folder(folder, port, lambda line: print(line, flush=True))


@app.command()
def check(
    candidates: Annotated[
        list[str] | None, typer.Argument(help="Training sets to check, as for `run`.")
    ] = None,
    evaluation: Annotated[
        list[str] | None,
        typer.Option("--eval", help="An evaluation set that training must not know; repeatable."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Count in this model's tokens; without it lengths are in characters."),
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Check the data of this plan.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Set one key of the plan, as for `run`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of cards.")] = False,
) -> None:
    """Tell what is in datasets and what is wrong with them, before anything is trained.

    Exit code 2: something cannot be used. 1: an evaluation set is known to a training set, or too
    many rows are lost. 0: else.
    """
    from loracle.intake import check_files

    if model or plan or overrides:
        _quiet_libraries()
    checked = check_files(
        candidates or (), evaluation or (), model=model, plan=plan, overrides=overrides or ()
    )
    if as_json:
        print(json.dumps(checked.to_dict(), ensure_ascii=False, indent=2))
    else:
        _print_cards(checked)
    raise typer.Exit(checked.exit_code)


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="The data file.")],
    row: Annotated[int, typer.Option(help="Which row, from 1.")] = 1,
    model: Annotated[
        str | None, typer.Option(help="Whose template and tokens; `embedded` without a plan.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Write each token's id behind it.")] = False,
    plan: Annotated[
        Path | None, typer.Option(help="Render as this plan says (max_length, train_on, ...).")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Set one key of the plan, as for `run`.")
    ] = None,
) -> None:
    """Show a row as the model sees it: what is learned, what is context, what was cut."""
    from rich.console import Console

    from loracle.intake import inspect_file
    from loracle.report.inspected import inspected_lines

    _quiet_libraries()
    found = inspect_file(path, row, model=model, plan=plan, overrides=overrides or ())
    console = Console(highlight=False)
    for line in inspected_lines(found, colours=console.color_system is not None, ids=ids):
        console.print(line, soft_wrap=True)


@app.command()
def split(
    path: Annotated[str, typer.Argument(help="The data file.")],
    holdout: Annotated[float, typer.Option(help="The share of rows to hold out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Draws the groups; the same gives the same.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Split a file into NAME-train.jsonl and NAME-holdout.jsonl by shared passage, never by row."""
    from loracle.separation import split_file

    separated = split_file(path, holdout, seed, out)
    if as_json:
        print(json.dumps(separated.to_dict(), ensure_ascii=False, indent=2))
    else:
        print("\n".join(separated.lines()))


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


def _print_cards(checked: Check) -> None:
    from rich.console import Console

    from loracle.report.card import cards

    console = Console(highlight=False)
    for card in cards(checked):
        console.print(card)


def _print_results(results: dict[str, object]) -> None:
    from rich.console import Console

    from loracle.report.table import decision_line, results_table, summary_lines

    console = Console(highlight=False)
    for table in results_table(results):
        console.print(table)
    for line in (*summary_lines(results), "", decision_line(results)):
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
