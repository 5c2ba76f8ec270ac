"""The result of a check, as plain data: every class here has the JSON form that `to_dict` returns.

    {"version": 1, "exit_code": 1,
     "datasets": [{"name": "clean", "kind": "candidate", "accounting": {"num_read": 889, ...},
                   "sharing": {"ratio": 3.6, ...}, "findings": [...], "problems": [...]}, ...],
     "leakage": [{"candidate": "clean", "evaluation": "test", "leaks": [...],
                  "leaked_ids": [...], "clean_ids": [...], "leaked_share": 0.02}, ...]}

data/accounting.py and data/audit/findings.py have the inner shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from loracle.data.accounting import Accounting, RowNote
from loracle.data.audit import Extractiveness, Finding, Leakage
from loracle.data.conversation import Example
from loracle.data.holdout import Holdout
from loracle.data.reading.fields import FieldUse
from loracle.data.rendering.renderer import Rendered, RenderedPrompt
from loracle.data.rendering.shortening import Overlong
from loracle.data.sharing import Sharing
from loracle.data.stored import measures_of

CHECK_VERSION = 1
"""The version of the output of `Check.to_dict`."""

Kind = Literal["candidate", "evaluation"]
Severity = Literal["error", "gated", "warning", "note"]

EXIT_CODES: Mapping[Severity, int] = {"error": 2, "gated": 1, "warning": 0, "note": 0}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a dataset. A gated problem fails its candidate, or the check.

    finding: the kind of finding that it reports, if any.
    """

    severity: Severity
    message: str
    fix: str = ""
    finding: str = ""


@dataclass(frozen=True)
class Intake:
    """A dataset as it was read. description: what was found. dropped: rows that were not used.

    max_dropped: the share of rows that may be lost; more is gated in a candidate and an error in
        an evaluation set. None: no limit.
    error: why nothing could be read, one problem each.
    num_held_out: rows that were read and are used for evaluation instead of training.
    remarks: remarks about the dataset, whatever its rows contain.
    fields: what each of its columns is used as.
    metrics: the names of those that score an evaluation set.
    """

    name: str
    path: str
    kind: Kind
    examples: Sequence[Example] = ()
    description: str = ""
    dropped: Sequence[RowNote] = ()
    max_dropped: float | None = None
    error: Sequence[str] = ()
    num_held_out: int = 0
    remarks: Sequence[Problem] = ()
    metrics: Sequence[str] = ()
    fields: Sequence[FieldUse] = ()

    @property
    def num_unlearned(self) -> int:
        """Replies that the rows exclude from the loss."""
        return int(measures_of(self.examples).unlearned.sum())


@dataclass(frozen=True)
class DatasetReport:
    """One dataset's card.

    description: the form and the container found. accounting, sharing, extractiveness: None if
    nothing could be read. fields: what each column is used as. num_unlearned: replies excluded
    from the loss.
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
    fields: Sequence[FieldUse] = ()
    num_unlearned: int = 0

    @property
    def refusal(self) -> str | None:
        """Why the dataset must not be used as it is; None if it may be used."""
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
            "fields": [use._asdict() for use in self.fields],
            "num_unlearned": self.num_unlearned,
        }


@dataclass(frozen=True)
class RenderedSet:
    """A dataset ready for use: the kept examples (shortened ones with their cuts) and their rows.
    rows: None if no tokenizer was given."""

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
class Ready:
    """What a run takes from its check: the rendered rows by the dataset's name, and the candidates
    that must not be trained on, with the reason."""

    candidates: Mapping[str, RenderedSet]
    evaluations: Mapping[str, RenderedSet]
    refusals: Mapping[str, str]


@dataclass(frozen=True)
class Check:
    """Everything the check found.

    candidates, evaluations: rendered rows by the dataset's name, of datasets that could be read.
    max_length: the longest row allowed, in tokens; None if there is no limit, or no tokenizer.
    max_length_reason: why it is that.
    overlong: what happened to longer ones; None without a tokenizer.
    holdout: the evaluation set that was split off; None if there is none.
    remarks: remarks that belong to no single dataset.
    """

    reports: Sequence[DatasetReport]
    leakages: Sequence[Leakage]
    candidates: Mapping[str, RenderedSet] = field(default_factory=dict)
    evaluations: Mapping[str, RenderedSet] = field(default_factory=dict)
    max_length: int | None = None
    max_length_reason: str | None = None
    overlong: Overlong | None = None
    holdout: Holdout | None = None
    remarks: Sequence[str] = ()

    @property
    def errors(self) -> list[str]:
        """The problems that make a run impossible."""
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
    def ready(self) -> Ready:
        """The part that a run uses."""
        return Ready(self.candidates, self.evaluations, self.refusals)

    @property
    def leaks(self) -> list[Leakage]:
        """The leakages with at least one leak."""
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
            "max_length": self.max_length,
            "max_length_reason": self.max_length_reason,
            "overlong": self.overlong,
            "holdout": self.holdout.to_dict() if self.holdout else None,
            "remarks": list(self.remarks),
            "datasets": [report.to_dict() for report in self.reports],
            "leakage": [found.to_dict() for found in self.leakages],
        }
