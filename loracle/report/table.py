"""The results as a table for the terminal, and the lines under it, in English or Chinese.

Names and reasons are shown as text; nothing in them is read as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from rich.table import Table

from loracle.decision.wording import short_name
from loracle.language import Language
from loracle.metrics.registry import TOKENS_IN_WORDS, WORD_METRICS
from loracle.plan import BASE_NAME
from loracle.report.terminal_table import DEFAULT_WIDTH, Column, Row, terminal_table
from loracle.text import NOTHING, metric_name, shown_score, visible

_Words: TypeAlias = Mapping[str, str]

_WORDS: Mapping[Language, _Words] = {
    "en": {
        **TOKENS_IN_WORDS,
        "title": "{name} · {num_examples:,} examples · {num_clusters:,} independent groups",
        "mean": "mean of {num} evaluation sets",
        "caption": "second lines: intervals at confidence {confidence}, cluster bootstrap",
        "rank": "rank",
        "candidate": "candidate",
        "seeds": "seeds",
        "size": "examples\nsteps",
        "lift": "{metric} lift",
        "minutes": "minutes",
        "failed": "failed: {reason}",
        "of": "{part} of {whole}",
        "held_out": "{name}: rows held out of the candidates and not trained on: {listed}",
        "tokens": "{tokens} on {num:,}",
        "tokenisation": "{metrics}: {listed} examples",
        "part": "{name} {part:,} of {whole:,}",
        "cut": "answers cut at max_new_tokens: {listed}",
        "padded": "padded batches, no shared prefixes: {reason}",
        "seed": "{name} (seed {seed})",
        "one_failed": "1 trial failed:",
        "failures": "{num:,} trials failed:",
        "comma": ", ",
        "colon": ": ",
    },
    "zh": {
        "spaced": "单词",
        "characters": "字符",
        "title": "{name} · {num_examples:,} 题 · {num_clusters:,} 个独立组",
        "mean": "{num} 个评测集的平均",
        "caption": "第二行：置信度 {confidence} 的区间（按组自助法）",
        "rank": "名次",
        "candidate": "候选",
        "seeds": "种子",
        "size": "行数\n步数",
        "lift": "{metric} 提升",
        "minutes": "分钟",
        "failed": "失败：{reason}",
        "of": "{part}/{whole}",
        "held_out": "{name}：从候选中留出、未参与训练的行：{listed}",
        "tokens": "{num:,} 题按{tokens}",
        "tokenisation": "{metrics} 的计算单位：{listed}",
        "part": "{name} {whole:,} 个中的 {part:,} 个",
        "cut": "在 max_new_tokens 处被截断的回答：{listed}",
        "padded": "使用填充批次，不共享前缀：{reason}",
        "seed": "{name}（随机种子 {seed}）",
        "one_failed": "1 次训练失败：",
        "failures": "{num:,} 次训练失败：",
        "comma": "，",
        "colon": "：",
    },
}


def results_table(
    results: Mapping[str, Any], language: Language = "en", width: int = DEFAULT_WIDTH
) -> list[Table]:
    """One table for each evaluation, then one for their mean if there is more than one.

    The rows are in the order of the ranking over all evaluations. What is the same on all of them
    (seeds, examples, time) is in the last table. width: of the terminal, in columns.
    """
    words = _WORDS[language]
    evaluations = results["evaluations"]
    several = len(evaluations) > 1
    tables = [
        _table(results, evaluation, words, width, with_training=not several)
        for evaluation in evaluations
    ]
    if several:
        tables.append(_mean_table(results, words, width))
    return tables


def summary_lines(results: Mapping[str, Any], language: Language = "en") -> list[str]:
    """Notes for reading the tables: how things were measured, and what failed."""
    words = _WORDS[language]
    return [
        *_held_out_lines(results["evaluations"], words),
        *_tokenisation_lines(results["evaluations"], words),
        *_length_lines(results, words),
        *_batching_lines(results["model"], words),
        *results["model"].get("attention_replaced", ()),
        *_failure_lines(results["rows"], words),
    ]


def _table(
    results: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    words: _Words,
    width: int,
    *,
    with_training: bool,
) -> Table:
    name, decisive = evaluation["name"], results["decision_metric"]
    title = words["title"].format(
        name=name,
        num_examples=evaluation["num_examples"],
        num_clusters=evaluation["num_clusters"],
    )
    metrics = evaluation["metrics"]
    intervals = _Intervals(results, name)
    cells_of = []
    for entry in results["ranking"]:
        scores = entry["scores"].get(name, {})
        cells = [
            _with_interval(
                shown_score(metric, scores[metric]["mean"]),
                intervals.of_mean(metric, entry["candidate"]),
            )
            if metric in scores
            else NOTHING
            for metric in metrics
        ]
        lift = scores[decisive]["lift"] if decisive in scores else None
        cells_of.append([*cells, _lift_cell(entry, decisive, lift, intervals)])
    headers = (*map(metric_name, metrics), words["lift"].format(metric=metric_name(decisive)))
    return _of_cells(results, title, headers, cells_of, words, width, with_training=with_training)


def _mean_table(results: Mapping[str, Any], words: _Words, width: int) -> Table:
    """The decisive metric over all evaluations, each with the same weight."""
    decisive = results["decision_metric"]
    intervals = _Intervals(results, None)
    cells_of = []
    for entry in results["ranking"]:
        mean = entry["mean"]
        score = NOTHING
        if mean is not None:
            interval = intervals.of_mean(decisive, entry["candidate"])
            score = _with_interval(shown_score(decisive, mean), interval)
        cells_of.append([score, _lift_cell(entry, decisive, entry["lift"], intervals)])
    title = words["mean"].format(num=len(results["evaluations"]))
    name = metric_name(decisive)
    headers = (name, words["lift"].format(metric=name))
    return _of_cells(results, title, headers, cells_of, words, width, with_training=True)


def _of_cells(
    results: Mapping[str, Any],
    title: str,
    headers: Sequence[str],
    cells_of: Sequence[Sequence[str]],
    words: _Words,
    width: int,
    *,
    with_training: bool,
) -> Table:
    """The ranking with these scores, one list of cells for each of its rows."""
    several_seeds = with_training and any(
        entry["num_done"] + entry["num_failed"] > 1 for entry in results["ranking"]
    )
    columns = [
        Column(words["rank"]),
        Column(words["candidate"], is_number=False, is_name=True),
        *([Column(words["seeds"])] if several_seeds else []),
        *([Column(words["size"])] if with_training else []),
        *map(Column, headers),
        *([Column(words["minutes"])] if with_training else []),
    ]
    rows = []
    for entry, scores in zip(results["ranking"], cells_of, strict=True):
        minutes = NOTHING if entry["seconds"] is None else f"{entry['seconds'] / 60:.1f}"
        cells = [
            _rank(entry),
            _candidate(entry, words),
            *([_seeds(entry, words)] if several_seeds else []),
            *([_size(entry)] if with_training else []),
            *scores,
            *([minutes] if with_training else []),
        ]
        rows.append(Row(cells, _style(entry)))
    confidence = f"{results['rule']['confidence']:.4g}"
    caption = words["caption"].format(confidence=confidence)
    return terminal_table(title, caption, columns, rows, width)


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


def _candidate(entry: Mapping[str, Any], words: _Words) -> str:
    name = visible(entry["candidate"])
    if entry["status"] != "failed":
        return name
    return f"{name}\n{words['failed'].format(reason=visible(entry['reason']))}"


def _seeds(entry: Mapping[str, Any], words: _Words) -> str:
    if entry["candidate"] == BASE_NAME:
        return NOTHING
    num_seeds = entry["num_done"] + entry["num_failed"]
    if not entry["num_failed"]:
        return str(num_seeds)
    return words["of"].format(part=entry["num_done"], whole=num_seeds)


def _size(entry: Mapping[str, Any]) -> str:
    if entry["candidate"] == BASE_NAME:
        return NOTHING
    steps = NOTHING if entry["num_steps"] is None else f"{entry['num_steps']:,.0f}"
    return f"{entry['num_examples']:,}\n{steps}"


def _style(entry: Mapping[str, Any]) -> str:
    if entry["status"] == "failed":
        return "red"
    return "dim" if entry["candidate"] == BASE_NAME else ""


def _held_out_lines(evaluations: Sequence[Mapping[str, Any]], words: _Words) -> list[str]:
    """An evaluation set that consists of rows of the candidates."""
    return [
        visible(
            words["held_out"].format(
                name=evaluation["name"],
                listed=words["comma"].join(
                    f"{name} {num:,}" for name, num in evaluation["held_out"].items()
                ),
            )
        )
        for evaluation in evaluations
        if evaluation.get("held_out")
    ]


def _tokenisation_lines(evaluations: Sequence[Mapping[str, Any]], words: _Words) -> list[str]:
    lines = []
    for evaluation in evaluations:
        metrics = [name for name in WORD_METRICS if name in evaluation["metrics"]]
        parts = [
            words["tokens"].format(num=num_examples, tokens=words.get(tokens, tokens))
            for tokens, num_examples in evaluation["tokenisation"].items()
            if num_examples
        ]
        if metrics and parts:
            place = evaluation["name"] if len(evaluations) > 1 else None
            listed = words["comma"].join(parts)
            line = words["tokenisation"].format(metrics=", ".join(metrics), listed=listed)
            lines.append(line if place is None else f"{visible(place)}{words['colon']}{line}")
    return lines


def _length_lines(results: Mapping[str, Any], words: _Words) -> list[str]:
    """Answers cut by max_new_tokens: their scores may be too low."""
    cut: dict[str, int] = {}
    answered: dict[str, int] = {}
    for row in results["rows"]:
        for counts in row["finish_reasons"].values():
            name = row["candidate"]
            cut[name] = cut.get(name, 0) + counts["length"]
            answered[name] = answered.get(name, 0) + counts["length"] + counts["stop"]
    parts = [
        words["part"].format(name=visible(short_name(name, list(cut))), part=cut[name], whole=whole)
        for name, whole in answered.items()
        if cut[name]
    ]
    return [words["cut"].format(listed=words["comma"].join(parts))] if parts else []


def _batching_lines(model: Mapping[str, Any], words: _Words) -> list[str]:
    if model["batching"] == "forest":
        return []
    return [words["padded"].format(reason=model["batching_reason"])]


def _failure_lines(rows: Sequence[Mapping[str, Any]], words: _Words) -> list[str]:
    failed = [row for row in rows if row["status"] == "failed"]
    if not failed:
        return []
    names = [
        row["candidate"]
        if row["seed"] is None
        else words["seed"].format(name=row["candidate"], seed=row["seed"])
        for row in failed
    ]
    return [
        words["one_failed" if len(failed) == 1 else "failures"].format(num=len(failed)),
        *(
            f"  {visible(name)}{words['colon']}{visible(row['reason'])}"
            for name, row in zip(names, failed, strict=True)
        ),
    ]
