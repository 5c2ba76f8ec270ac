"""Every error Loracle raises on purpose.

    LoracleError
    ├── UserError (also ValueError)    something the user gave cannot be used: exit code 2
    │   ├── PlanError                  the plan or the command line
    │   ├── DataError                  a data file or a row in it
    │   ├── ModelError                 the model or its tokenizer
    │   ├── RunFolderError             the run folder belongs to another plan, or is damaged
    │   ├── StorageError               the system refused to read or write a file
    │   └── MissingExtraError          an optional package is not installed
    └── TrialError                     one trial failed while running: recorded, the others continue
        ├── ReplicaError               a process that took part in a training died
        ├── NonFiniteError             loss or gradient is NaN or infinite
        └── OutOfMemoryError           even the smallest micro-batch does not fit

A message says what is wrong, where, what was found, and what to do. Problems found by one check
are raised together in one error: `problems` lists them.

Example:
    try:
        loracle.run("clean.jsonl", "missing.jsonl")
    except loracle.errors.UserError as error:
        print(error.problems)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class LoracleError(Exception):
    """Root of the tree. Catch this to catch everything Loracle raises on purpose."""


class UserError(LoracleError, ValueError):
    """Something the user gave cannot be used. Takes one problem or several."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (
            (problems,) if isinstance(problems, str) else tuple(problems)
        )
        assert self.problems, "a UserError needs at least one problem"
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


class PlanError(UserError):
    """The plan file or the command line is wrong."""


class DataError(UserError):
    """A data file cannot be read, or a row in it cannot be used."""


class ModelError(UserError):
    """The model or its tokenizer is missing, or cannot do what is required."""


class RunFolderError(UserError):
    """The run folder contains another plan, is locked by another process, or is damaged."""


class StorageError(UserError, OSError):
    """The system refused to read or write a file: disk full, disk failure, no permission.

    is_passing: whether the same attempt may succeed later without a change to the plan.
    """

    def __init__(self, problems: str | Sequence[str], *, is_passing: bool = False) -> None:
        super().__init__(problems)
        self.is_passing = is_passing

    def __reduce__(self) -> tuple[Any, ...]:
        return _storage_error, (self.problems, self.is_passing)


def _storage_error(problems: tuple[str, ...], is_passing: bool) -> StorageError:
    return StorageError(problems, is_passing=is_passing)


class MissingExtraError(UserError):
    """An optional package is needed; the message prints the exact install command."""


class TrialError(LoracleError):
    """One trial failed while running. It is recorded with its reason, and the others continue."""


class ReplicaError(TrialError):
    """A process that took part in a training died. The same attempt may succeed later."""


class NonFiniteError(TrialError):
    """The loss or the gradient became NaN or infinite."""


class OutOfMemoryError(TrialError):
    """Even the smallest micro-batch does not fit in memory."""


@contextmanager
def reworded(words: Callable[[str], str]) -> Iterator[None]:
    """Let errors that are raised within, or in a function that this decorates, say it otherwise."""
    try:
        yield
    except UserError as error:
        raise type(error)([words(problem) for problem in error.problems]) from error
    except TrialError as error:
        raise type(error)(words(str(error))) from error
