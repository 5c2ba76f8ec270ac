"""The command line: every command of `loracle`, thin over the module that does the work.

    shell.py      the application and what its commands share
    init.py       init
    running.py    run, fetch
    planning.py   plan, recommend, doctor
    data.py       check, inspect, split, convert
    results.py    decide, compare, report, serve, export, score

Starts without torch. Results go to standard output, everything else to standard error. Exit
codes: 0 done, 1 ran but something failed, 2 bad plan or data, 130 and 143 for signals.
"""

from __future__ import annotations

import os
import sys

# Imported for their commands, in the order that --help shows.
# isort: off
from loracle.cli import init
from loracle.cli import running
from loracle.cli import planning
from loracle.cli import data
from loracle.cli import results

# isort: on
from loracle.cli.shell import EXIT_BAD_INPUT, EXIT_FAILED, app, print_problems
from loracle.errors import UserError
from loracle.run_folder import signals

__all__ = ["app", "data", "init", "main", "planning", "results", "running"]


def main() -> None:
    """The entry point: user errors become messages and exit code 2."""
    signals.install()
    try:
        sys.exit(app())
    except UserError as error:
        print_problems(error.problems)
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:
        # The reader of our output left (`| head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
