"""Work that is done in pieces: here, or by processes beside this one.

    with beside() as workers:
        for found in workers.map(function, tasks): ...

The processes are interpreters of their own, started as programs: nothing of the caller's module is
run again, as multiprocessing would, and notebooks, daemons and programs with threads may have them.
They end when their input closes, so a killed parent leaves none behind. Where a piece is done never
changes what comes out, nor the order.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Protocol, Self, TypeVar

Task = TypeVar("Task")
Found = TypeVar("Found")

MAX_PROCESSES = 8
"""Each one has a memory of its own."""

_SECONDS_TO_END = 5.0
_START = "import sys; sys.path[:] = __import__('json').loads(sys.argv[1]); " + (
    "from loracle.data.workers import serve; serve()"
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
        """Begin a task beside what follows; what is returned waits for its result."""
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


class Processes:
    """Processes beside this one, from the first piece of work until they are closed."""

    def __init__(self, num: int) -> None:
        self._num = num
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[Any], Any], Any] | None] = (
            SimpleQueue()
        )
        self._threads: list[threading.Thread] = []
        self._children: list[_Child] = []
        self._is_closed = False

    def map(self, function: Callable[[Task], Found], tasks: Iterable[Task]) -> Iterator[Found]:
        if self._is_closed:
            yield from map(function, tasks)
            return
        self._start()
        under_way: deque[Future[Found]] = deque()
        try:
            for task in tasks:
                future: Future[Found] = Future()
                self._waiting.put((future, function, task))
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
        self._waiting.put((future, function, task))
        return future.result

    def close(self) -> None:
        """End the processes, whatever they are doing. Work that comes later is done here."""
        self._is_closed = True
        for _ in self._threads:
            self._waiting.put(None)
        for child in self._children:
            child.close()
        self._threads.clear()
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        while len(self._children) < self._num:
            child = _Child()
            thread = threading.Thread(target=self._drive, args=(child,), daemon=True)
            self._children.append(child)
            self._threads.append(thread)
            thread.start()

    def _drive(self, child: _Child) -> None:
        """Hand one child piece after piece."""
        while (piece := self._waiting.get()) is not None:
            future, function, task = piece
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(child.do(function, task))
            except BaseException as error:  # noqa: BLE001
                future.set_exception(error)
            # Nothing of it is held while the next piece is waited for.
            del piece, future, function, task


class _Child:
    """One process. A piece that it cannot do, since it was killed say, is done here."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        # Without an interpreter to start, all is done here.
        with suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
            )

    def do(self, function: Callable[[Task], Found], task: Task) -> Found:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return function(task)
        try:
            _send(process.stdin, (function, task))
            is_error, found = _receive(process.stdout)
        except (OSError, EOFError, ValueError, pickle.PickleError):
            if self._is_closed:
                raise
            self._process = None
            process.kill()
            process.wait()
            return function(task)
        if is_error:
            raise found
        result: Found = found
        return result

    def close(self) -> None:
        self._is_closed = True
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)


def serve() -> None:
    """The life of a process: pieces come on standard input, results go to standard output."""
    # The terminal's Ctrl-C is for the parent, which closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pieces are small and leave no cycles; looking for some costs a fifth of the time.
    gc.disable()
    results = os.fdopen(os.dup(1), "wb")
    # What a library prints must not come between results.
    os.dup2(2, 1)
    while True:
        try:
            function, task = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (False, function(task))
        except Exception as error:  # noqa: BLE001
            answer = (True, error)
        try:
            _send(results, answer)
        except BrokenPipeError:
            return


def _send(stream: IO[bytes], value: object) -> None:
    # Straight into the pipe: large values are never in memory twice.
    pickle.dump(value, stream, pickle.HIGHEST_PROTOCOL)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    return pickle.load(stream)
