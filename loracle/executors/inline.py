"""One trial after the other, in this process, on its one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loracle.executors.schedule import Ended
from loracle.executors.worker import Worker


def run_inline(worker: Worker, trials: Sequence[str]) -> Iterator[Ended]:
    """Run the trials in their order."""
    for trial in trials:
        yield Ended(trial, worker.run(trial))
