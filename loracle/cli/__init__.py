"""The command line: every command of `loracle`, thin over the Python API (`loracle.api`).

    shell.py      the application, and what its commands share
    catalogue.py  help and messages in Chinese
    init.py       init
    running.py    run, fetch
    data.py       check, inspect, split, convert
    results.py    decide, compare, report, serve, score, export

Starts without torch. Results go to standard output, everything else to standard error. Exit
codes: 0 done, 1 ran but something failed, 2 bad plan or data, 130 and 143 for signals.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

# Imported for their commands, in the order that --help shows.
# isort: off
from loracle.cli import init
from loracle.cli import running
from loracle.cli import data
from loracle.cli import results

# isort: on
from loracle.cli.catalogue import say
from loracle.cli.shell import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    app,
    print_problems,
    session,
    start_session,
)
from loracle.errors import UserError

__all__ = ["app", "data", "init", "main", "results", "running"]


def main() -> None:
    """The entry point: user errors become messages and exit code 2."""
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, _end)
    try:
        program = start_session(sys.argv[1:])
        sys.exit(program(prog_name="loracle"))
    except UserError as error:
        print_problems(error.problems)
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:
        # The reader of our output left (`| head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)


def _end(signal_number: int, frame: FrameType | None) -> None:
    name = signal.Signals(signal_number).name
    print(f"\n{say(session.language, 'stopped').format(signal=name)}", file=sys.stderr)
    raise SystemExit(128 + signal_number)
