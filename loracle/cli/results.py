"""Commands about what a run found: decide, compare, report, serve, export; and score."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from loracle.cli.shell import app, print_json, quiet_libraries
from loracle.errors import PlanError


class Language(StrEnum):
    """The languages that decisions are worded in."""

    en = "en"
    zh = "zh"


class ExportForm(StrEnum):
    """What `loracle export` makes of a candidate."""

    peft = "peft"
    merged = "merged"
    gguf_ready = "gguf-ready"
    ollama = "ollama"


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
    from loracle.decision.evidence import read_evidence
    from loracle.decision.judge import frozen_rule, judge, judgement_record, other_rule
    from loracle.report.decision_text import decision_lines, other_rule_note

    evidence = read_evidence(run_folder)
    frozen = frozen_rule(evidence)
    rule = other_rule(frozen, metric=metric, confidence=confidence)
    record = judgement_record(judge(evidence, rule))
    if as_json:
        print_json({"frozen_rule": rule == frozen, **record})
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

    from loracle.decision.compare import compare_runs, comparison_record
    from loracle.decision.evidence import read_evidence
    from loracle.decision.judge import frozen_rule, other_rule
    from loracle.report.decision_text import run_comparison_lines, run_comparison_tables

    a, b = read_evidence(run_a), read_evidence(run_b)
    rule = other_rule(frozen_rule(a), metric=metric, confidence=confidence)
    found = compare_runs(a, b, rule.metric, rule.confidence)
    if as_json:
        print_json(comparison_record(found))
        return
    console = Console(highlight=False)
    console.print(f"A: {run_a}\nB: {run_b}", markup=False)
    for line in run_comparison_lines(found):
        console.print(line, markup=False)
    for table in run_comparison_tables(found):
        console.print(table)


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
        ExportForm,
        typer.Option(
            help="peft: the adapter; merged: with the base; gguf-ready, ollama: likewise, with "
            "what llama.cpp's converter or Ollama needs."
        ),
    ] = ExportForm.peft,
    out: Annotated[Path | None, typer.Option(help="The new folder. Without it: NAME-FORM.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Precision of a merged model. Without it: the base's where no checked answer "
            "changes by it, else float32."
        ),
    ] = None,
) -> None:
    """Export a trained candidate as a model, or the predictions for other programs."""
    if (name is None) == (predictions is None):
        raise PlanError("name a candidate to export, or a file with --predictions; one of the two")
    if predictions is not None:
        from loracle.export.parquet import export_predictions

        print(f"{export_predictions(run_folder, predictions):,} rows in {predictions}")
        return
    assert name is not None
    if to is not ExportForm.peft:
        quiet_libraries()
    from loracle.export.candidate import export_winner

    folder = out or Path(f"{name}-{to.value}")
    found = export_winner(run_folder, name, to.value, folder, dtype=dtype)
    print(f"{folder}: {found}")


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="Rows of {prediction, answers}.")],
    metrics: Annotated[str, typer.Option(help="Names, separated by commas.")] = "em,f1",
    per_row: Annotated[
        Path | None, typer.Option(help="Write the rows with their scores to this JSONL file.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="A key under another name, prediction=output; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score predictions in a file, without a model.

    Reads also what LLaMA-Factory, ms-swift, lm-evaluation-harness and OpenCompass write.
    """
    from loracle.data.reading.prediction_files import named_columns
    from loracle.metrics.score_file import format_scores, score_file, to_json

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    scores = score_file(file, names, per_row=per_row, columns=named_columns(columns or ()))
    print(to_json(scores) if as_json else format_scores(scores))
