"""What the data check found, from RUN/check.json: rows dropped or shortened, findings, leakage.

    {"datasets": [{"name": "a", "kind": "candidate", "accounting": {"num_read": 100, ...},
                   "findings": [{"kind": "duplicates", "num_rows": 3, ...}], "problems": [...]}],
     "leakage": [{"candidate": "a", "evaluation": "test", "leaks": [...],
                  "leaked_ids": ["q1"], "clean_ids": ["q2", ...], ...}]}

Runs of a version without the check have no such file; the page says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from loracle.plan import BASE_NAME
from loracle.report.run_record import RunRecord
from loracle.report.sections.lookup import score
from loracle.report.sections.words import Said, places_of, series_of
from loracle.text import NOTHING, count, counted, percent

_NUM_EXAMPLES = 3
_FAILING = ("error", "gated")

# The check's kinds in words, in both languages. A kind from a later version is shown by its own
# name.
_LEAKS: Mapping[str, Said] = {
    "same_row": ("the same prompt and answer", "提示与答案均相同"),
    "same_prompt": ("the same prompt with a different answer", "提示相同、答案不同"),
    "near_row": ("nearly the same row", "几乎相同的行"),
    "passage": ("the same passage", "相同的原文"),
    "near_passage": ("nearly the same passage", "几乎相同的原文"),
    "same_question": (
        "the same long question and answer with another passage",
        "问题与答案相同、原文不同",
    ),
    "answer": ("an answer that appears in a training question", "答案出现在训练问题中"),
}
_FINDINGS: Mapping[str, Said] = {
    "exact_duplicates": ("exact duplicates of rows", "完全重复的行"),
    "duplicates": (
        "rows repeated except for case, spaces or punctuation",
        "仅大小写、空格或标点不同的重复行",
    ),
    "near_rows": ("rows that are nearly the same", "几乎相同的行"),
    "near_passages": ("passages that are nearly the same", "几乎相同的原文"),
    "conflicting_answers": ("one question, several answers", "同一问题有多个答案"),
    "short_answers": ("answers that are empty or absurdly short", "空的或过短的答案"),
    "not_in_passage": (
        "answers that do not appear in the passage, in a set where most do",
        "答案不在原文中（而多数答案在）",
    ),
}


def audit(record: RunRecord) -> dict[str, Any] | None:
    """The check's tables; None if the run has none."""
    check = record.check
    if check is None:
        return None
    return {
        "accounting": list(_accounting(record, check["datasets"])),
        "findings": list(_findings(record, check["datasets"])),
        "leakage": [_leakage(record, found) for found in check["leakage"]],
    }


def by_candidate(record: RunRecord, told: Container[str]) -> Iterator[dict[str, Any]]:
    """For each candidate with a finding: what the check found in it, in a few words.

    told: the kinds of facts that stand above it already.
    """
    check = record.check
    if check is None:
        return
    places = places_of(record.plan)
    for dataset in check["datasets"]:
        if dataset["kind"] != "candidate":
            continue
        words = list(_rows_in_words(dataset, with_dropped="rows_lost" not in told))
        if "leakage" not in told:
            words += _leaks_in_words(dataset["name"], check["leakage"])
        if words:
            yield {
                "name": dataset["name"],
                "series": series_of(dataset["name"], places),
                "words": ("; ".join(en for en, _ in words), "；".join(zh for _, zh in words)),
            }


def _rows_in_words(dataset: Mapping[str, Any], *, with_dropped: bool) -> Iterator[Said]:
    accounting = dataset["accounting"] or {"dropped_by_reason": {}, "shortened": []}
    num_dropped = sum(accounting["dropped_by_reason"].values())
    if num_dropped and with_dropped:
        yield f"{counted(num_dropped, 'row')} dropped", f"丢弃 {num_dropped:,} 行"
    if num_shortened := len(accounting["shortened"]):
        yield f"{num_shortened:,} shortened", f"缩短 {num_shortened:,} 行"
    for found in dataset["findings"]:
        kind, num = found["kind"], found["num_rows"]
        english, chinese = _FINDINGS.get(kind, (kind, kind))
        yield f"{num:,} {english}", f"{num:,} 行：{chinese}"


def _leaks_in_words(candidate: str, leakage: Sequence[Mapping[str, Any]]) -> Iterator[Said]:
    for found in leakage:
        num, name = len(found["leaked_ids"]), found["evaluation"]
        if found["candidate"] == candidate and num:
            yield (
                f"shares text with {counted(num, 'question')} of {name}",
                f"与 {name} 的 {num:,} 题有重合内容",
            )


def holdout_warnings(record: RunRecord) -> Iterator[Said]:
    """A warning for readers of the decision: the questions come from the candidates themselves."""
    holdout = (record.check or {}).get("holdout")
    if holdout is None:
        return
    num, contested = len(holdout["questions"]), holdout["num_contested"]
    yield (
        f"No evaluation set was given; held out of the candidates themselves: "
        f"{counted(num, 'question')}. On {contested:,} of them the candidates disagree about the "
        "answer, and each "
        "candidate's answer counts as right.",
        f"未提供评测集：从各候选中留出了 {num:,} 题。其中 {contested:,} 题各候选的答案互不相同，"
        "任何一个都算对。",
    )


def leakage_warnings(record: RunRecord, winner: str | None) -> Iterator[Said]:
    """A warning for readers of the decision: the winner has seen evaluation questions."""
    for found in (record.check or {"leakage": []})["leakage"]:
        num_leaked = len(found["leaked_ids"])
        if found["candidate"] == winner and num_leaked:
            num = num_leaked + len(found["clean_ids"])
            yield (
                f"{winner} shares text with {num_leaked:,} of {counted(num, 'question')} of "
                f"{found['evaluation']}: see Data for its score on the other questions.",
                f"{winner} 与 {found['evaluation']} 的 {num:,} 题中的 {num_leaked:,} 题有重合内容："
                "其余题目上的得分见“数据”一节。",
            )


def _accounting(
    record: RunRecord, datasets: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """One row per dataset. A check by an earlier version has no held-out rows."""
    places = places_of(record.plan)
    for dataset in datasets:
        found = dataset["accounting"]
        if found is None:
            continue
        is_candidate = dataset["kind"] == "candidate"
        yield {
            "name": dataset["name"],
            "series": series_of(dataset["name"], places) if is_candidate else None,
            "form": dataset["description"],
            "num_read": count(found["num_read"]),
            "num_kept": count(found["num_kept"]),
            "num_shortened": count(len(found["shortened"])),
            "num_held_out": count(found.get("num_held_out", 0)),
            "dropped": [f"{num:,} × {why}" for why, num in found["dropped_by_reason"].items()],
            "languages": ", ".join(f"{n} {share:.0%}" for n, share in found["languages"].items()),
            # Findings have a table of their own.
            "problems": [
                {"text": problem["message"], "is_bad": problem["severity"] in _FAILING}
                for problem in dataset["problems"]
                if not problem.get("finding")
            ],
        }


def _findings(record: RunRecord, datasets: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for dataset in datasets:
        for found in dataset["findings"]:
            kind = found["kind"]
            yield {
                "name": dataset["name"],
                "words": _FINDINGS.get(kind, (kind, kind)),
                "num_rows": count(found["num_rows"]),
                "places": [
                    " · ".join(f"{_file(row)}:{row['line']}" for row in group[:_NUM_EXAMPLES])
                    for group in found["groups"][:_NUM_EXAMPLES]
                ],
            }


def _file(row: Mapping[str, Any]) -> str:
    return str(row["file"]).rpartition("/")[2]


def _leakage(record: RunRecord, found: Mapping[str, Any]) -> dict[str, Any]:
    candidate, evaluation = found["candidate"], found["evaluation"]
    metric = record.plan["decision"]["metric"]
    num_leaked, clean = len(found["leaked_ids"]), found["clean_ids"]
    kinds = Counter(leak["kind"] for leak in found["leaks"])
    means = {
        name: (
            _mean(record, name, evaluation, metric, None),
            _mean(record, name, evaluation, metric, frozenset(clean)),
        )
        for name in (candidate, BASE_NAME)
    }
    return {
        "candidate": candidate,
        "series": series_of(candidate, places_of(record.plan)),
        "evaluation": evaluation,
        "num_leaked": count(num_leaked),
        "is_leaked": bool(num_leaked),
        "share": percent(num_leaked, num_leaked + len(clean)),
        "kinds": [(count(num), *_LEAKS.get(kind, (kind, kind))) for kind, num in kinds.items()],
        "full": score(metric, means[candidate][0]),
        "clean": score(metric, means[candidate][1]),
        "lift_full": _lift(metric, means[candidate][0], means[BASE_NAME][0]),
        "lift_clean": _lift(metric, means[candidate][1], means[BASE_NAME][1]),
    }


def _lift(metric: str, mean: float | None, base: float | None) -> str:
    if mean is None or base is None:
        return NOTHING
    return score(metric, mean - base, signed=True)


def _mean(
    record: RunRecord, candidate: str, evaluation: str, metric: str, ids: frozenset[str] | None
) -> float | None:
    """Over the questions `ids` (None: all) of every finished trial of the candidate."""
    values = [
        row[metric]
        for trial in record.finished_trials()
        if trial.candidate == candidate
        for row in trial.scores(evaluation) or ()
        if metric in row and (ids is None or row["id"] in ids)
    ]
    return sum(values) / len(values) if values else None
