"""The command line: every command of `loracle`, thin over the Python API (`loracle.api`).

    shell.py      the application, and what its commands share
    catalogue.py  help and messages in Chinese
    init.py       init
    running.py    run, fetch
    planning.py   plan, recommend, doctor
    runs.py       resume, status, verify
    data.py       check, inspect, split, convert
    results.py    decide, compare, report, serve, score, export

Starts without torch. Results go to standard output, everything else to standard error. Exit
codes: 0 done, 1 ran but something failed, 2 bad plan or data, 129, 130 and 143 for signals.
"""

from __future__ import annotations

import os
import sys

# Imported for their commands, in the order shown by --help.
# isort: off
from loracle.cli import init
from loracle.cli import running
from loracle.cli import planning
from loracle.cli import runs
from loracle.cli import data
from loracle.cli import results

# isort: on
from loracle.cli.catalogue import say
from loracle.cli.shell import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    app,
    asked_language,
    prepare_streams,
    print_problems,
    start_session,
)
from loracle.errors import StorageError, UserError
from loracle.run_folder import signals
from loracle.safety.secrecy import without_secrets
from loracle.safety.storage_errors import storage_error

__all__ = ["app", "data", "init", "main", "planning", "results", "running", "runs"]


_WITHOUT_DOCSTRINGS = (
    "Python was started with -OO or PYTHONOPTIMIZE=2, which removes the docstrings that "
    "transformers reads; start it without, or with -O"
)


def main() -> None:
    """The entry point: user errors become messages and exit code 2."""
    prepare_streams()
    if sys.flags.optimize > 1:
        print_problems((_WITHOUT_DOCSTRINGS,))
        sys.exit(EXIT_BAD_INPUT)
    signals.install(stopped=say(asked_language(sys.argv[1:]), "stopped"))
    try:
        program = start_session(sys.argv[1:])
        code = program(prog_name="loracle")
        signals.finish()
        sys.exit(code)
    except StorageError as error:
        print_problems(error.problems)
        sys.exit(EXIT_FAILED)
    except UserError as error:
        print_problems(error.problems)
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except OSError as error:
        # A file that a library opened, or one whose errors are not handled elsewhere.
        name = error.filename if error.filename is not None else "a file"
        found = storage_error(name, "used", error.errno or 0)
        print_problems(found.problems if error.errno else (without_secrets(str(error)),))
        sys.exit(EXIT_FAILED)
