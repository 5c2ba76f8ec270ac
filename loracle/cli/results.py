"""Commands for the results of a run: decide, compare, report, serve; score; and export."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from loracle.cli.shell import RESULTS, SHARE, app, print_json, print_lines, print_note, session
from loracle.errors import PlanError
from loracle.language import Language
from loracle.text import counted


class ExportForm(StrEnum):
    """What `loracle export` makes of a candidate."""

    peft = "peft"
    merged = "merged"
    gguf_ready = "gguf-ready"
    ollama = "ollama"


_MetricOption = Annotated[str | None, typer.Option(help="Use this metric instead of the plan's.")]
_ConfidenceOption = Annotated[
    float | None, typer.Option(help="Use this confidence instead of the plan's: 0.9.")
]


@app.command(rich_help_panel=RESULTS, epilog="loracle decide runs/demo --confidence 0.9")
def decide(
    run_folder: Annotated[Path, typer.Argument(help="The folder of a run, or its URL.")],
    metric: _MetricOption = None,
    confidence: _ConfidenceOption = None,
    why: Annotated[
        bool, typer.Option("--why", help="Show every reason as a sentence instead of a table.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which dataset to use, and why.

    Reads the scores from the run's files; changes nothing.
    """
    import loracle

    judged = loracle.decide(run_folder, metric=metric, confidence=confidence)
    if as_json:
        print_json({"frozen_rule": judged.follows_plan, **judged.record})
        return
    if judged.note is not None:
        print_note(judged.note)
    _print_decision(judged.record, session.language, why=why)


def _print_decision(record: Mapping[str, Any], language: Language, *, why: bool) -> None:
    from rich.console import Console

    from loracle.report.decision_table import decision_tables
    from loracle.report.decision_text import (
        alone_lines,
        decision_lines,
        decision_sentence,
        read_first_lines,
    )

    console = Console(highlight=False)
    decisions, read_first = record["decisions"], read_first_lines(record["read_first"], language)
    gap = [""] if read_first else []
    if why:
        sentence, *reasons = decision_lines(decisions, language)
        print_lines([sentence, *gap, *read_first, *reasons], console.width)
        return
    print_lines([decision_sentence(decisions, language), *gap, *read_first], console.width)
    tables = decision_tables(record, language, console.width)
    for table, line in zip(tables, [None, *alone_lines(decisions, language)], strict=True):
        console.print()
        if line is not None:
            print_lines([line, ""], console.width)
        console.print(table)


@app.command(rich_help_panel=RESULTS, epilog="loracle compare runs/rank-8 runs/rank-16")
def compare(
    run_a: Annotated[Path, typer.Argument(help="The folder of a run, or its URL.")],
    run_b: Annotated[Path, typer.Argument(help="Another run with the same questions.")],
    metric: _MetricOption = None,
    confidence: _ConfidenceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two runs question by question."""
    from rich.console import Console

    import loracle
    from loracle.decision.compare import comparison_record
    from loracle.report.decision_text import run_comparison_lines, run_comparison_tables

    found = loracle.compare(run_a, run_b, metric=metric, confidence=confidence)
    if as_json:
        print_json(comparison_record(found))
        return
    console = Console(highlight=False)
    console.print(f"A: {run_a}\nB: {run_b}", markup=False)
    for line in run_comparison_lines(found):
        console.print(line, markup=False)
    for table in run_comparison_tables(found):
        console.print(table)


@app.command(rich_help_panel=RESULTS, epilog="loracle report runs/demo --open")
def report(
    run_folder: Annotated[Path, typer.Argument(help="The folder of a run, or its URL.")],
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Rebuild a run's report.html and print its path."""
    import loracle

    path = loracle.Run(run_folder).write_report()
    print(path)
    if show:
        import webbrowser

        if not webbrowser.open(path.as_uri()):
            print_note("no browser found; open the file yourself")


@app.command(rich_help_panel=RESULTS, epilog="loracle serve runs")
def serve(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a folder of runs.")],
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: 8642, or a free one if that is taken."),
    ] = None,
) -> None:
    """Show runs in the browser, live.

    Only this machine can reach the page.
    """
    from loracle.run_folder.local_copies import local_copy
    from loracle.server.serving import serve as serve_folder

    serve_folder(local_copy(folder), port, lambda line: print(line, flush=True))


@app.command(rich_help_panel=RESULTS, epilog="loracle score predictions.jsonl --metrics em,f1")
def score(
    file: Annotated[Path, typer.Argument(help="Rows of {prediction, answers}.")],
    metrics: Annotated[str, typer.Option(help="Metric names, separated by commas.")] = "em,f1",
    per_row: Annotated[
        Path | None, typer.Option(help="Write the rows with their scores to this JSONL file.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="A key under another name: prediction=output."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score predictions in a file, without a model.

    Also reads what LLaMA-Factory, ms-swift, lm-evaluation-harness and OpenCompass write.
    """
    import loracle
    from loracle.data.reading.prediction_files import named_columns
    from loracle.metrics.score_file import format_scores, to_json

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    scores = loracle.score(file, names, per_row=per_row, columns=named_columns(columns or ()))
    print(to_json(scores) if as_json else format_scores(scores))


@app.command(rich_help_panel=SHARE, epilog="loracle export runs/demo clean --to merged --out model")
def export(
    run_folder: Annotated[Path, typer.Argument(help="The folder of a run, or its URL.")],
    name: Annotated[
        str | None, typer.Argument(help="The candidate to export as a model, or NAME--sSEED.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Write all predictions with their scores to this Parquet file."),
    ] = None,
    to: Annotated[
        ExportForm,
        typer.Option(
            help="peft: the adapter. merged: merged with the base. gguf-ready, ollama: merged, "
            "for llama.cpp's converter or Ollama."
        ),
    ] = ExportForm.peft,
    out: Annotated[Path | None, typer.Option(help="The new folder. Default: NAME-FORM.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision of the merged model. Default: the base's if that changes no checked "
            "answer, else float32."
        ),
    ] = None,
) -> None:
    """Export a candidate as a model, or the predictions.

    A merged model is loaded again and tested: it must answer as the adapter does.
    """
    import loracle

    if (name is None) == (predictions is None):
        raise PlanError("name either a candidate to export or a file with --predictions")
    run = loracle.Run(run_folder)
    if predictions is not None:
        print(f"{counted(run.export_predictions(predictions), 'row')} in {predictions}")
        return
    exported = run.export(name, to.value, out, dtype=dtype)
    print(f"{exported.folder}: {exported.checked}")
