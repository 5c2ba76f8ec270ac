"""A run folder as reports read it: only from its files, without taking its lock, and without
writing.

RunRecord ── results     results.json, or None while the run continues
          ├─ plan        plan.json, as frozen
          ├─ environment what each process of the run ran on
          ├─ trials      one TrialRecord a row: the base first, then the plan's order
          └─ questions() what an evaluation asked, from the run folder or the data file
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from loracle.data.reading.dataset import read_examples
from loracle.errors import DataError, RunFolderError
from loracle.files import read_json, read_json_lines, sha256
from loracle.plan import BASE_NAME
from loracle.report.results import read_results
from loracle.run_folder.folder import RunFolder, TrialFolder
from loracle.run_folder.trial_record import TrainingOutcome, TrialSummary, read_summary

# Version 1 has no decision; the page says so and shows the rest.
OLDEST_RESULTS = 1


class Turn(NamedTuple):
    """One message of a prompt."""

    role: str
    content: str


class Questions(NamedTuple):
    """An evaluation's questions, by example id; `missing` says why there are none."""

    prompts: Mapping[str, tuple[Turn, ...]]
    missing: str | None


@dataclass(frozen=True)
class TrialRecord:
    """One trial, or the base model, as its folder holds it. Rows are read on demand.

    The files of a trial that has ended are first checked against its DONE or FAILED.json:
    RunFolderError if one has changed.
    """

    candidate: str
    seed: int | None
    label: str
    """The candidate's name, with the seed if the plan has more than one."""
    folder: TrialFolder

    @property
    def is_base(self) -> bool:
        return self.seed is None

    @property
    def is_done(self) -> bool:
        return self.folder.done.is_file()

    @cached_property
    def summary(self) -> TrialSummary:
        """trial.json. Raises RunFolderError if the trial is not finished, or it is damaged."""
        self._is_there(self.folder.trial_json)
        return read_summary(self.folder.trial_json)

    @property
    def training(self) -> TrainingOutcome | None:
        """What its training took; None for the base."""
        return self.summary.training

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        """The rows of steps.jsonl; a row still being written is left for the next read."""
        return self._rows(self.folder.steps) or []

    def predictions(self, evaluation: str) -> list[dict[str, Any]] | None:
        """The answers to one evaluation, or None if there are none."""
        return self._rows(self.folder.predictions(evaluation))

    def scores(self, evaluation: str) -> list[dict[str, Any]] | None:
        """The scores of those answers, row by row, or None if there are none."""
        return self._rows(self.folder.scores(evaluation))

    def require_whole_end(self) -> None:
        """Raise RunFolderError if what tells of the trial's end (DONE, FAILED.json) is damaged."""
        self.folder.is_sealed(self.folder.steps)

    def _rows(self, path: Path) -> list[dict[str, Any]] | None:
        """An unfinished trial may be in the middle of writing a row: that row is left out."""
        if not self._is_there(path):
            return None
        return read_json_lines(path, allow_torn_end=not self.is_done).rows

    def _is_there(self, path: Path) -> bool:
        if self.folder.is_sealed(path):
            self.folder.require_unchanged([path])
        return path.is_file()


@dataclass(frozen=True)
class RunRecord:
    """Everything a report shows, as the run folder holds it."""

    root: Path
    plan: Mapping[str, Any]
    environment: Sequence[Mapping[str, Any]]
    results: Mapping[str, Any] | None
    check: Mapping[str, Any] | None
    """check.json, what the data check found; None if the run has none."""
    trials: tuple[TrialRecord, ...]

    @property
    def evaluations(self) -> list[str]:
        return [entry["name"] for entry in self.plan["evaluation"]]

    def finished_trials(self) -> Iterator[TrialRecord]:
        """Those whose DONE lists their files."""
        return (trial for trial in self.trials if trial.is_done)

    @property
    def seconds(self) -> float:
        """The time of everything that is finished, whenever it ran."""
        done = [trial.summary for trial in self.finished_trials()]
        trained = sum(one.training.seconds for one in done if one.training)
        return trained + sum(one.evaluation_seconds for one in done)

    def questions(self, evaluation: str) -> Questions:
        """The questions: from the folder's own copy if there is one, else from the unchanged data
        file."""
        folder = RunFolder(self.root)
        kept = folder.questions(evaluation)
        if kept.is_file():
            folder.require_whole(kept)
            rows = read_json_lines(kept).rows
            return Questions(
                {row["id"]: tuple(Turn(*turn) for turn in row["prompt"]) for row in rows}, None
            )
        entry = next(entry for entry in self.plan["evaluation"] if entry["name"] == evaluation)
        return _questions_of_data_file(entry)


def read_run(root: Path | str, *, unfinished: bool = False) -> RunRecord:
    """Read a run folder.

    unfinished: accept a run that has no results yet; `results` is None then.

    Raises RunFolderError if it is not a run folder, is damaged, or has no results.
    """
    folder = RunFolder(root)
    plan = folder.frozen_plan()
    has_results = folder.results.is_file()
    for path in (folder.results, folder.check, folder.forecast_file):
        folder.require_whole(path)
    if not has_results and not unfinished:
        raise RunFolderError(
            f"{folder.root} has no results.json: the run is not finished; "
            f"run `loracle resume {folder.root}` to finish it"
        )
    trials = tuple(trial_records(folder, plan))
    for trial in trials:
        trial.require_whole_end()
    return RunRecord(
        root=folder.root,
        plan=plan,
        environment=folder.environments(),
        results=read_results(folder.results, oldest=OLDEST_RESULTS) if has_results else None,
        check=read_json(folder.check) if folder.check.is_file() else None,
        trials=trials,
    )


def trial_records(folder: RunFolder, plan: Mapping[str, Any]) -> Iterator[TrialRecord]:
    """The base, then every trial in the plan's order, whether it has run or not."""
    yield TrialRecord(BASE_NAME, None, BASE_NAME, folder.base)
    seeds = plan["seeds"]
    for entry in plan["candidates"]:
        for seed in seeds:
            label = entry["name"] if len(seeds) == 1 else f"{entry['name']} · seed {seed}"
            yield TrialRecord(entry["name"], seed, label, folder.trial(entry["name"], seed))


def _questions_of_data_file(entry: Mapping[str, Any]) -> Questions:
    path = Path(entry["path"])
    if not path.is_file():
        return Questions({}, f"{path.name}: the data file is no longer at the plan's path")
    if sha256(path) != entry.get("sha256"):
        return Questions({}, f"{path.name}: the data file has changed since the run")
    try:
        examples = read_examples(path, limit=entry["limit"])
    except DataError as error:
        return Questions({}, error.problems[0])
    return Questions(
        {
            example.id: tuple(
                Turn(message.role, message.content)
                for message in example.conversation.prompt.messages
            )
            for example in examples
        },
        None,
    )
