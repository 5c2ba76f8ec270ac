"""A run folder for Python, from its files only."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from loracle.api.arguments import check_choice, path_text
from loracle.api.frames import Records, frame
from loracle.api.judging import Decision
from loracle.errors import RunFolderError
from loracle.run_folder.local_copies import copy_up, local_copy
from loracle.text import shown_score

if TYPE_CHECKING:
    from loracle.report.run_record import RunRecord

ExportForm = Literal["peft", "merged", "gguf-ready", "ollama"]


class Exported(NamedTuple):
    """What `Run.export` wrote, and what was checked, in words."""

    folder: Path
    checked: str


class Run(os.PathLike[str]):
    """A finished run. Everything is read from its folder on demand.

    Example:
        run = loracle.open_run("runs/demo")
        print(run.decision.winner, run.report)
        table = run.estimates()
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        was_finished: bool = True,
        notes: Sequence[str] = (),
    ) -> None:
        self.folder = local_copy(folder)
        """The run folder; of one at a URL, the copy here."""
        self._given = folder
        self.was_finished = was_finished
        """Whether it was finished before this call, so that nothing had to be done."""
        self.notes = tuple(notes)
        """What the user should know about a finished run, from `resume`."""

    def __fspath__(self) -> str:
        return str(self.folder)

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """results.json. Raises RunFolderError if the run is not finished or damaged."""
        results = self._record.results
        assert results is not None, "read_run refuses an unfinished run"
        return results

    @property
    def plan(self) -> Mapping[str, Any]:
        """The plan with every default, as the run froze it."""
        return self._record.plan

    @property
    def decision(self) -> Decision:
        """Which candidate to use, over all evaluation sets."""
        return self.decisions[0]

    @property
    def decisions(self) -> list[Decision]:
        """The overall decision, then one for each evaluation set if there is more than one."""
        return [Decision.of_record(record) for record in self._judged("decisions")]

    @property
    def failures(self) -> dict[str, str]:
        """Why trials failed, by candidate (with the seed if there is more than one)."""
        several = len(self.plan["seeds"]) > 1
        return {
            f"{row['candidate']}--s{row['seed']}" if several else row["candidate"]: row["reason"]
            for row in self.results["rows"]
            if row["status"] == "failed"
        }

    def estimates(self) -> Records:
        """Mean scores with intervals: by metric, candidate and evaluation set."""
        return frame(self._judged("estimates"))

    def comparisons(self) -> Records:
        """Paired differences with intervals and corrected p-values."""
        return frame(self._judged("comparisons"))

    def predictions(self) -> Records:
        """Every answer with its question, references and scores; the base's first."""
        from loracle.export.parquet import prediction_rows

        return frame(prediction_rows(self._record))

    def adapter(self, name: str) -> Path:
        """The folder of a candidate's adapter, in PEFT's format.

        Args:
            name: A candidate (its first finished seed), or NAME--sSEED.

        Raises:
            RunFolderError: No such trial, or its files have changed.
        """
        from loracle.export.candidate import find_trial

        return find_trial(self._record, name).folder.adapter

    @property
    def report(self) -> Path:
        """The path of report.html, which is written if it does not exist."""
        from loracle.report.page import REPORT_NAME

        path = self.folder / REPORT_NAME
        return path if path.is_file() else self.write_report()

    def write_report(self) -> Path:
        """Rebuild report.html and return its path."""
        from loracle.report.page import write_report

        path = write_report(self.folder)
        copy_up(self._given, path)
        return path

    def export(
        self,
        name: str | None = None,
        to: ExportForm = "peft",
        out: str | os.PathLike[str] | None = None,
        *,
        dtype: str | None = None,
    ) -> Exported:
        """Export a candidate as a model, with a model card.

        Args:
            name: A candidate, or NAME--sSEED. None: the candidate that the decision recommends.
            to: `peft` (the adapter), `merged` (with the base), `gguf-ready` or `ollama`.
            out: The new folder. None: NAME-FORM in the current folder.
            dtype: Precision of a merged model. None: the base's if that changes no checked answer,
                else float32.

        Raises:
            RunFolderError: No such trial, or nothing is recommended.
            ModelError: A merged model answers differently from the adapter.
        """
        from loracle.export.candidate import export_winner

        check_choice(to, ExportForm, "to")
        name = name or self.decision.recommended
        if name is None:
            raise RunFolderError(
                f"{self.folder}: the decision recommends no candidate; name the candidate to export"
            )
        folder = Path(out) if out is not None else Path(f"{name}-{to}")
        if to == "peft":
            return Exported(folder, export_winner(self.folder, name, to, folder, dtype=dtype))
        from loracle.api.quiet import quiet_libraries

        with quiet_libraries():
            return Exported(folder, export_winner(self.folder, name, to, folder, dtype=dtype))

    def export_predictions(self, path: str | os.PathLike[str]) -> int:
        """Write all predictions with their scores as a Parquet file; returns the number of rows."""
        from loracle.export.parquet import export_predictions

        return export_predictions(self.folder, Path(path))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """The decision and the ranking as HTML for notebooks. All text is escaped."""
        metric = self.results["decision_metric"]
        cells = [
            (
                "–" if entry["rank"] is None else entry["rank"],
                entry["candidate"],
                *_scores_of(entry, metric),
            )
            for entry in self.results["ranking"]
        ]
        head = _row(("rank", "candidate", metric, "lift"), "th")
        body = "".join(_row(cell, "td") for cell in cells)
        return (
            f"<p><strong>{html.escape(self.decision.sentence)}</strong></p>"
            f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
            f"<p><code>{html.escape(str(self.folder))}</code></p>"
        )

    @cached_property
    def _record(self) -> RunRecord:
        from loracle.report.run_record import read_run

        return read_run(self.folder)

    def _judged(self, key: str) -> list[dict[str, Any]]:
        if key not in self.results:
            raise RunFolderError(
                f"{self.folder}: results.json is from an earlier version, without {key}; use "
                "loracle.decide"
            )
        return list(self.results[key])


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Open a finished run's folder.

    Example:
        print(loracle.open_run("runs/demo").decision)

    Raises:
        RunFolderError: It is not a run folder, is not finished, or is damaged.
    """
    run = Run(path_text(folder, "folder", "a run folder", RunFolderError))
    assert run.results
    return run


def _scores_of(entry: Mapping[str, Any], metric: str) -> tuple[str, str]:
    if entry["mean"] is None:
        return "failed", "–"
    lift = entry["lift"]
    shown_lift = "–" if lift is None else shown_score(metric, lift, signed=True)
    return shown_score(metric, entry["mean"]), shown_lift


def _row(cells: tuple[object, ...], tag: str) -> str:
    inner = "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"
