"""Replicas as forks of a process that has imported everything: each starts within milliseconds.

test_replicas.py has one test whose replica is a new interpreter, as outside the tests.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from loracle.training import replica_process
from tests import forked

# The parent's process id is its first argument: here it is that of the process which watches it.
_PROGRAM = """
import os, runpy, sys
sys.argv[1] = str(os.getppid())
runpy.run_module({name!r}, run_name="__main__", alter_sys=True)
"""


def _started(
    command: list[str], *, stderr: BinaryIO, env: dict[str, str], **streams: Any
) -> forked.Popen:
    assert command[1] == "-m"
    assert streams == {
        "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"
    }  # fmt: skip
    program = _PROGRAM.format(name=command[2])
    return forked.Popen(program, command[3:], errors=Path(stderr.name), environment=env)


@contextmanager
def forked_replicas() -> Iterator[None]:
    """Every replica that is started inside is a fork."""
    # The module's own name, not the whole program's `subprocess`.
    faked = SimpleNamespace(**{**vars(subprocess), "Popen": _started})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_process, "subprocess", faked)
        yield
