"""How the benchmark driver talks to a peer: one command a line in, one JSON object a line out.

    driver  > step
    peer    < {"event": "step", "seconds": 84.1, "cpu_seconds": 165.0, ...}

The peer computes only between a command and its answer, so that a driver can let two programs
take turns on the same cores: A B A B, never both at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator


class Channel:
    """Standard input for commands, standard output for answers, and nothing else on either.

    Libraries print progress to standard output. From here on that goes to standard error.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def commands(self) -> Iterator[list[str]]:
        """Commands as lists of words, until `stop` or the end of the input."""
        while words := self.next_command():
            yield words

    def next_command(self) -> list[str]:
        """Block until the driver speaks. An empty list means that it wants no more."""
        for line in sys.stdin:
            words = line.split()
            if words:
                return [] if words == ["stop"] else words
        return []

    def send(self, event: str, **fields: object) -> None:
        """Answer with one JSON object."""
        print(json.dumps({"event": event, **fields}), file=self._answers, flush=True)


class Stopwatch:
    """Wall-clock and processor time since it was made.

    Processor time counts all threads. On a machine that others use too it moves far less.
    """

    def __init__(self) -> None:
        self._began_at_seconds = time.perf_counter()
        self._cpu_began_at_seconds = time.process_time()

    def read(self) -> dict[str, float]:
        """`seconds` and `cpu_seconds`, as fields for `Channel.send`."""
        return {
            "seconds": round(time.perf_counter() - self._began_at_seconds, 4),
            "cpu_seconds": round(time.process_time() - self._cpu_began_at_seconds, 4),
        }
