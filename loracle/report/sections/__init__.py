"""What each section of the page shows, as plain values: display text in both languages.

judged.py      decision, ranking, estimates, evaluation sets
pairs.py       every two candidates against each other
measured.py    training curves, cost, data, length of answers
foreseen.py    what was predicted, beside what it took
provenance.py  settings, versions, hashes, command
words.py       numbers and names as they are shown
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loracle.report.answers import pack_answers
from loracle.report.run_record import RunRecord
from loracle.report.sections import audited, foreseen, judged, measured, pairs, provenance
from loracle.report.sections.lookup import Findings
from loracle.report.sections.words import Said, short_names

CONTENTS = (
    ("ranking", "Ranking", "排名"),
    ("estimates", "Estimates", "估计值"),
    ("pairs", "Pairwise comparison", "两两比较"),
    ("sets", "Evaluation sets", "评测集"),
    ("training", "Training curves", "训练曲线"),
    ("cost", "Learning cost", "学习代价"),
    ("foreseen", "Predicted and measured", "预测与实测"),
    ("data", "Data", "数据"),
    ("answers", "Wins and losses", "逐题胜负"),
    ("length", "Length and endings", "长度与结束原因"),
    ("settings", "Settings", "设置"),
)
"""The sections in their order: anchor and template, English and Chinese heading."""


_NEED_RESULTS = frozenset({"ranking", "estimates", "pairs", "sets"})


def all_sections(record: RunRecord) -> dict[str, Any]:
    """The values of every section by name; without results, only of sections that need none."""
    results = record.results
    findings = None if results is None else Findings(results)
    predicted = foreseen.foreseen(record)
    return {
        "run": record.root.name,
        "short_names": short_names(record),
        "model": None if results is None else _model_name(results["model"]["name"]),
        "created": None if results is None else results["created"][:10],
        "contents": [
            entry
            for entry in CONTENTS
            if (findings is not None or entry[0] not in _NEED_RESULTS)
            and (predicted["rows"] or entry[0] != "foreseen")
        ],
        "warnings": [] if findings is None else list(_warnings(record, findings)),
        **({} if findings is None else _judged(record, findings)),
        "training": measured.training(record),
        "cost": measured.cost(record),
        "foreseen": predicted,
        "data": measured.data(record) | {"audit": audited.audit(record)},
        "answers": _answers(record, findings),
        "length": measured.length(record),
        "settings": provenance.settings(record),
    }


def _model_name(name: str) -> str:
    """The last part of a path or hub id."""
    return name.rstrip("/").rpartition("/")[2]


def _warnings(record: RunRecord, findings: Findings) -> Iterator[Said]:
    recommended = findings.decisions[0]["recommended"] if findings.decisions else None
    yield from audited.holdout_warnings(record)
    told = {fact["kind"] for fact in findings.read_first}
    if "leakage" not in told:
        yield from audited.leakage_warnings(record, recommended)
    if record.plan["model"].get("trust_remote_code"):
        yield (
            "Code that came with the model ran on this machine (model.trust_remote_code: true).",
            "模型自带的代码曾在本机运行（model.trust_remote_code: true）。",
        )
    assert record.results is not None
    if "read_first" not in record.results and findings.is_judged:
        yield (
            "Made by an earlier version, whose verdicts did not require evidence of absence. "
            "`loracle decide` on this run applies today's rule and lists what could overturn it.",
            "该结果由较早版本生成，当时的结论并不要求为“没有差异”提供证据。"
            "对该运行执行 `loracle decide` 可按现行规则重新判断，并列出可能推翻结论的因素。",
        )
    if "not_judged" in told:
        return
    if num_failed := record.results["num_failed"]:
        yield (
            f"{num_failed} trials failed; see the ranking for the reason."
            if num_failed > 1
            else "One trial failed; see the ranking for the reason.",
            f"{num_failed} 次训练失败，原因见排名。",
        )


def _judged(record: RunRecord, findings: Findings) -> dict[str, Any]:
    return {
        "decision": judged.decision(record, findings),
        "ranking": judged.ranking(record, findings),
        "estimates": judged.estimates(record, findings),
        "pairs": pairs.pairs(record, findings),
        "sets": judged.sets(record, findings),
    }


def _answers(record: RunRecord, findings: Findings | None) -> dict[str, Any]:
    packed = pack_answers(record)
    if findings is None:
        ranked = [trial.candidate for trial in record.finished_trials()]
        metric = record.plan["decision"]["metric"]
    else:
        ranked, metric = findings.candidates, findings.metric
    labels = {trial.candidate: trial.label for trial in reversed(list(record.finished_trials()))}
    first = next((labels[name] for name in ranked if name != "base"), "base")
    notes = [
        (
            f"Questions and passages are not shown: {reason}.",
            f"无法显示问题与原文：{reason}。",
        )
        for reason in packed.missing
    ]
    if packed.num_shown < packed.num_questions:
        notes.append(
            (
                f"To keep this page small, it holds only the first {packed.num_shown:,} of "
                f"{packed.num_questions:,} questions; the figures above cover all of them. All "
                f"answers are in predictions/ in the run folder.",
                f"为控制页面大小，此处只包含 {packed.num_questions:,} 个问题中的前 "
                f"{packed.num_shown:,} 个；上方的数字基于全部问题。"
                "全部回答见运行文件夹的 predictions/。",
            )
        )
    return {
        "packed": packed.base64 if packed.num_questions else None,
        "metric": metric,
        "first": first,
        "second": "base",
        "notes": notes,
    }
