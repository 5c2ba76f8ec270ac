"""A decision as tables for the terminal: each candidate against the base and against the leader.

    candidate | F1 | gain over base | corrected p | shows | behind the best | shows

Made from the record of a judgement, as results.json holds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from rich.table import Table

from loracle.metrics import get_metric
from loracle.plan import BASE_NAME
from loracle.report.terminal_table import DEFAULT_WIDTH, Column, Row, terminal_table
from loracle.text import NOTHING, cell_width, metric_name, p_value, shown_score, visible

Language = Literal["en", "zh"]
Record = Mapping[str, Any]

_LEADER_COLUMNS = 11
"""A longer name of the leader is not in the heading; its row says who leads."""
_WORDS = {
    "en": {
        "candidate": "candidate",
        "gain": "gain over\nbase",
        "p": "corrected\np",
        "shows": "shows",
        "behind": "against\n{name}",
        "the_leader": "the leader",
        "leader": "leader",
        "caption": "intervals at confidence {confidence:.4g}; worth having: {worth}",
        "overall": "mean of all sets",
        "helps": "helps",
        "harmful": "harmful",
        "no_gain": "no gain",
        "cannot_tell": "cannot\ntell",
        "better": "better",
        "worse": "worse",
        "equal": "equal",
        "forgets": "forgets",
    },
    "zh": {
        "candidate": "候选",
        "gain": "相对基座",
        "p": "校正后\np",
        "shows": "结论",
        "behind": "相对\n{name}",
        "the_leader": "领先者",
        "leader": "领先",
        "caption": "区间置信度 {confidence:.4g}；值得在意的差异：{worth}",
        "overall": "全部评测集的平均",
        "helps": "有效",
        "harmful": "有害",
        "no_gain": "无提升",
        "cannot_tell": "无法判断",
        "better": "更好",
        "worse": "更差",
        "equal": "相等",
        "forgets": "遗忘",
    },
}


def decision_tables(
    record: Record, language: Language = "en", width: int = DEFAULT_WIDTH
) -> list[Table]:
    """One table for each decision, the overall one first. width: of the terminal, in columns."""
    words = _WORDS[language]
    return [_table(record, decision, words, width) for decision in record["decisions"]]


def _table(record: Record, decision: Record, words: Mapping[str, str], width: int) -> Table:
    rule, scope = record["rule"], decision["evaluation"]
    metric = rule["metric"]
    columns = [
        Column(words["candidate"], is_number=False, is_name=True),
        Column(metric_name(metric)),
        Column(words["gain"]),
        Column(words["p"]),
        Column(words["shows"], is_number=False),
    ]
    leader = decision["leader"] if _has_rivals(record, scope, decision["leader"]) else None
    if leader is not None:
        name = visible(leader) if cell_width(leader) <= _LEADER_COLUMNS else words["the_leader"]
        columns.append(Column(words["behind"].format(name=name)))
        columns.append(Column(words["shows"], is_number=False))
    return terminal_table(
        words["overall"] if scope is None else visible(scope),
        words["caption"].format(
            confidence=rule["confidence"], worth=shown_score(metric, rule["worth_having"])
        ),
        columns,
        [Row(cells) for cells in _rows(record, decision, leader, words)],
        width,
    )


def _has_rivals(record: Record, scope: str | None, leader: str | None) -> bool:
    return leader is not None and any(
        leader in (one["a"], one["b"]) and one["b"] != BASE_NAME and one["evaluation"] == scope
        for one in record["comparisons"]
    )


def _rows(
    record: Record, decision: Record, leader: str | None, words: Mapping[str, str]
) -> Iterator[Sequence[str]]:
    """Best mean first; the base among them."""
    metric, scope = record["rule"]["metric"], decision["evaluation"]
    estimates = [
        one for one in record["estimates"] if (one["metric"], one["evaluation"]) == (metric, scope)
    ]
    direction = -1 if get_metric(metric).higher_is_better else 1
    estimates.sort(key=lambda one: direction * one["mean"])
    for estimate in estimates:
        name = estimate["candidate"]
        cells = [visible(name), shown_score(metric, estimate["mean"])]
        against_base = _comparison(record, metric, scope, name, BASE_NAME)
        if against_base is None:
            cells += [NOTHING, NOTHING, NOTHING]
        else:
            cells += [
                _with_interval(metric, against_base, 1),
                p_value(against_base["p_corrected"]),
                _against_base(against_base, decision, words),
            ]
        if leader is not None:
            cells += _against_leader(record, metric, scope, name, leader, words)
        yield cells


def _against_base(comparison: Record, decision: Record, words: Mapping[str, str]) -> str:
    if comparison["a"] in {found["candidate"] for found in decision["forgetting"]}:
        return words["forgets"]
    if comparison["better"] is not None:
        return words["helps" if comparison["better"] == comparison["a"] else "harmful"]
    return words["no_gain" if comparison["absent"] else "cannot_tell"]


def _against_leader(
    record: Record,
    metric: str,
    scope: str | None,
    name: str,
    leader: str,
    words: Mapping[str, str],
) -> list[str]:
    if name == leader:
        return [words["leader"], NOTHING]
    if name == BASE_NAME:
        return [NOTHING, NOTHING]
    found = _comparison(record, metric, scope, name, leader)
    assert found is not None, "every two candidates are compared"
    if found["better"] is not None:
        shows = words["better" if found["better"] == name else "worse"]
    else:
        shows = words["equal" if found["absent"] else "cannot_tell"]
    return [_with_interval(metric, found, 1 if found["a"] == name else -1), shows]


def _comparison(
    record: Record, metric: str, scope: str | None, one: str, other: str
) -> Record | None:
    for found in record["comparisons"]:
        if (found["metric"], found["evaluation"]) != (metric, scope):
            continue
        if {found["a"], found["b"]} == {one, other}:
            return dict(found)
    return None


def _with_interval(metric: str, found: Record, sign: int) -> str:
    """The difference, with its interval on the next line. sign: -1 reverses it."""
    value = shown_score(metric, sign * found["difference"], signed=True)
    if found["low"] is None or found["high"] is None:
        return value
    low, high = sorted((sign * found["low"], sign * found["high"]))
    ends = (shown_score(metric, end, signed=True) for end in (low, high))
    return f"{value}\n{'…'.join(ends)}"
