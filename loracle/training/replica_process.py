"""One replica as a process: started, told, listened to, ended (replicas.py has all of them)."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

import loracle
from loracle.errors import OutOfMemoryError, ReplicaError, TrialError
from loracle.run_folder import signals

PROGRAM = "loracle.training.replica"

_POLL_SECONDS = 0.1
# Between the end of a pipe and that of the process behind it.
_DEATH_SECONDS = 2.0
_LOG_CHARACTERS = 2000


class ReplicaProcess:
    """One replica: its pipes, and what it says."""

    def __init__(self, rank: int, device: torch.device, folder: Path, num_threads: int) -> None:
        self.name = f"replica {rank} ({device})"
        self._log = folder / f"replica-{rank}.log"
        root = str(Path(loracle.__file__).parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(os.getpid()), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(num_threads)},
                text=True,
                encoding="utf-8",
            )
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def process_id(self) -> int:
        return self._popen.pid

    def _listen(self) -> None:
        assert self._popen.stdout is not None
        # A line that was cut by its death is no answer.
        with suppress(ValueError, OSError):
            for line in self._popen.stdout:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def tell(self, **values: Any) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(values) + "\n")
            self._popen.stdin.flush()
        except OSError:
            self.raise_its_error()

    def answer(self, seconds: float) -> dict[str, Any]:
        """Its next answer. Raises what it failed with, ReplicaError if it is gone or silent."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            signals.stop_if_urgent()
            try:
                answer = self._answers.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if answer is None:
                raise ReplicaError(self._its_end())
            if "error" in answer:
                self._raise(answer)
            return answer
        raise ReplicaError(
            f"{self.name} gave no answer for {seconds:.0f} seconds and was ended; "
            "run the same command again to resume"
        )

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def raise_its_error(self) -> NoReturn:
        """Say why it is gone: by its own last words, if it had any."""
        with suppress(queue.Empty):
            while (answer := self._answers.get(timeout=_DEATH_SECONDS)) is not None:
                if "error" in answer:
                    self._raise(answer)
        raise ReplicaError(self._its_end())

    def _raise(self, answer: Mapping[str, Any]) -> NoReturn:
        kind = OutOfMemoryError if answer["kind"] == OutOfMemoryError.__name__ else TrialError
        raise kind(f"{self.name}: {answer['error']}")

    def _its_end(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_DEATH_SECONDS)
        code = self._popen.returncode
        if code is None:
            how = "closed its pipe"
        elif code < 0:
            how = f"was ended by {_signal_name(-code)} (out of memory, a crash, or by hand)"
        else:
            how = f"ended with code {code}"
        log = self._log.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:].strip()
        said = f"; its last output: {log}" if log else ""
        return f"{self.name} {how}; run the same command again to resume{said}"

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()
        assert self._popen.stdin is not None
        with suppress(OSError):
            self._popen.stdin.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
