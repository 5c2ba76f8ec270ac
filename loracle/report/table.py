"""The results as a table for the terminal, and the lines under it.

Names and reasons are shown as text; nothing in them is read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from loracle.plan import BASE_NAME
from loracle.report.results import shown_score

# How em and f1 cut a text into tokens, by the references' script.
_TOKENS_IN_WORDS = {"spaced": "SQuAD words", "characters": "characters"}
# The metrics that choose their tokens by script; the others have one way.
_METRICS_BY_SCRIPT = ("em", "f1")

_NOTHING = "–"

# Terminal commands, and marks that turn the direction of writing. Tab and new line are harmless.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with control characters spelled out, so that they command no terminal."""
    return _CONTROL_CHARACTERS.sub(lambda found: ascii(found[0])[1:-1], text)


def results_table(results: Mapping[str, Any]) -> list[Table]:
    """One table for each evaluation, its rows in the order of the ranking over all of them."""
    return [_table(results, evaluation) for evaluation in results["evaluations"]]


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """What to know when reading the tables: how it was measured, and what failed."""
    return [
        *_tokenisation_lines(results["evaluations"]),
        *_length_lines(results),
        *_batching_lines(results["model"]),
        *_failure_lines(results["rows"]),
    ]


def _table(results: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Table:
    decisive = results["decision_metric"]
    table = Table(title=Text(f"{evaluation['name']} · {evaluation['num_examples']:,} examples"))
    table.add_column("rank", justify="right")
    table.add_column("candidate", overflow="fold")
    several_seeds = any(entry["num_done"] + entry["num_failed"] > 1 for entry in results["ranking"])
    if several_seeds:
        table.add_column("seeds", justify="right")
    for header in (
        "examples",
        "steps",
        *map(_header, evaluation["metrics"]),
        f"{_header(decisive)} lift",
        "minutes",
    ):
        table.add_column(Text(header), justify="right", no_wrap=True)
    for entry in results["ranking"]:
        cells = [_rank(entry), _candidate(entry)]
        if several_seeds:
            cells.append(_seeds(entry))
        cells += _cost_cells(entry)
        cells += _score_cells(entry, evaluation, decisive)
        cells.append(_NOTHING if entry["seconds"] is None else f"{entry['seconds'] / 60:.1f}")
        table.add_row(*map(Text, cells), style=_style(entry))
    return table


def _header(metric: str) -> str:
    return metric.upper() if metric in _METRICS_BY_SCRIPT else metric


def _rank(entry: Mapping[str, Any]) -> str:
    return _NOTHING if entry["rank"] is None else str(entry["rank"])


def _candidate(entry: Mapping[str, Any]) -> str:
    name: str = entry["candidate"]
    return f"{name}\nfailed: {visible(entry['reason'])}" if entry["status"] == "failed" else name


def _seeds(entry: Mapping[str, Any]) -> str:
    if entry["candidate"] == BASE_NAME:
        return _NOTHING
    num_seeds = entry["num_done"] + entry["num_failed"]
    return f"{entry['num_done']} of {num_seeds}" if entry["num_failed"] else str(num_seeds)


def _cost_cells(entry: Mapping[str, Any]) -> list[str]:
    if entry["candidate"] == BASE_NAME:
        return [_NOTHING, _NOTHING]
    steps = _NOTHING if entry["num_steps"] is None else f"{entry['num_steps']:,.0f}"
    return [f"{entry['num_examples']:,}", steps]


def _score_cells(
    entry: Mapping[str, Any], evaluation: Mapping[str, Any], decisive: str
) -> list[str]:
    scores = entry["scores"].get(evaluation["name"], {})
    cells = [
        shown_score(metric, scores[metric]["mean"]) if metric in scores else _NOTHING
        for metric in evaluation["metrics"]
    ]
    lift = scores[decisive]["lift"] if decisive in scores else None
    if lift is None or entry["candidate"] == BASE_NAME:
        return [*cells, _NOTHING]
    return [*cells, shown_score(decisive, lift, signed=True)]


def _style(entry: Mapping[str, Any]) -> str:
    if entry["status"] == "failed":
        return "red"
    return "dim" if entry["candidate"] == BASE_NAME else ""


def _tokenisation_lines(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for evaluation in evaluations:
        metrics = [name for name in _METRICS_BY_SCRIPT if name in evaluation["metrics"]]
        parts = [
            f"{_TOKENS_IN_WORDS.get(tokens, tokens)} on {num_examples:,}"
            for tokens, num_examples in evaluation["tokenisation"].items()
            if num_examples
        ]
        if metrics and parts:
            place = f"{evaluation['name']}: " if len(evaluations) > 1 else ""
            lines.append(f"{place}{', '.join(metrics)}: {', '.join(parts)} examples")
    return lines


def _length_lines(results: Mapping[str, Any]) -> list[str]:
    """Answers that were cut by max_new_tokens: their scores may be too low."""
    cut: dict[str, int] = {}
    answered: dict[str, int] = {}
    for row in results["rows"]:
        for counts in row["finish_reasons"].values():
            name = row["candidate"]
            cut[name] = cut.get(name, 0) + counts["length"]
            answered[name] = answered.get(name, 0) + counts["length"] + counts["stop"]
    parts = [f"{name} {cut[name]:,} of {answered[name]:,}" for name in cut if cut[name]]
    return [f"answers cut at max_new_tokens: {', '.join(parts)}"] if parts else []


def _batching_lines(model: Mapping[str, Any]) -> list[str]:
    if model["batching"] == "forest":
        return []
    return [f"padded batches, no shared prefixes: {model['batching_reason']}"]


def _failure_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    failed = [row for row in rows if row["status"] == "failed"]
    if not failed:
        return []
    names = [
        row["candidate"] if row["seed"] is None else f"{row['candidate']} (seed {row['seed']})"
        for row in failed
    ]
    return [
        f"{len(failed)} {'trial' if len(failed) == 1 else 'trials'} failed:",
        *(f"  {name}: {visible(row['reason'])}" for name, row in zip(names, failed, strict=True)),
    ]
