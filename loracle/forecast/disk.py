"""What a trial leaves on disk, and what else exists while it trains."""

from __future__ import annotations

from typing import NamedTuple

_FLOAT32_BYTES = 4
_NUM_CHECKPOINTS = 2
"""The last one, and the one being written: each the adapter with its optimizer's moments."""
# Of a prediction: an id takes about six digits and a comma, its text about four letters.
_BYTES_PER_TOKEN = 12
_BYTES_PER_QUESTION = 1000


class TrialDisk(NamedTuple):
    """kept: adapter, predictions and scores. checkpoints: exist while a trial trains. In bytes."""

    kept: int
    checkpoints: int


def trial_disk(
    num_adapter_parameters: int,
    num_questions: int,
    max_new_tokens: int,
    moment_bytes: int | None = None,
) -> TrialDisk:
    """The space for one trial that answers every question at full length.

    moment_bytes: of the optimizer (optimizers.py); None: two moments in float32.
    """
    answers = num_questions * (_BYTES_PER_QUESTION + max_new_tokens * _BYTES_PER_TOKEN)
    adapter = num_adapter_parameters * _FLOAT32_BYTES
    moments = 2 * adapter if moment_bytes is None else moment_bytes
    return TrialDisk(adapter + answers, _NUM_CHECKPOINTS * (adapter + moments))
