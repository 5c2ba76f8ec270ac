"""The check of all data of an experiment: what is there, what is wrong with it, what to do.

    Intake --rendered, counted--> DatasetReport ┐
    [Intake] --audited together--> findings, Leakage ├-> Check (exit code, JSON, rendered rows)

A run trains on exactly the rows that its check rendered, so the counts of the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from loracle.data.accounting import Accounting, RowNote, account
from loracle.data.audit import (
    FINDING_MEANINGS,
    LEAK_MEANINGS,
    AuditedSet,
    Extractiveness,
    Finding,
    Leakage,
    RowReference,
    audited,
    extractiveness,
    findings,
    leakage,
)
from loracle.data.conversation import Example
from loracle.data.rendering import Rendered, RenderedPrompt, Renderer
from loracle.errors import UserError
from loracle.forest import Sequences
from loracle.likeness import differences
from loracle.sharing import Sharing, characters_of, sharing_of, with_passage_first

CHECK_VERSION = 1
"""The version of what `Check.to_dict` gives."""

Kind = Literal["candidate", "evaluation"]
Severity = Literal["error", "gated", "warning", "note"]

EXIT_CODES: Mapping[Severity, int] = {"error": 2, "gated": 1, "warning": 0, "note": 0}

_NUM_SHOWN_PLACES = 3
_FIXES = {
    "exact_duplicates": "remove the copies, or keep them where they are meant to weigh more",
    "duplicates": "remove the copies, or keep them where they are meant to weigh more",
    "near_rows": "keep one of each, unless they are meant as paraphrases",
    "near_passages": "see whether one of them is a revision of the other",
    "conflicting_answers": "decide for one answer, or list all of them as `answers`",
    "short_answers": "fill them or leave the rows out",
    "not_in_passage": "see whether these answers belong to another row",
}


@dataclass(frozen=True)
class Intake:
    """A dataset as it was read. description: what was found. dropped: rows that were not used.

    max_dropped: the share of rows that may be lost; more is gated in a candidate and an error in
        an evaluation set. None: any.
    error: why nothing could be read, one problem each.
    """

    name: str
    path: str
    kind: Kind
    examples: Sequence[Example] = ()
    description: str = ""
    dropped: Sequence[RowNote] = ()
    max_dropped: float | None = None
    error: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a dataset. A gated one fails its candidate, or the check."""

    severity: Severity
    message: str
    fix: str = ""


@dataclass(frozen=True)
class DatasetReport:
    """One dataset's card.

    description: the form and the container found. accounting, sharing, extractiveness: None where
    nothing could be read.
    """

    name: str
    path: str
    kind: Kind
    description: str
    accounting: Accounting | None
    sharing: Sharing | None
    extractiveness: Extractiveness | None
    findings: Sequence[Finding]
    problems: Sequence[Problem]

    @property
    def refusal(self) -> str | None:
        """Why the dataset must not be used as it is; None where it may."""
        gated = [problem.message for problem in self.problems if problem.severity == "gated"]
        return "; ".join(gated) or None

    def to_dict(self) -> dict[str, Any]:
        sharing = self.sharing
        return {
            "name": self.name,
            "path": self.path,
            "kind": self.kind,
            "description": self.description,
            "accounting": self.accounting.to_dict() if self.accounting else None,
            "sharing": sharing
            and {
                **asdict(sharing),
                "ratio": sharing.ratio,
                "possible_gain": sharing.possible_gain,
            },
            "extractiveness": self.extractiveness
            and {**asdict(self.extractiveness), "share": self.extractiveness.share},
            "findings": [finding.to_dict() for finding in self.findings],
            "problems": [asdict(problem) for problem in self.problems],
        }


@dataclass(frozen=True)
class RenderedSet:
    """A dataset ready for use: the kept examples (shortened ones with their cuts) and their rows.
    rows: None where no tokenizer was given."""

    examples: Sequence[Example]
    rows: Sequence[Rendered] | Sequence[RenderedPrompt] | None

    @property
    def training_rows(self) -> list[Rendered]:
        """A candidate's rows."""
        return [row for row in self.rows or () if isinstance(row, Rendered)]

    @property
    def prompts(self) -> list[RenderedPrompt]:
        """An evaluation set's rows."""
        return [row for row in self.rows or () if isinstance(row, RenderedPrompt)]


@dataclass(frozen=True)
class Check:
    """Everything the check found. rendered: by the dataset's name, evaluations and candidates
    apart; only of datasets that could be read."""

    reports: Sequence[DatasetReport]
    leakages: Sequence[Leakage]
    candidates: Mapping[str, RenderedSet] = field(default_factory=dict)
    evaluations: Mapping[str, RenderedSet] = field(default_factory=dict)

    @property
    def errors(self) -> list[str]:
        """What makes a run impossible."""
        return [
            problem.message
            for report in self.reports
            for problem in report.problems
            if problem.severity == "error"
        ]

    @property
    def refusals(self) -> dict[str, str]:
        """The candidates that must not be trained on, with the reason."""
        return {
            report.name: report.refusal
            for report in self.reports
            if report.kind == "candidate" and report.refusal
        }

    @property
    def leaks(self) -> list[Leakage]:
        """The leakages that name something."""
        return [found for found in self.leakages if found.leaks]

    @property
    def exit_code(self) -> int:
        """2 on errors; 1 on gated findings, which leakage is one of; else 0."""
        severities = [p.severity for report in self.reports for p in report.problems]
        codes = [EXIT_CODES[severity] for severity in severities]
        return max([*codes, EXIT_CODES["gated"] if self.leaks else 0])

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON values; `loracle check --json` prints them."""
        return {
            "version": CHECK_VERSION,
            "exit_code": self.exit_code,
            "datasets": [report.to_dict() for report in self.reports],
            "leakage": [found.to_dict() for found in self.leakages],
        }


def check(
    datasets: Sequence[Intake], renderer: Renderer | None = None, max_new_tokens: int = 0
) -> Check:
    """Render, count and audit datasets; every candidate against every evaluation set.

    renderer: None counts characters instead of tokens, and no row is too long.
    max_new_tokens: the room an evaluation prompt needs for its answer.
    """
    rendered: dict[tuple[Kind, str], RenderedSet] = {}
    parts: list[tuple[Intake, Accounting | None, Sharing | None, list[Problem]]] = []
    for dataset in datasets:
        accounting, sharing, problems, ready = _render(dataset, renderer, max_new_tokens)
        if ready is not None:
            rendered[dataset.kind, dataset.name] = ready
        parts.append((dataset, accounting, sharing, problems))
    audits = _audited(datasets, rendered)
    of_kind = {
        kind: [audit for (found, _), audit in audits.items() if found == kind]
        for kind in ("candidate", "evaluation")
    }
    reports = []
    for dataset, accounting, sharing, problems in parts:
        audit = audits.get((dataset.kind, dataset.name))
        if audit and dataset.kind == "candidate":
            problems += _differences(audit, of_kind["evaluation"])
        reports.append(_report(dataset, accounting, sharing, problems, audit))
    leakages = [
        leakage(candidate, evaluation)
        for candidate in of_kind["candidate"]
        for evaluation in of_kind["evaluation"]
    ]
    return Check(
        reports,
        leakages,
        {name: ready for (kind, name), ready in rendered.items() if kind == "candidate"},
        {name: ready for (kind, name), ready in rendered.items() if kind == "evaluation"},
    )


def _render(
    dataset: Intake, renderer: Renderer | None, max_new_tokens: int
) -> tuple[Accounting | None, Sharing | None, list[Problem], RenderedSet | None]:
    """Count one dataset; what cannot be rendered is an error of that dataset."""
    if dataset.error:
        return None, None, [Problem("error", text) for text in dataset.error], None
    num_joined = renderer.num_joined if renderer else 0
    dropped = list(dataset.dropped)
    shortened: list[RowNote] = []
    examples: Sequence[Example] = dataset.examples
    rows: Sequence[Rendered] | Sequence[RenderedPrompt] | None = None
    if renderer is not None:
        try:
            fitted = (
                renderer.fit_training(examples)
                if dataset.kind == "candidate"
                else renderer.fit_prompts(examples, max_new_tokens)
            )
        except UserError as error:
            return None, None, [Problem("error", text) for text in error.problems], None
        examples, rows = fitted.examples, fitted.rows
        dropped += map(RowNote.of, fitted.dropped)
        shortened += map(RowNote.of, fitted.shortened)
    accounting = account(examples, rows, dropped=dropped, shortened=shortened)
    problems = _losses(dataset, accounting)
    if renderer is not None and renderer.num_joined > num_joined:
        problems.append(_joined(renderer.num_joined - num_joined))
    if not examples:
        # An unusable candidate fails alone; without an evaluation set nothing can be compared.
        severity: Severity = "gated" if dataset.kind == "candidate" else "error"
        problems.append(Problem(severity, f"{dataset.path}: no row is left to use"))
        return accounting, None, problems, None
    ready = RenderedSet(examples, rows)
    sharing = _sharing(examples, ready, renderer, dataset.kind)
    return accounting, sharing, problems, ready


def _joined(num_replies: int) -> Problem:
    return Problem(
        "warning",
        f"{num_replies:,} replies melt into the chat template's text (they begin with white "
        "space); their tokens are cut where the model starts to answer",
        "strip the replies, where the white space is not meant",
    )


def _losses(dataset: Intake, accounting: Accounting) -> list[Problem]:
    """What to say of dropped and shortened rows."""
    problems = []
    if accounting.dropped:
        num, share = len(accounting.dropped), accounting.lost_share
        reasons = ", ".join(f"{k} {n:,}" for k, n in accounting.dropped_by_reason.items())
        places = _places([*map(_place, accounting.dropped)])
        part = f"{num / accounting.num_read:.1%}: {reasons}"
        text = f"{num:,} of {accounting.num_read:,} rows dropped ({part}) {places}"
        limit = dataset.max_dropped
        if limit is not None and share > limit:
            fix = "mend the rows, or raise max_dropped"
            failing: Severity = "gated" if dataset.kind == "candidate" else "error"
            problems.append(Problem(failing, f"{text}, more than max_dropped {limit:g}", fix))
        else:
            severity: Severity = "warning" if share else "note"
            problems.append(Problem(severity, text, "mend the rows" if share else ""))
    if accounting.shortened:
        places = _places([*map(_place, accounting.shortened)])
        num = len(accounting.shortened)
        text = f"{_rows(num)} shortened in the middle of the passage {places}"
        fix = "raise training.max_length, or set training.overlong"
        problems.append(Problem("warning", text, fix))
    return problems


def _sharing(
    examples: Sequence[Example], ready: RenderedSet, renderer: Renderer | None, kind: Kind
) -> Sharing:
    """The sharing ratio; the hint about the passage is for what the user can still change."""
    swapped = with_passage_first(examples) if kind == "candidate" else None
    if ready.rows is None or renderer is None:
        better = characters_of(swapped) if swapped else None
        return sharing_of(characters_of(ready.examples), better, max_row_tokens=None)
    better = _sequences(renderer.fit_training(swapped).rows) if swapped else None
    return sharing_of(_sequences(ready.rows), better)


def _sequences(rows: Sequence[Rendered] | Sequence[RenderedPrompt]) -> Sequences:
    weights = [row.weights for row in rows if isinstance(row, Rendered)]
    return Sequences.of([row.token_ids for row in rows], weights or None)


def _audited(
    datasets: Sequence[Intake], rendered: Mapping[tuple[Kind, str], RenderedSet]
) -> dict[tuple[Kind, str], AuditedSet]:
    """The kept rows of every dataset, as they were before any was shortened."""
    keys = [(dataset.kind, dataset.name) for dataset in datasets]
    chosen = [
        (dataset, {example.id for example in rendered[key].examples})
        for dataset, key in zip(datasets, keys, strict=True)
        if key in rendered
    ]
    sets = audited(
        (dataset.name, [example for example in dataset.examples if example.id in kept])
        for dataset, kept in chosen
    )
    return {
        (dataset.kind, dataset.name): found
        for (dataset, _), found in zip(chosen, sets, strict=True)
    }


def _report(
    dataset: Intake,
    accounting: Accounting | None,
    sharing: Sharing | None,
    problems: Iterable[Problem],
    audit: AuditedSet | None,
) -> DatasetReport:
    found = findings(audit) if audit else []
    extractive = extractiveness(audit) if audit else None
    return DatasetReport(
        dataset.name,
        dataset.path,
        dataset.kind,
        dataset.description,
        accounting,
        sharing,
        extractive,
        found,
        [*problems, *map(_problem, found), *_hints(dataset, sharing)],
    )


def _problem(finding: Finding) -> Problem:
    places = _places(
        [" = ".join(map(_place, group[:_NUM_SHOWN_PLACES])) for group in finding.groups]
    )
    text = f"{FINDING_MEANINGS[finding.kind]}: {_rows(finding.num_rows)} {places}"
    return Problem("warning", text, _FIXES[finding.kind])


def _differences(candidate: AuditedSet, evaluations: Sequence[AuditedSet]) -> list[Problem]:
    return [
        Problem("warning" if found.serious else "note", found.message, found.fix)
        for evaluation in evaluations
        for found in differences(candidate, evaluation)
    ]


def _hints(dataset: Intake, sharing: Sharing | None) -> list[Problem]:
    if sharing is None or sharing.possible_gain is None:
        return []
    return [
        Problem(
            "note",
            "the question stands before the passage, so rows of one passage share nothing",
            f"put the passage first: {sharing.possible_gain:.1f} times fewer tokens",
        )
    ]


def _rows(num: int) -> str:
    return f"{num:,} row{'' if num == 1 else 's'}"


def _place(row: RowReference | RowNote) -> str:
    """The file's name and the line: the dataset's own path stands beside it."""
    return f"{Path(row.file).name}:{row.line}"


def _places(places: Sequence[str]) -> str:
    shown = ", ".join(places[:_NUM_SHOWN_PLACES])
    more = len(places) - _NUM_SHOWN_PLACES
    return f"({shown}{f' and {more:,} more' if more > 0 else ''})"


__all__ = ["LEAK_MEANINGS", "Check", "DatasetReport", "Intake", "Problem", "RenderedSet", "check"]
