"""What the NVIDIA driver says, by nvidia-smi: it may be missing, fail, or never end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import NamedTuple

from loracle.text import counted

_TIMEOUT_SECONDS = 20.0
_QUERY = ("--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader")


class Driver(NamedTuple):
    """cards: each in words. problem: why they are unknown; "" if they are known, or if this machine
    has no driver."""

    cards: tuple[str, ...] = ()
    problem: str = ""


def driver(timeout_seconds: float = _TIMEOUT_SECONDS) -> Driver:
    """Name, memory and driver version of every card."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Driver()
    try:
        asked = subprocess.Popen(
            [program, *_QUERY],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Driver(problem=f"{program} cannot be run ({error.strerror or error})")
    try:
        output, _ = asked.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        # Not waited for: a process that hangs inside the driver does not even end when killed.
        with suppress(OSError):
            os.killpg(asked.pid, signal.SIGKILL)
        return Driver(problem=f"nvidia-smi did not answer within {timeout_seconds:.0f} s")
    return _read(asked.returncode, [line for line in output.splitlines() if line.strip()])


def _read(exit_code: int, lines: list[str]) -> Driver:
    if exit_code:
        said = lines[0].strip() if lines else f"it ended with code {exit_code} and said nothing"
        return Driver(problem=f"nvidia-smi fails: {said}")
    cards = [_card(line) for line in lines]
    unread = [line.strip() for line, card in zip(lines, cards, strict=True) if card is None]
    named = tuple(card for card in cards if card is not None)
    if unread and named:
        return Driver(named, f"nvidia-smi names {counted(len(named), 'card')} and: {unread[0]}")
    if not named:
        return Driver(problem=f"nvidia-smi names no card: {unread[0] if unread else 'no output'}")
    return Driver(named)


def _card(line: str) -> str | None:
    """A line of the answer in words; None for a line that is none, such as a message."""
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != len(_QUERY[0].split(",")):
        return None
    name, total, free, version = parts
    # A card that shares the machine's memory has none of its own.
    unknown = "[" in total or "[" in free
    memory = "does not say its memory" if unknown else f"{total}, {free} free"
    return f"{name}, {memory}, driver {version}"
