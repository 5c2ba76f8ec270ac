"""Events of a worker on their way to the driver, as rows of a file in the run folder.

    worker --EventFile--> RUN/workers/NAME.jsonl --EventTail--> driver's Reporter

The driver puts them into events.jsonl, the logs and the view, as if it had done the work itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from loracle.files import JsonLinesWriter


class EventFile:
    """A view that writes every event as a row."""

    def __init__(self, path: Path) -> None:
        self._writer = JsonLinesWriter(path)

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        self._writer.write({"event": kind, "fields": fields})

    def close(self) -> None:
        self._writer.close()


class WrittenEvent(NamedTuple):
    """An event as a worker wrote it."""

    kind: str
    fields: dict[str, Any]


class EventTail:
    """Reads a growing file of events. Only whole rows are taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[WrittenEvent]:
        """The events since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        for row in whole.splitlines():
            event = json.loads(row)
            yield WrittenEvent(event["event"], event["fields"])
