"""Views that do more than show: logs in a folder chosen by the caller, a call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loracle.run_folder.events import EVENTS
from loracle.run_folder.reporter import View


class LogFiles:
    """A view that also appends each line to training.log, evaluation.log or pipeline.log.

    steps_between_lines: every how many optimizer steps a line is written; the last step always is.
    """

    def __init__(self, view: View, folder: Path, steps_between_lines: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._view = view
        self._folder = folder
        self._steps_between_lines = steps_between_lines

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        if self._is_written(kind, fields):
            stamp = datetime.now(UTC).isoformat(timespec="seconds")
            for name in EVENTS[kind].logs:
                path = self._folder / f"{name}.log"
                with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(f"{stamp} {line}\n")
        self._view.show(kind, fields, line)

    def close(self) -> None:
        self._view.close()

    def _is_written(self, kind: str, fields: Mapping[str, Any]) -> bool:
        if kind != "step":
            return True
        is_last = fields["step"] == fields["num_steps"]
        return is_last or int(fields["step"]) % self._steps_between_lines == 0


class Telling:
    """A view that also makes a call before it shows an event of certain kinds."""

    def __init__(self, view: View, kinds: Collection[str], call: Callable[[], object]) -> None:
        self._view = view
        self._kinds = kinds
        self._call = call

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        if kind in self._kinds:
            self._call()
        self._view.show(kind, fields, line)

    def close(self) -> None:
        self._view.close()
