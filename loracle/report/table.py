"""The results as a table for the terminal, and the lines under it.

Names and reasons are shown as text; nothing in them is read as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from loracle.metrics.registry import TOKENS_IN_WORDS, WORD_METRICS
from loracle.plan import BASE_NAME
from loracle.report.decision_text import decision_sentence
from loracle.text import NOTHING, metric_name, shortened, shown_score, visible

_NAME_COLUMNS = 32


def results_table(results: Mapping[str, Any]) -> list[Table]:
    """One table for each evaluation, then one for their mean if there is more than one.

    The rows are in the order of the ranking over all evaluations.
    """
    tables = [_table(results, evaluation) for evaluation in results["evaluations"]]
    if len(tables) > 1:
        tables.append(_mean_table(results))
    return tables


def decision_line(results: Mapping[str, Any]) -> str:
    """The overall decision in one sentence."""
    return decision_sentence(results["decisions"])


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """Notes for reading the tables: how things were measured, and what failed."""
    return [
        *_held_out_lines(results["evaluations"]),
        *_tokenisation_lines(results["evaluations"]),
        *_length_lines(results),
        *_batching_lines(results["model"]),
        *results["model"].get("attention_replaced", ()),
        *_failure_lines(results["rows"]),
    ]


def _table(results: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Table:
    name, decisive = evaluation["name"], results["decision_metric"]
    table = _empty_table(
        results,
        f"{name} · {evaluation['num_examples']:,} examples · "
        f"{evaluation['num_clusters']:,} independent groups",
        (*map(metric_name, evaluation["metrics"]), f"{metric_name(decisive)} lift"),
    )
    intervals = _Intervals(results, name)
    for entry in results["ranking"]:
        scores = entry["scores"].get(name, {})
        cells = [
            _with_interval(
                shown_score(metric, scores[metric]["mean"]),
                intervals.of_mean(metric, entry["candidate"]),
            )
            if metric in scores
            else NOTHING
            for metric in evaluation["metrics"]
        ]
        lift = scores[decisive]["lift"] if decisive in scores else None
        cells.append(_lift_cell(entry, decisive, lift, intervals))
        _add_row(table, results, entry, cells)
    return table


def _mean_table(results: Mapping[str, Any]) -> Table:
    """The decisive metric over all evaluations, each with the same weight."""
    decisive = results["decision_metric"]
    table = _empty_table(
        results,
        f"mean of {len(results['evaluations'])} evaluation sets",
        (metric_name(decisive), f"{metric_name(decisive)} lift"),
    )
    intervals = _Intervals(results, None)
    for entry in results["ranking"]:
        mean = entry["mean"]
        score = NOTHING
        if mean is not None:
            interval = intervals.of_mean(decisive, entry["candidate"])
            score = _with_interval(shown_score(decisive, mean), interval)
        cells = [score, _lift_cell(entry, decisive, entry["lift"], intervals)]
        _add_row(table, results, entry, cells)
    return table


def _empty_table(results: Mapping[str, Any], title: str, headers: Sequence[str]) -> Table:
    confidence = f"{results['rule']['confidence']:.4g}"
    table = Table(
        title=Text(title),
        caption=Text(f"second lines: intervals at confidence {confidence}, cluster bootstrap"),
    )
    table.add_column("rank", justify="right")
    table.add_column("candidate", overflow="fold")
    if _several_seeds(results):
        table.add_column("seeds", justify="right")
    for header in ("examples\nsteps", *headers, "minutes"):
        table.add_column(Text(header), justify="right", no_wrap=True)
    return table


def _add_row(
    table: Table, results: Mapping[str, Any], entry: Mapping[str, Any], scores: Sequence[str]
) -> None:
    cells = [_rank(entry), _candidate(entry)]
    if _several_seeds(results):
        cells.append(_seeds(entry))
    minutes = NOTHING if entry["seconds"] is None else f"{entry['seconds'] / 60:.1f}"
    table.add_row(*map(Text, [*cells, _size(entry), *scores, minutes]), style=_style(entry))


def _several_seeds(results: Mapping[str, Any]) -> bool:
    return any(entry["num_done"] + entry["num_failed"] > 1 for entry in results["ranking"])


class _Intervals:
    """The intervals of one evaluation set, or (None) of all of them together."""

    def __init__(self, results: Mapping[str, Any], evaluation: str | None) -> None:
        self._means = {
            (estimate["metric"], estimate["candidate"]): (estimate["low"], estimate["high"])
            for estimate in results["estimates"]
            if estimate["evaluation"] == evaluation
        }
        self._lifts = {
            (comparison["metric"], comparison["a"]): (comparison["low"], comparison["high"])
            for comparison in results["comparisons"]
            if comparison["evaluation"] == evaluation and comparison["b"] == BASE_NAME
        }

    def of_mean(self, metric: str, candidate: str) -> str | None:
        low, high = self._means.get((metric, candidate), (None, None))
        if low is None or high is None:
            return None
        return f"{shown_score(metric, low)}–{shown_score(metric, high)}"

    def of_lift(self, metric: str, candidate: str) -> str | None:
        low, high = self._lifts.get((metric, candidate), (None, None))
        if low is None or high is None:
            return None
        ends = (shown_score(metric, end, signed=True) for end in (low, high))
        return "…".join(ends)


def _with_interval(value: str, interval: str | None) -> str:
    return value if interval is None else f"{value}\n{interval}"


def _lift_cell(
    entry: Mapping[str, Any], metric: str, lift: float | None, intervals: _Intervals
) -> str:
    if lift is None or entry["candidate"] == BASE_NAME:
        return NOTHING
    interval = intervals.of_lift(metric, entry["candidate"])
    return _with_interval(shown_score(metric, lift, signed=True), interval)


def _rank(entry: Mapping[str, Any]) -> str:
    return NOTHING if entry["rank"] is None else str(entry["rank"])


def _candidate(entry: Mapping[str, Any]) -> str:
    name = visible(shortened(entry["candidate"], _NAME_COLUMNS))
    return f"{name}\nfailed: {visible(entry['reason'])}" if entry["status"] == "failed" else name


def _seeds(entry: Mapping[str, Any]) -> str:
    if entry["candidate"] == BASE_NAME:
        return NOTHING
    num_seeds = entry["num_done"] + entry["num_failed"]
    return f"{entry['num_done']} of {num_seeds}" if entry["num_failed"] else str(num_seeds)


def _size(entry: Mapping[str, Any]) -> str:
    if entry["candidate"] == BASE_NAME:
        return NOTHING
    steps = NOTHING if entry["num_steps"] is None else f"{entry['num_steps']:,.0f}"
    return f"{entry['num_examples']:,}\n{steps}"


def _style(entry: Mapping[str, Any]) -> str:
    if entry["status"] == "failed":
        return "red"
    return "dim" if entry["candidate"] == BASE_NAME else ""


def _held_out_lines(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """An evaluation set that consists of rows of the candidates."""
    return [
        visible(
            f"{evaluation['name']}: rows held out of the candidates and not trained on: "
            + ", ".join(f"{name} {num:,}" for name, num in evaluation["held_out"].items())
        )
        for evaluation in evaluations
        if evaluation.get("held_out")
    ]


def _tokenisation_lines(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for evaluation in evaluations:
        metrics = [name for name in WORD_METRICS if name in evaluation["metrics"]]
        parts = [
            f"{TOKENS_IN_WORDS.get(tokens, tokens)} on {num_examples:,}"
            for tokens, num_examples in evaluation["tokenisation"].items()
            if num_examples
        ]
        if metrics and parts:
            place = f"{evaluation['name']}: " if len(evaluations) > 1 else ""
            lines.append(f"{place}{', '.join(metrics)}: {', '.join(parts)} examples")
    return lines


def _length_lines(results: Mapping[str, Any]) -> list[str]:
    """Answers cut by max_new_tokens: their scores may be too low."""
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
