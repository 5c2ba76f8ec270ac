"""Programs in processes of their own that start within milliseconds.

    outcome = forked.run(forked.LORACLE, "fetch", "hf://org/boxes", folder=home, environment={...})

For tests that need another process, because it is killed or has other settings, and not a new
interpreter. Every process of pytest has one server: this file as a program. It imports once what
takes seconds, and forks for each program. It imports nothing that reads its settings from the
environment while it is imported, such as the clients of the hubs, so each program finds its own.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

LORACLE = "from loracle.cli import main; main()"
# Loracle, and what transformers and peft import of other packages.
_SLOW_IMPORTS = (
    "torch",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "torch.distributed.fsdp",
    "bitsandbytes",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "altair",
    "loracle.cli",
    "loracle.experiment.run",
)
# A program that hangs is killed, so that its test fails.
_LONGEST_SECONDS = 600


def script(path: Path) -> str:
    """The program that runs a file as `python FILE` does."""
    return (
        "import runpy, sys\n"
        f"sys.argv[0] = {str(path)!r}\n"
        f"sys.path.insert(0, {str(path.parent)!r})\n"
        f"runpy.run_path({str(path)!r}, run_name='__main__')"
    )


class Process:
    """A program that was started: killed by its `pid`, or waited for."""

    def __init__(self, server: subprocess.Popen[str], log: Path, arguments: list[str]) -> None:
        self._server, self._log, self._arguments = server, log, arguments
        self.pid = int(self._heard())
        self._ended: subprocess.CompletedProcess[str] | None = None

    def wait(self) -> subprocess.CompletedProcess[str]:
        """How it ended, and what it wrote."""
        if self._ended is None:
            code, written = int(self._heard()), (self._read("out"), self._read("err"))
            self._ended = subprocess.CompletedProcess(self._arguments, code, *written)
        return self._ended

    def errors(self) -> str:
        """What it wrote to standard error until now."""
        return self._read("err")

    def _read(self, name: str) -> str:
        return (self._log / name).read_text(encoding="utf-8", errors="replace")

    def _heard(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the server of forked programs has ended"
        return line


@contextlib.contextmanager
def started(
    program: str, *arguments: object, folder: Path, environment: dict[str, str] | None = None
) -> Iterator[Process]:
    """A program in Python that runs meanwhile; killed at the end if it still does.

    One at a time: the server waits for each.
    """
    server = _server()
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as log:
        # A program that is killed before it opened them has written nothing.
        for name in ("out", "err"):
            (Path(log) / name).touch()
        asked = {
            "program": program,
            "arguments": words,
            "folder": str(folder),
            "environment": dict(os.environ if environment is None else environment),
            "log": log,
        }
        assert server.stdin is not None
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        process = Process(server, Path(log), words)
        try:
            yield process
        finally:
            if process._ended is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                process.wait()


def run(
    program: str, *arguments: object, folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A program in Python, from its start to its end, with what it wrote."""
    with started(program, *arguments, folder=folder, environment=environment) as process:
        return process.wait()


class Popen:
    """As `subprocess.Popen`, for a program that is written to and read from while it runs.

    Any number at a time. What started it sees it as a child of its own, except that its parent is
    a process of the server, which the program finds with os.getppid().
    """

    def __init__(
        self, program: str, arguments: list[str], *, errors: Path, environment: dict[str, str]
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._status = Path(self._folder.name) / "status"
        pipes = [Path(self._folder.name) / name for name in ("in", "out")]
        for pipe in pipes:
            os.mkfifo(pipe)
        asked = {
            "program": program,
            "arguments": arguments,
            "folder": os.getcwd(),  # noqa: PTH109
            "environment": environment,
            "streams": [*map(str, pipes), str(errors)],
            "status": str(self._status),
        }
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        self.pid = int(server.stdout.readline())
        self.stdin = pipes[0].open("w", encoding="utf-8")
        self.stdout = pipes[1].open(encoding="utf-8")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self._status.exists():
            self.returncode = int(self._status.read_text())
            self._folder.cleanup()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("a forked program", timeout or 0)
            time.sleep(0.005)
        return code

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@cache
def _server() -> subprocess.Popen[str]:
    # As where a run starts: the packages of this environment, and this checkout.
    paths = os.pathsep.join(path for path in sys.path if path)
    server = subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    # The folder of this file is no place to import from.
    del sys.path[0]
    answers = os.fdopen(os.dup(1), "w")
    # bitsandbytes writes advice where the answers go.
    os.dup2(2, 1)
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stderr(nothing):
        for name in _SLOW_IMPORTS:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        if "status" in asked:
            answers.write(f"{_watched(asked)}\n")
            answers.flush()
            continue
        child = os.fork()
        if child == 0:
            _be_child(asked)
        answers.write(f"{child}\n")
        answers.flush()
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def _watched(asked: dict[str, Any]) -> int:
    """Start a program below a process that writes how it ended; returns the program's id."""
    told, telling = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        if (child := os.fork()) == 0:
            _be_child(asked)
        os.write(telling, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        path = Path(asked["status"])
        # Whoever started it may have gone with its folder.
        with contextlib.suppress(OSError):
            path.with_suffix(".new").write_text(str(os.waitstatus_to_exitcode(status)))
            path.with_suffix(".new").rename(path)
        os._exit(0)
    os.close(telling)
    with os.fdopen(told) as heard:
        return int(heard.readline())


def _opened(asked: dict[str, Any]) -> tuple[int, int, int]:
    """What the program reads and writes."""
    written = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    if "streams" in asked:
        read, *others = asked["streams"]
    else:
        read, others = os.devnull, [Path(asked["log"]) / name for name in ("out", "err")]
    # In this order the starter opens pipes, too: each waits for the other.
    source = os.open(read, os.O_RDONLY)
    output, errors = (os.open(path, written) for path in others)
    return source, output, errors


def _be_child(asked: dict[str, Any]) -> None:
    code = 70
    if "streams" not in asked:
        signal.alarm(_LONGEST_SECONDS)
    try:
        os.chdir(asked["folder"])
        opened = _opened(asked)
        for stream, descriptor in enumerate(opened):
            os.dup2(descriptor, stream)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(asked["environment"])
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [path for path in paths if path and path not in sys.path]
        sys.argv = ["-c", *asked["arguments"]]
        exec(compile(asked["program"], "<program>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        if isinstance(ended.code, str):
            sys.stderr.write(ended.code + "\n")
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
