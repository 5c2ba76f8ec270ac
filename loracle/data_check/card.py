"""The check as cards for the terminal: one for each dataset, one for each leakage.

Names, texts and reasons are shown as plain text; nothing in them is treated as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from loracle.data.accounting import Accounting
from loracle.data.audit import LEAK_MEANINGS, Leak, Leakage, RowReference
from loracle.data.reading.fields import columns_line
from loracle.data.sharing import Sharing
from loracle.data_check.result import Check, DatasetReport, Problem
from loracle.text import counted, first_few, visible, without_repeats

NUM_SHOWN_LEAKS = 10
_NUM_SHOWN_ROWS = 3
_MIN_SHOWN_SHARE = 0.1
_MIN_SHOWN_RATIO = 1.05
_MARKS = {"error": "error", "gated": "fails", "warning": "!", "note": "hint"}
_STYLES = {"error": "bold red", "gated": "red", "warning": "yellow", "note": "cyan"}


def cards(check: Check) -> list[RenderableType]:
    """One card for each dataset, in order, then one for each candidate with leakage, then the
    length limit."""
    lines = [Text(line) for line in (*_limit_lines(check), *check.remarks)]
    return [*map(_dataset_card, check.reports), *map(_leakage_card, check.leaks), *lines]


def summary_lines(check: Check) -> list[str]:
    """The check with one line for each dataset and each leakage, as `loracle run` prints it."""
    lines = []
    for report in check.reports:
        counts = _rows_line(report.accounting) if report.accounting else "cannot be used"
        sharing = f" · shares {_ratio(report.sharing)} times" if report.sharing else ""
        lines.append(visible(f"{report.name}: {counts}{sharing}"))
    for found in check.leakages:
        if found.leaks:
            lines.append(visible(_leak_summary(found)))
    return [*lines, *_limit_lines(check), *check.remarks]


_OVERLONG_IN_WORDS = {
    "shorten": "longer ones are shortened in the middle of their passage",
    "drop": "longer ones are dropped",
    "error": "longer ones stop the run",
}


def _limit_lines(check: Check) -> list[str]:
    if check.overlong is None:
        return []
    reason = f" ({check.max_length_reason})" if check.max_length_reason else ""
    if check.max_length is None:
        return [f"longest row allowed: no limit{reason}"]
    return [
        f"longest row allowed: {check.max_length:,} tokens{reason}; "
        f"{_OVERLONG_IN_WORDS[check.overlong]}"
    ]


def _dataset_card(report: DatasetReport) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    for label, text in _facts(report).items():
        facts.add_row(label, Text(visible(text)))
    title = Text(visible(f"{report.name} · {report.kind}"))
    parts: list[RenderableType] = [
        facts,
        *(_problem(problem) for problem in _shown(report.problems)),
    ]
    worst = next((p.severity for p in report.problems if p.severity in ("error", "gated")), None)
    border = _STYLES[worst] if worst else "none"
    return Panel(Group(*parts), title=title, title_align="left", border_style=border)


def _facts(report: DatasetReport) -> dict[str, str]:
    facts = {"file": report.path}
    if report.description:
        facts["found"] = report.description
    if report.fields:
        facts["columns"] = columns_line(report.fields)
    if report.num_unlearned:
        num = report.num_unlearned
        facts["marks"] = f"{counted(num, 'reply', 'replies')} excluded from the loss"
    if report.accounting:
        facts["rows"] = _rows_line(report.accounting)
        facts["length"] = _length_line(report.accounting)
        facts["text"] = _shares(report.accounting.scripts, report.accounting.languages)
    if report.sharing:
        facts["sharing"] = _sharing_line(report)
    if report.extractiveness and (report.extractiveness.share or 0) >= _MIN_SHOWN_SHARE:
        num, total = report.extractiveness.num_in_passage, report.extractiveness.num_with_passage
        facts["answers"] = f"{num:,} of {total:,} appear in their passage"
    return facts


def _rows_line(accounting: Accounting) -> str:
    parts = [f"{accounting.num_read:,} read", f"{accounting.num_kept:,} kept"]
    if accounting.num_held_out:
        parts.append(f"{accounting.num_held_out:,} held out")
    reasons = ", ".join(f"{k} {n:,}" for k, n in accounting.dropped_by_reason.items())
    dropped = f"{len(accounting.dropped):,} dropped"
    parts.append(f"{dropped} ({reasons})" if reasons else dropped)
    parts.append(f"{len(accounting.shortened):,} shortened")
    return " · ".join(parts)


def _length_line(accounting: Accounting) -> str:
    lengths = accounting.lengths
    return (
        f"{lengths.total:,} {lengths.unit} · {accounting.supervised:,} supervised · "
        f"median {lengths.p50:,} · 90 % {lengths.p90:,} · 99 % {lengths.p99:,} · "
        f"longest {lengths.longest:,}"
    )


def _shares(*shares: Mapping[str, float]) -> str:
    return " · ".join(
        ", ".join(f"{name} {share:.0%}" for name, share in part.items()) for part in shares if part
    )


def _sharing_line(report: DatasetReport) -> str:
    sharing, accounting = report.sharing, report.accounting
    assert sharing is not None
    assert accounting is not None
    unit = accounting.lengths.unit
    sampled = sharing.num_rows < accounting.num_kept
    gain = (
        f"{_ratio(sharing)} times fewer {unit} to compute"
        if sharing.ratio >= _MIN_SHOWN_RATIO
        else "rows share almost nothing"
    )
    return (
        f"{gain}: {sharing.num_separate:,} as separate "
        f"rows, {sharing.num_forest:,} in the forest"
        f"{f' (first {sharing.num_rows:,} rows)' if sampled else ''}"
    )


def _ratio(sharing: Sharing) -> str:
    return f"{sharing.ratio:.1f}"


def _shown(problems: Sequence[Problem]) -> list[Problem]:
    """Errors of rows, one that many rows share once; then all else."""
    errors = [p.message for p in problems if p.severity == "error" and not p.fix]
    others = [p for p in problems if p.severity != "error" or p.fix]
    return [*(Problem("error", message) for message in without_repeats(errors)), *others]


def _problem(problem: Problem) -> Text:
    text = Text(f"{_MARKS[problem.severity]} ", style=_STYLES[problem.severity])
    text.append(visible(problem.message), style="default")
    if problem.fix:
        text.append(f"\n  → {visible(problem.fix)}", style="default")
    return text


def _leakage_card(found: Leakage) -> RenderableType:
    lines = [Text(visible(_leak_summary(found)), style="red")]
    lines += [Text(visible(_leak_line(leak))) for leak in found.leaks[:NUM_SHOWN_LEAKS]]
    if len(found.leaks) > NUM_SHOWN_LEAKS:
        lines.append(Text(f"and {len(found.leaks) - NUM_SHOWN_LEAKS:,} more (all with --json)"))
    if found.num_untried_pairs:
        lines.append(
            Text(f"not compared: {counted(found.num_untried_pairs, 'pair')} of similar texts")
        )
    title = Text(visible(f"{found.candidate} → {found.evaluation} · leakage"))
    return Panel(Group(*lines), title=title, title_align="left", border_style="red")


def _leak_summary(found: Leakage) -> str:
    num_all = len(found.leaked_ids) + len(found.clean_ids)
    return (
        f"{found.candidate} contains {len(found.leaked_ids):,} of the {counted(num_all, 'row')} of "
        f"{found.evaluation}; {len(found.clean_ids):,} are clean"
    )


def _leak_line(leak: Leak) -> str:
    near = f" ({leak.similarity:.0%} alike)" if leak.similarity < 1 else ""
    return (
        f"{LEAK_MEANINGS[leak.kind]}{near}: {_where(leak.train)} = {_where(leak.evaluation)}"
        f"\n    {leak.text}"
    )


def _where(rows: Sequence[RowReference]) -> str:
    """The rows' places by file name: the cards above say where the files are."""
    places = [f"{Path(row.file).name}:{row.line} [{row.id}]" for row in rows]
    return first_few(places, _NUM_SHOWN_ROWS)
