"""Decision, ranking, estimates, evaluation sets: what results.json says about the scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loracle.plan import BASE_NAME
from loracle.report.charts import NARROW, PointRow, SizeRow, estimates_chart, sizes_chart
from loracle.report.run_record import RunRecord
from loracle.report.sections import audited
from loracle.report.sections.lookup import (
    Findings,
    Scope,
    interval,
    p_value,
    score,
)
from loracle.report.sections.words import OVERALL, Said, places_of, series_of
from loracle.text import NOTHING, clock, count, counted, metric_name, on_scale


def decision(record: RunRecord, findings: Findings) -> dict[str, Any]:
    """The overall decision in words, and the figures needed to read it."""
    if not findings.decisions:
        return {
            "kicker": ("Decision", "决策"),
            "tone": "",
            "sentence": (
                "No decision: these results have no intervals or comparisons",
                "尚无决策：该结果不含区间与比较",
            ),
            "reasons": [
                (
                    "The run was made by an earlier version of Loracle. What it measured is "
                    "shown below; a mean that is larger only by chance would look the same.",
                    "该运行由较早版本的 Loracle 完成。以下为其测得的数据；"
                    "仅凭均值无法区分真实差异与偶然。",
                )
            ],
            "facts": [],
            "read_first": [],
            "data": [],
        }
    first = findings.decisions[0]
    confidence = f"{findings.rule['confidence']:.0%}"
    metric = metric_name(findings.metric)
    return {
        "kicker": (
            f"Decision · {metric} · confidence {confidence}",
            f"决策 · {metric} · 置信度 {confidence}",
        ),
        "tone": _TONES.get(first["verdict"], ""),
        "sentence": _said(first["sentence"]),
        "reasons": [_said(reason) for reason in first["reasons"]],
        "facts": list(_facts(record, findings)),
        "read_first": [_said(fact["text"]) for fact in findings.read_first],
        "data": list(audited.by_candidate(record, {fact["kind"] for fact in findings.read_first})),
    }


_TONES = {"use": "good", "harmful": "bad"}


def _said(words: Mapping[str, str]) -> Said:
    return words["en"], words["zh"]


def _precision(model: Mapping[str, Any]) -> Said:
    """Of the base: its weights' and, where they are packed, its products' too."""
    packing, dtype = model.get("quantization", "none"), model["dtype"]
    if packing == "none":
        return dtype, dtype
    return f"weights in {packing}, products in {dtype}", f"权重为 {packing}，乘法为 {dtype}"


def _facts(record: RunRecord, findings: Findings) -> Iterator[dict[str, Any]]:
    assert record.results is not None
    model = record.results["model"]
    precision = _precision(model)
    yield {
        "name": ("Base model", "基座模型"),
        "value": model["name"].rstrip("/").rpartition("/")[2],
        "is_name": True,
        "detail": (
            f"{count(model['num_parameters'])} parameters, {precision[0]}",
            f"{count(model['num_parameters'])} 参数，{precision[1]}",
        ),
    }
    facts = findings.facts(findings.metric, findings.scope)
    if facts is not None:
        yield {
            "name": ("Questions", "题目"),
            "value": count(facts["num_questions"]),
            "detail": (
                f"in {counted(facts['num_clusters'], 'independent group')}",
                f"共 {facts['num_clusters']:,} 个独立组",
            ),
        }
        visible, power = facts["smallest_visible"], findings.rule["power"]
        yield {
            "name": ("Smallest visible difference", "可检出的最小差异"),
            "value": score(findings.metric, visible),
            "detail": None
            if visible is None
            else (f"at {power:.0%} power", f"检出概率 {power:.0%}"),
        }
    seeds = len(record.plan["seeds"])
    yield {
        "name": ("Candidates", "候选"),
        "value": count(len(record.plan["candidates"])),
        "detail": (
            f"{seeds} seeds each" if seeds > 1 else "one seed: training variation not measured",
            f"各 {seeds} 个随机种子" if seeds > 1 else "单一种子：未测训练的偶然性",
        ),
    }
    seconds = sum(
        row["training_seconds"] + row["evaluation_seconds"] for row in record.results["rows"]
    )
    yield {
        "name": ("Time", "用时"),
        "value": clock(seconds),
        "detail": ("training and evaluation", "训练与评测"),
    }


def ranking(record: RunRecord, findings: Findings) -> dict[str, Any]:
    """Every candidate and the base by its mean, with intervals and lift."""
    results = record.results
    assert results is not None
    places = places_of(record.plan)
    others = [metric for metric in findings.metrics if metric != findings.metric]
    several = any(entry["num_done"] + entry["num_failed"] > 1 for entry in results["ranking"])
    return {
        "lead": _ranking_lead(findings),
        "metric": metric_name(findings.metric),
        "has_intervals": findings.is_judged,
        "confidence": f"{findings.rule.get('confidence', 0):.0%}",
        "other_metrics": [metric_name(metric) for metric in others],
        "has_seeds": several,
        "rows": [
            _ranking_row(entry, findings, others, series_of(entry["candidate"], places))
            for entry in results["ranking"]
        ],
        "notes": list(_tokenisation_notes(results)),
    }


def _ranking_lead(findings: Findings) -> Said:
    several = len(findings.scopes) > 1
    means = (
        ("Means over all evaluation sets, each with the same weight. ", "各评测集等权平均。")
        if several
        else ("", "")
    )
    if not findings.is_judged:
        return (
            f"{means[0]}By mean score only, on a scale of 0 to 100.",
            f"{means[1]}仅按平均得分（百分制）排列。",
        )
    return (
        f"{means[0]}Scores on a scale of 0 to 100 with intervals; lift is the paired difference "
        "from the untrained base; p is corrected for all comparisons (Holm).",
        f"{means[1]}得分为百分制并附区间；“相对基座”为与未训练基座的逐题配对差值，"
        "p 值已按全部比较校正（Holm）。",
    )


def _ranking_row(
    entry: Mapping[str, Any], findings: Findings, others: list[str], series: str
) -> dict[str, Any]:
    name, metric = entry["candidate"], findings.metric
    is_base = name == BASE_NAME
    estimate = findings.estimate(name, metric, findings.scope)
    against_base = findings.comparison(name, BASE_NAME, metric, findings.scope)
    num_seeds = entry["num_done"] + entry["num_failed"]
    return {
        "rank": NOTHING if entry["rank"] is None else entry["rank"],
        "name": name,
        "series": series,
        "reason": entry["reason"],
        "is_failed": entry["status"] == "failed",
        "tag": _tag(name, findings),
        "mean": score(metric, entry["mean"]),
        "interval": interval(metric, estimate),
        "lift": NOTHING if is_base else score(metric, entry["lift"], signed=True),
        "lift_interval": interval(metric, against_base, signed=True),
        "p": p_value(against_base),
        "others": [score(other, _mean_over_sets(entry, other)) for other in others],
        "seeds": NOTHING if is_base else f"{entry['num_done']} / {num_seeds}",
        "num_rows": count(entry["num_examples"] or None),
        "time": clock(entry["seconds"]),
    }


def _mean_over_sets(entry: Mapping[str, Any], metric: str) -> float | None:
    """The plain mean over the sets, None if one of them lacks the metric."""
    means = [
        by_metric[metric]["mean"] for by_metric in entry["scores"].values() if metric in by_metric
    ]
    complete = means and len(means) == len(entry["scores"])
    return sum(means) / len(means) if complete else None


def _tag(name: str, findings: Findings) -> dict[str, Any] | None:
    """What the overall decision says about one candidate, in a few words."""
    if not findings.decisions or name == BASE_NAME:
        return None
    first = findings.decisions[0]
    forgetting = {found["candidate"] for found in first["forgetting"]}
    for is_so, tone, words in (
        (name == first["winner"], "good", ("use this", "采用")),
        (name in first["harmful"], "bad", ("harmful", "有害")),
        (name in forgetting, "bad", ("forgets", "遗忘")),
        (name == first["recommended"], "good", ("cheapest that helps", "有效且成本最低")),
        (name in first["helpful"], "good", ("helps", "有效")),
        (name in first["contenders"], "", ("may be as good", "可能同样好")),
        (_is_absent(name, findings), "", ("no gain worth having", "无值得在意的提升")),
        (name in findings.candidates, "", ("cannot tell", "无法判断")),
    ):
        if is_so:
            return {"tone": tone, "words": words}
    return None


def _is_absent(name: str, findings: Findings) -> bool:
    found = findings.comparison(name, BASE_NAME, findings.metric, findings.scope)
    return found is not None and bool(found.get("absent"))


def _tokenisation_notes(results: Mapping[str, Any]) -> Iterator[Said]:
    for entry in results["evaluations"]:
        by_script = entry["tokenisation"]
        words, characters = by_script.get("spaced", 0), by_script.get("characters", 0)
        if characters and words:
            yield (
                f"{entry['name']}: EM and F1 compare words on {words:,} questions and characters "
                f"on {characters:,}, whose references are in a script that does not use spaces.",
                f"{entry['name']}：EM 与 F1 在 {words:,} 题上按单词计算，在 {characters:,} 题上"
                "按字符计算（参考答案的文字不以空格分词）。",
            )
        elif characters:
            yield (
                f"{entry['name']}: EM and F1 compare words, and single characters in scripts that "
                "do not use spaces, which some of its references are in.",
                f"{entry['name']}：EM 与 F1 按单词比较；不以空格分词的文字（部分参考答案如此）"
                "按字符比较。",
            )


def estimates(record: RunRecord, findings: Findings) -> dict[str, Any]:
    """A plot for each scope on one axis, the decisive one first; and scores against rows."""
    if not findings.candidates:
        return {"charts": [], "sizes": None}
    plots = {scope: _points(record, findings, scope) for scope in findings.scopes}
    ends = _ends([row for rows in plots.values() for row in rows])
    return {
        "charts": [
            {
                "title": _scope_title(scope, findings),
                "chart": estimates_chart(rows, ends),
                "narrow": estimates_chart(rows, ends, NARROW),
            }
            for scope, rows in plots.items()
        ],
        "sizes": _sizes(record, findings, plots[findings.scope]),
    }


def _ends(rows: list[PointRow]) -> tuple[float, float]:
    """Of the axis that all plots share: it holds every interval."""
    values = [value for row in rows for value in (row.mean, row.low, row.high) if value is not None]
    return min(values), max(values)


def _sizes(record: RunRecord, findings: Findings, points: list[PointRow]) -> dict[str, Any] | None:
    """Scores against rows of training data; None unless candidates differ in their rows."""
    assert record.results is not None
    num_rows = {entry["candidate"]: entry["num_examples"] for entry in record.results["ranking"]}
    rows = [
        SizeRow(point.series, num_rows[point.label], point.mean, point.low, point.high)
        for point in points
        if point.series is not None
    ]
    if len({row.num_rows for row in rows}) < 2:
        return None
    places = places_of(record.plan)
    base = next((point.mean for point in points if point.series is None), None)
    return {
        "chart": sizes_chart(rows, base),
        "narrow": sizes_chart(rows, base, NARROW),
        "legend": [
            {"name": name, "series": series_of(name, places)}
            for name in findings.candidates
            if name != BASE_NAME
        ],
    }


def _points(record: RunRecord, findings: Findings, scope: Scope) -> list[PointRow]:
    assert record.results is not None
    places = places_of(record.plan)
    metric = findings.metric
    rows = []
    for entry in record.results["ranking"]:
        if entry["mean"] is None:
            continue
        name = entry["candidate"]
        mean = entry["mean"] if scope is None else entry["scores"][scope][metric]["mean"]
        found = findings.estimate(name, metric, scope) or {"low": None, "high": None}
        ends = [None if found[end] is None else on_scale(metric, found[end]) for end in _ENDS]
        rows.append(
            PointRow(
                name,
                places.get(name),
                score(metric, mean),
                on_scale(metric, mean),
                ends[0],
                ends[1],
            )
        )
    return rows


_ENDS = ("low", "high")


def _scope_title(scope: Scope, findings: Findings) -> Said | None:
    """A heading if there is more than one scope."""
    if len(findings.scopes) == 1:
        return None
    return OVERALL if scope is None else (scope, scope)


def sets(record: RunRecord, findings: Findings) -> dict[str, Any]:
    """Every candidate on every set and metric; a decision for each set if there is more than
    one."""
    results = record.results
    assert results is not None
    places = places_of(record.plan)
    columns = [(e["name"], m) for e in results["evaluations"] for m in e["metrics"]]
    return {
        "columns": [(evaluation, metric_name(metric)) for evaluation, metric in columns],
        "rows": [
            {
                "name": entry["candidate"],
                "series": series_of(entry["candidate"], places),
                "cells": [_heat(entry, findings, *column) for column in columns],
            }
            for entry in results["ranking"]
            if entry["scores"]
        ],
        "decisions": [
            {"evaluation": one["evaluation"], "sentence": _said(one["sentence"])}
            for one in findings.decisions[1:]
        ],
    }


def _heat(
    entry: Mapping[str, Any], findings: Findings, evaluation: str, metric: str
) -> dict[str, str]:
    found = entry["scores"].get(evaluation, {}).get(metric)
    if found is None:
        return {"mean": NOTHING, "lift": "", "shade": ""}
    mean, lift = score(metric, found["mean"]), found["lift"]
    if entry["candidate"] == BASE_NAME or lift is None:
        return {"mean": mean, "lift": "", "shade": ""}
    strength = sum(abs(lift) >= bound for bound in _SHADES)
    direction = "up" if findings.is_better(metric, lift) else "down"
    return {
        "mean": mean,
        "lift": score(metric, lift, signed=True),
        "shade": f"{direction}-{strength}" if strength else "",
    }


# Lifts from which on a cell is one shade darker, in the metric's own unit: 0.01 is one point.
_SHADES = (0.01, 0.05, 0.15, 0.35)
