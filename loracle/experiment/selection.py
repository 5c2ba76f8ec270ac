"""Which trials a start of a run executes, and the outcome of the others until then."""

from __future__ import annotations

from typing import NamedTuple

from loracle.experiment.attempt import Outcome
from loracle.run_folder.folder import TrialFolder


class Selection(NamedTuple):
    """candidate: only its trials are run, and none if it is BASE_NAME, whose evaluation is part of
    every start; None: all. retry_failed: also those that failed."""

    candidate: str | None = None
    retry_failed: bool = True

    def leaves(self, name: str, folder: TrialFolder) -> bool:
        """Whether an unfinished trial stays as it is."""
        if folder.done.exists() and self.candidate is None:
            return False
        if self.candidate is not None:
            return name != self.candidate
        return folder.failed_and_whole() and not self.retry_failed


def left_alone(name: str, seed: int, folder: TrialFolder, plan_fingerprint: str) -> Outcome:
    """The outcome of a trial that this start does not run: whatever exists of it."""
    reason = folder.verify(plan_fingerprint)
    if reason is None:
        return Outcome(name, seed, folder.summary(), None)
    return Outcome(name, seed, None, folder.failure() or f"{reason}; `loracle resume` runs it")
