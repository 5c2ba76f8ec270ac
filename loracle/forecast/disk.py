"""What a trial leaves on disk, and what else exists while it trains."""

from __future__ import annotations

from typing import NamedTuple

_FLOAT32_BYTES = 4
_CHECKPOINT_BYTES = 2 * 3 * _FLOAT32_BYTES
"""Two checkpoints, each with the adapter and the optimizer's two moments of it."""
# Of a prediction: an id takes about six digits and a comma, its text about four letters.
_BYTES_PER_TOKEN = 12
_BYTES_PER_QUESTION = 1000


class TrialDisk(NamedTuple):
    """kept: adapter, predictions and scores. checkpoints: exist while a trial trains. In bytes."""

    kept: int
    checkpoints: int


def trial_disk(num_adapter_parameters: int, num_questions: int, max_new_tokens: int) -> TrialDisk:
    """The space for one trial that answers every question at full length."""
    answers = num_questions * (_BYTES_PER_QUESTION + max_new_tokens * _BYTES_PER_TOKEN)
    return TrialDisk(
        num_adapter_parameters * _FLOAT32_BYTES + answers,
        num_adapter_parameters * _CHECKPOINT_BYTES,
    )
