"""Work that is done in pieces: here, or by processes beside this one.

    with beside() as workers:
        for found in workers.map(function, tasks): ...

The processes are interpreters of their own, started as programs: nothing of the caller's module is
run again, as multiprocessing would, and notebooks, daemons and programs with threads may have them.
They end when their input closes, so a killed parent leaves none behind. Where a piece is done never
changes what comes out, nor the order. If one of them is lost, a warning says why.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, NamedTuple, Protocol, Self, TypeVar

import loracle
from loracle.data import plain

Task = TypeVar("Task")
Found = TypeVar("Found")

MAX_PROCESSES = 8
"""Each one has a memory of its own."""

_log = logging.getLogger(__name__)

_SECONDS_TO_END = 5.0
_SECONDS_TO_TELL = 1.0
_MAX_SAID_BYTES = 1 << 16
_START = "import sys; sys.path[:] = __import__('json').loads(sys.argv[1]); " + (
    "from loracle.data.workers import serve; serve()"
)
# Relative entries of sys.path mean another folder once the program has changed to one.
try:
    _IMPORTED_IN = Path.cwd()
except OSError:
    # The folder was removed: nothing can be imported from it.
    _IMPORTED_IN = Path(sys.prefix)
_LOST = (
    "one of the processes that share the data check %s. Its work is done by the main process: the "
    "findings are the same, and the check takes longer"
)
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Workers(Protocol):
    """Whoever does the work."""

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        """What the function returns for every task, in the tasks' order.

        function: importable by name. Tasks are taken when their turn comes near.
        """
        ...

    def begin(self, function: Callable[[Task], Found], task: Task) -> Callable[[], Found]:
        """Begin a task beside what follows; what is returned waits for its result.

        It may load what the other work does not need: nothing of it is kept in memory.
        """
        ...


class _Alone:
    """This process."""

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        return map(function, tasks)

    def begin(self, function: Callable[[Task], Found], task: Task) -> Callable[[], Found]:
        found = function(task)
        return lambda: found


ALONE: Workers = _Alone()


def num_cores() -> int:
    """The cores that this process may use, as the system or a container's limit has it."""
    has_affinity = hasattr(os, "sched_getaffinity")
    num = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        num = min(num, max(1, round(int(quota) / int(period))))
    return num


@contextmanager
def beside() -> Iterator[Workers]:
    """A process for each core, started when the first work comes; this one alone on one core."""
    num = min(num_cores(), MAX_PROCESSES)
    if num < 2:
        yield ALONE
        return
    with Processes(num) as processes:
        yield processes


class _Piece(NamedTuple):
    """Work for whichever process is free. packed_function: packed once for all of its tasks.
    is_last: the process ends with it, and another one does what comes later."""

    future: Future[Any]
    function: Callable[[Any], Any]
    packed_function: bytes
    task: Any
    is_last: bool = False


class Processes:
    """Processes beside this one, from the first piece of work until they are closed."""

    def __init__(self, num: int) -> None:
        self._num = num
        self._waiting: SimpleQueue[_Piece | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._children: list[_Child] = []
        self._is_closed = False

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        if self._is_closed:
            yield from map(function, tasks)
            return
        self._start()
        packed_function = plain.packed(function)
        under_way: deque[Future[Found]] = deque()
        try:
            for task in tasks:
                future: Future[Found] = Future()
                self._waiting.put(_Piece(future, function, packed_function, task))
                under_way.append(future)
                if len(under_way) > 2 * self._num:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()

    def begin(self, function: Callable[[Task], Found], task: Task) -> Callable[[], Found]:
        if self._is_closed:
            return ALONE.begin(function, task)
        self._start()
        future: Future[Found] = Future()
        self._waiting.put(_Piece(future, function, plain.packed(function), task, is_last=True))
        return future.result

    def close(self) -> None:
        """End the processes, whatever they are doing. Work that comes later is done here."""
        self._is_closed = True
        for _ in self._threads:
            self._waiting.put(None)
        for child in list(self._children):
            child.close()
        self._threads.clear()
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        while len(self._threads) < self._num:
            thread = threading.Thread(target=self._drive, args=(self._begun(),), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _begun(self) -> _Child:
        child = _Child()
        self._children.append(child)
        if self._is_closed:
            child.close()
        return child

    def _drive(self, child: _Child | None) -> None:
        """Hand one child piece after piece."""
        while (piece := self._waiting.get()) is not None:
            child = child or self._begun()
            _do(child, piece)
            if piece.is_last:
                child.close()
                child = None
            # Nothing of it is held while the next piece is waited for.
            del piece


def _do(child: _Child, piece: _Piece) -> None:
    if piece.future.set_running_or_notify_cancel():
        try:
            piece.future.set_result(child.do(piece))
        except BaseException as error:  # noqa: BLE001
            piece.future.set_exception(error)


class _LostError(Exception):
    """A process cannot be used; says why."""


class _Child:
    """One process. If it is lost, by a kill say, its pieces are done here, after a warning."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = self._is_ready = False
        self._said: IO[bytes] | None = None
        try:
            # A file and no pipe, which would have to be emptied all the time.
            self._said = tempfile.TemporaryFile()  # noqa: SIM115
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(_import_path())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
            )
        except (OSError, TypeError) as error:
            _log.warning(_LOST, f"cannot be started: {error}")

    def do(self, piece: _Piece) -> Any:
        """What the function returns.

        Raises:
            TypeError: the task, or what the function returned, cannot be packed.
        """
        process = self._process
        if process is None:
            return piece.function(piece.task)
        message = plain.parts_of((piece.packed_function, piece.task))
        try:
            is_error, found = self._asked(process, message)
        except (OSError, EOFError, ValueError, LookupError, _LostError) as error:
            if self._is_closed:
                raise
            self._lose(process, error)
            return piece.function(piece.task)
        if is_error:
            raise found
        return found

    def _asked(self, process: subprocess.Popen[bytes], message: plain.Parts) -> tuple[bool, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        if not self._is_ready:
            program = plain.read(process.stdout)
            if program != loracle.__file__:
                raise _LostError(f"found another Loracle, {program}")
            self._is_ready = True
        message.write(process.stdin)
        process.stdin.flush()
        is_error, found = plain.read(process.stdout)
        return is_error, found

    def _lose(self, process: subprocess.Popen[bytes], error: Exception) -> None:
        self._process = None
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_TELL)
        status = process.poll()
        process.kill()
        process.wait()
        if status is None:
            cause = f"gave no answer: {error}"
        elif status < 0:
            cause = f"was ended by {signal.Signals(-status).name}"
        else:
            last = (self._text_said().splitlines() or [str(error)])[-1]
            cause = f"ended with status {status}: {last}"
        _log.warning(_LOST, cause)

    def _text_said(self) -> str:
        if self._said is None:
            return ""
        self._said.seek(0)
        return self._said.read(_MAX_SAID_BYTES).decode(errors="replace").strip()

    def close(self) -> None:
        """End it, whatever it is doing, and show what it said."""
        if self._is_closed:
            return
        self._is_closed = True
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
        if text := self._text_said():
            _log.warning("a process of the data check said: %s", text)


def _import_path() -> list[str]:
    """sys.path for a child; Loracle is found wherever it was imported from."""
    known = [str(_IMPORTED_IN / folder) for folder in sys.path if isinstance(folder, str)]
    return [*known, str(Path(loracle.__file__).parents[1])]


def serve() -> None:
    """The life of a process: pieces come on standard input, results go to standard output."""
    # The terminal's Ctrl-C is for the parent, which closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pieces are small and leave no cycles; looking for some costs a fifth of the time.
    gc.disable()
    results = os.fdopen(os.dup(1), "wb")
    # What a library prints must not come between results.
    os.dup2(2, 1)
    with suppress(BrokenPipeError, EOFError):
        _answer(results, plain.parts_of(loracle.__file__))
        while True:
            packed_function, task = plain.read(sys.stdin.buffer)
            _answer(results, _result(packed_function, task))
            del task


def _answer(results: IO[bytes], answer: plain.Parts) -> None:
    answer.write(results)
    results.flush()


def _result(packed_function: bytes, task: object) -> plain.Parts:
    """Whether it is an error, and what came out."""
    try:
        return plain.parts_of((False, _function(packed_function)(task)))
    except Exception as error:  # noqa: BLE001
        return plain.parts_of((True, error))


@lru_cache(2)
def _function(packed_function: bytes) -> Callable[[object], object]:
    function: Callable[[object], object] = plain.unpacked(packed_function)
    return function
