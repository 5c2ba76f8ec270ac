"""Which tests a run leaves out, and why; conftest.py asks for each test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

Marked = Callable[[str], bool]


def files_named(arguments: Sequence[str], folder: Path) -> set[Path]:
    """The test files that a command line names, alone or with one of their tests."""
    paths = (folder / argument.partition("::")[0] for argument in arguments)
    return {path.resolve() for path in paths if path.is_file()}


def reason_to_skip(
    is_marked: Marked, *, slow: bool, long: bool, is_named: bool, has_cuda: Callable[[], bool]
) -> str | None:
    """Why a test does not run; None if it does.

    Args:
        is_marked: Whether the test has the marker of that name.
        slow: Whether the run has the option --slow.
        long: Whether the run has the option --long.
        is_named: Whether the command line names the test's file.
        has_cuda: Asked only if a test needs a device.
    """
    if is_marked("slow") and not slow:
        return "slow: run with --slow"
    if is_marked("long") and not (long or is_named):
        return "long: run with --long, or name its file"
    if is_marked("gpu") and not has_cuda():
        return "needs a CUDA device"
    return None
