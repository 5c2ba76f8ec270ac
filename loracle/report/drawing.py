"""Charts as SVG, drawn in a process of its own: a renderer that fails takes no run with it.

    with drawing():              one child for all charts inside, started by the first one;
                                 inside another `drawing()`, the child of that one
        svg = draw(vega_lite)    SVG text; raises UndrawnError where the child failed

The child runs this same file. It reads one chart per line (Vega-Lite as JSON) and answers each with
one line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Timer

_TIMEOUT_SECONDS = 60.0
# A renderer that died this often is not started again.
_MAX_DEATHS = 2


class UndrawnError(Exception):
    """A chart could not be drawn; the message says why."""


class _Child:
    """The process that draws. Started when first needed, and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._num_deaths = 0

    def draw(self, vega_lite: str) -> str:
        if self._num_deaths >= _MAX_DEATHS:
            raise UndrawnError("the renderer has already failed")
        try:
            answer = self._ask(vega_lite)
        # OSError: it cannot be started, or does not respond. ValueError: a truncated answer.
        except (OSError, ValueError) as error:
            self._forget()
            raise UndrawnError(f"the renderer failed: {error}") from error
        if "svg" not in answer:
            raise UndrawnError(f"the renderer reported: {answer.get('error')}")
        return answer["svg"]

    def close(self) -> None:
        if self._process is not None:
            with suppress(OSError):
                self._process.communicate()
            self._process = None

    def _ask(self, vega_lite: str) -> dict[str, str]:
        process = self._process = self._process or _started()
        assert process.stdin is not None
        assert process.stdout is not None
        clock = Timer(_TIMEOUT_SECONDS, process.kill)
        clock.start()
        try:
            # One line: JSON spells line breaks inside its texts.
            process.stdin.write(json.dumps(json.loads(vega_lite)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        finally:
            clock.cancel()
        if not line:
            raise ValueError(_end_of(process.wait()))
        answer: dict[str, str] = json.loads(line)
        return answer

    def _forget(self) -> None:
        self._num_deaths += 1
        if self._process is not None:
            self._process.kill()
            with suppress(OSError):
                self._process.communicate()
            self._process = None


_child: ContextVar[_Child | None] = ContextVar("child", default=None)


@contextmanager
def drawing() -> Iterator[None]:
    """Draw all charts inside in one child process: that of the outermost `drawing()`."""
    if _child.get() is not None:
        yield
        return
    child = _Child()
    token = _child.set(child)
    try:
        yield
    finally:
        _child.reset(token)
        child.close()


def draw(vega_lite: str) -> str:
    """SVG text of a chart in Vega-Lite. Raises UndrawnError where it cannot be drawn."""
    child = _child.get()
    if child is not None:
        return child.draw(vega_lite)
    with drawing():
        return draw(vega_lite)


def _started() -> subprocess.Popen[str]:
    # -P: the renderer must not import the modules next to this file.
    return subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )


def _end_of(code: int) -> str:
    if code < 0:
        return f"it was killed by signal {-code} (out of memory, or a crash)"
    return f"it exited with code {code}"


def _serve() -> None:
    """The child: draws one chart per line until the parent closes the pipe or exits."""
    import vl_convert

    for line in sys.stdin:
        try:
            answer = {"svg": vl_convert.vegalite_to_svg(json.loads(line))}
        # The parent reports whatever the renderer raises.
        except Exception as error:  # noqa: BLE001
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
