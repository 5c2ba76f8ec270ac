"""What the scores of runs support, from their files only: `decide` and `compare`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loracle.api.arguments import path_text
from loracle.api.frames import Records, frame
from loracle.errors import RunFolderError
from loracle.language import Language
from loracle.run_folder.local_copies import local_copy

if TYPE_CHECKING:
    from loracle.decision.compare import RunComparison

Folder = str | os.PathLike[str]
"""The path or URL of a run folder. A `Run` also works."""


@dataclass(frozen=True)
class Decision:
    """What the plan's rule says about one evaluation set, or about all together.

    Example:
        decision = loracle.open_run("runs/demo").decision
        print(decision.verdict, decision.recommended, decision.reasons)
    """

    verdict: str
    """`use`, `no_difference`, `none_helps`, `harmful` or `undecided`."""
    evaluation: str | None
    """None: over all evaluation sets."""
    winner: str | None
    """The candidate to use. None unless the verdict is `use`."""
    recommended: str | None
    """The winner, or the cheapest of the equally good ones; None: keep the base."""
    record: Mapping[str, Any]
    """Everything in results.json about it."""

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Decision:
        """A decision as in results.json."""
        return cls(
            verdict=record["verdict"],
            evaluation=record["evaluation"],
            winner=record["winner"],
            recommended=record["recommended"],
            record=record,
        )

    @property
    def sentence(self) -> str:
        """The decision in one English sentence."""
        return self.said("en")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in English sentences."""
        return tuple(reason["en"] for reason in self.record["reasons"])

    def said(self, language: Language) -> str:
        """The decision in one sentence, in the given language."""
        return str(self.record["sentence"][language])

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Judged:
    """A run's scores under a rule.

    Example:
        judged = loracle.decide("runs/demo", confidence=0.9)
        print(judged.decision, judged.note)
    """

    record: Mapping[str, Any]
    """rule, precision, estimates, comparisons and decisions, as in results.json."""
    follows_plan: bool
    """Whether the rule is the plan's own. A rule chosen after the scores are known is weaker
    evidence."""
    note: str | None
    """A note if it is another rule."""

    @property
    def decision(self) -> Decision:
        """Over all evaluation sets."""
        return Decision.of_record(self.record["decisions"][0])

    @property
    def decisions(self) -> list[Decision]:
        """The overall decision, then one for each evaluation set if there is more than one."""
        return [Decision.of_record(record) for record in self.record["decisions"]]

    def estimates(self) -> Records:
        """Mean scores with intervals: by metric, candidate and evaluation set."""
        return frame(self.record["estimates"])

    def comparisons(self) -> Records:
        """Paired differences with intervals and corrected p-values."""
        return frame(self.record["comparisons"])

    def lines(self, language: Language = "en") -> list[str]:
        """Decision and reasons as lines for a terminal."""
        from loracle.report.decision_text import decision_lines

        return decision_lines(self.record["decisions"], language)


def decide(run: Folder, *, metric: str | None = None, confidence: float | None = None) -> Judged:
    """Decide what the scores of a run support. Changes no file.

    Example:
        print(loracle.decide("runs/demo", metric="em").decision)

    Args:
        run: A run folder, or a `Run`; at least the base and one candidate must be finished.
        metric: Use this metric instead of the rule's.
        confidence: Use this confidence instead of the rule's; from 0.5 to below 1.

    Raises:
        RunFolderError: It is not a run folder, or its files have changed.
        PlanError: The metric was not computed, or the confidence cannot be used.
    """
    from loracle.decision.evidence import read_evidence
    from loracle.decision.judge import frozen_rule, judge, judgement_record, other_rule
    from loracle.report.decision_text import other_rule_note

    evidence = read_evidence(_local(run, "run"))
    frozen = frozen_rule(evidence)
    rule = other_rule(frozen, metric=metric, confidence=confidence)
    return Judged(
        record=judgement_record(judge(evidence, rule)),
        follows_plan=rule == frozen,
        note=None if rule == frozen else other_rule_note(frozen),
    )


def compare(
    run_a: Folder, run_b: Folder, *, metric: str | None = None, confidence: float | None = None
) -> RunComparison:
    """Compare two runs question by question, on the evaluation sets that both used.

    Example:
        for found in loracle.compare("runs/before", "runs/after").comparisons:
            print(found.a, found.b, found.difference)

    Args:
        metric, confidence: Use these instead of the first run's rule's.

    Raises:
        RunFolderError: One is not a run folder, files have changed, or no evaluation set is shared.
        PlanError: The metric was not computed by both, or the confidence cannot be used.
    """
    from loracle.decision.compare import compare_runs
    from loracle.decision.evidence import read_evidence
    from loracle.decision.judge import frozen_rule, other_rule

    a, b = read_evidence(_local(run_a, "run_a")), read_evidence(_local(run_b, "run_b"))
    rule = other_rule(frozen_rule(a), metric=metric, confidence=confidence)
    return compare_runs(a, b, rule.metric, rule.confidence)


def _local(run: Folder, name: str) -> Path:
    return local_copy(path_text(run, name, "a run folder or a Run", RunFolderError))
