"""Reports what the run is doing: for people on the terminal and in logs, for programs in
events.jsonl.

    emit(kind, fields) ─┬─> events.jsonl     {"time": "...", "event": "step", "step": 14, ...}
                        ├─> the three logs   2026-01-02T10:00:00+00:00 [2/5 noisy] step 14/56 · ...
                        ├─> the view         bars on a terminal, else plain lines
                        └─> listeners        experiment trackers, if the plan names any

Everything goes to the standard error stream: standard output is for the result. A view that cannot
write (its terminal was closed) is dropped, with a note in the log; so is a listener that fails. A
log that cannot be written is reported once, and tried again at every event. The run continues.
Passwords and access tokens are hidden from all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

from loracle.errors import StorageError
from loracle.files import AppendedFile, JsonLinesWriter
from loracle.run_folder.events import EVENTS, EVERY_LOG, Narrator
from loracle.run_folder.folder import RunFolder
from loracle.safety.secrecy import values_without_secrets, without_secrets

# What the run prints when it ends.
_SHOWN_BY_THE_RESULT = frozenset({"decided"})


class View(Protocol):
    """Shows events to a person. `line` is the event in words."""

    def show(self, kind: str, fields: Mapping[str, Any], line: str) -> None: ...

    def close(self) -> None: ...


class Listener(Protocol):
    """Follows events for another program. An error in it stops the listener, never the run."""

    name: str
    """Its name in warnings."""

    def hear(self, kind: str, fields: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Reporter:
    """Receives every event of a run. Use it as a context manager."""

    def __init__(
        self, run_folder: RunFolder | None, view: View, listeners: Sequence[Listener] = ()
    ) -> None:
        self._run_folder = run_folder
        self._view: View | None = view
        self._listeners = list(listeners)
        self._narrator = Narrator()
        self._open = ExitStack()
        self._events: JsonLinesWriter | None = None
        self._logs: dict[str, AppendedFile] = {}
        self._unwritten: set[str] = set()

    def emit(self, kind: str, **fields: Any) -> None:
        """Record and show one event; its fields are those of EVENTS."""
        assert kind in EVENTS, f"unknown event {kind}"
        expected = set(EVENTS[kind].fields)
        assert set(fields) == expected, f"{kind}: fields {sorted(fields)}, not {sorted(expected)}"
        fields = values_without_secrets(fields)
        line = without_secrets(self._narrator.line(kind, fields))
        self._record(kind, fields, line)
        if self._view is not None and kind not in _SHOWN_BY_THE_RESULT:
            try:
                self._view.show(kind, fields, line)
            # ValueError: the stream was closed in this process.
            except (OSError, ValueError) as error:
                self._drop_view(error)
        for listener in list(self._listeners):
            try:
                listener.hear(kind, fields)
            # Whatever error another client raises, the record here is complete.
            except Exception as error:  # noqa: BLE001
                self._drop_listener(listener, error)

    def __enter__(self) -> Self:
        folder = self._run_folder
        if folder is None:
            return self
        paths = (folder.pipeline_log, folder.training_log, folder.evaluation_log)
        problems = []
        try:
            self._events = self._open.enter_context(JsonLinesWriter(folder.events, resume=True))
        except StorageError as error:
            problems.append(str(error))
        for name, path in zip(EVERY_LOG, paths, strict=True):
            try:
                self._logs[name] = self._open.enter_context(AppendedFile(path))
            except StorageError as error:
                problems.append(str(error))
        for problem in problems:
            self.emit("warning", message=f"{problem}; this run's events are not recorded in it")
        if self._events is not None and self._events.torn_end is not None:
            self.emit(
                "warning",
                message=f"{folder.events.name}: a row that a stopped process left incomplete was "
                f"cut off: {self._events.torn_end!r}",
            )
        if folder.replaced:
            self.emit(
                "warning",
                message="an unfinished run of another plan, without a finished trial, was here "
                f"and is replaced. What differs: {'; '.join(folder.replaced)}",
            )
        return self

    def __exit__(self, *_: object) -> None:
        # The last log lines may be lost on a failing disk; this does not end the run, because they
        # are logs, not results.
        with suppress(StorageError), self._open:
            for listener in list(self._listeners):
                try:
                    listener.close()
                except Exception as failure:  # noqa: BLE001
                    self._drop_listener(listener, failure)
            if self._view is not None:
                try:
                    self._view.close()
                except (OSError, ValueError) as failure:
                    self._drop_view(failure)

    def _record(self, kind: str, fields: Mapping[str, Any], line: str) -> None:
        if self._run_folder is None:
            return
        now = datetime.now(UTC)
        stamp = now.isoformat(timespec="milliseconds")
        if self._events is not None:
            with self._named_once(self._run_folder.events):
                self._events.write({"time": stamp, "event": kind, **fields})
        # File names may contain bytes that are not UTF-8; a log line must not fail because of them.
        text = f"{now.isoformat(timespec='seconds')} {line}\n".encode("utf-8", "backslashreplace")
        for name in EVENTS[kind].logs:
            if name in self._logs:
                with self._named_once(Path(f"{name}.log")):
                    self._logs[name].append(text)

    @contextmanager
    def _named_once(self, path: Path) -> Iterator[None]:
        """Warn about a log that cannot be written, once."""
        try:
            yield
        except StorageError as error:
            if path.name not in self._unwritten:
                self._unwritten.add(path.name)
                self.emit("warning", message=f"{error}; the run continues without it")

    def _drop_view(self, error: Exception) -> None:
        """Stop displaying. Everything is still recorded."""
        view, self._view = self._view, None
        self.emit("warning", message=f"nothing more is displayed: {error}")
        if view is not None:
            # It restores the terminal if that still works; a failure is noted above.
            with suppress(OSError, ValueError):
                view.close()

    def _drop_listener(self, listener: Listener, error: Exception) -> None:
        self._listeners.remove(listener)
        self.emit(
            "warning",
            message=f"{listener.name} failed and receives nothing more "
            f"({type(error).__name__}: {error}); the run continues, and its folder "
            "contains everything",
        )
