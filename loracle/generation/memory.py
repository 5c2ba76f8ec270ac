"""How much is answered at once: less after memory has run out, with the same answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loracle.errors import OutOfMemoryError
from loracle.generation.types import Answer, GenerationSettings, Question
from loracle.model.out_of_memory import is_out_of_memory, release_cached_memory

_MIN_BUDGET_TOKENS = 16


@dataclass(frozen=True)
class AnsweringMemoryEvent:
    """Memory ran out: this many questions are answered together from now on."""

    batch_size: int
    budget_tokens: int


class AnsweringMemory:
    """The questions and tokens computed at once, halved whenever they turn out to be too many.

    Batches stay the same, and so do the drafts that are tried: a batch that is too large is
    answered in parts.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        on_change: Callable[[AnsweringMemoryEvent], None] = lambda event: None,
    ) -> None:
        self._settings = settings
        self._on_change = on_change
        self._batch_size = settings.batch_size
        self._budget_tokens = settings.budget_tokens

    def answered(
        self,
        batch: Sequence[Question],
        answer: Callable[[int, Sequence[Question], GenerationSettings], list[Answer]],
    ) -> list[Answer]:
        """The answers to a batch, in order.

        answer: computes those of a part, given the place of its first question in the batch.

        Raises:
            OutOfMemoryError: a single question does not fit.
        """
        answers: list[Answer] = []
        while len(answers) < len(batch):
            part = batch[len(answers) : len(answers) + self._batch_size]
            settings = dataclasses.replace(self._settings, budget_tokens=self._budget_tokens)
            try:
                answers += answer(len(answers), part, settings)
                continue
            except (RuntimeError, MemoryError) as error:
                self._halve(error, part)
            # Only here is the error gone, and with it the memory that its frames held.
            release_cached_memory()
        return answers

    def _halve(self, error: RuntimeError | MemoryError, part: Sequence[Question]) -> None:
        """Raises any other error, and OutOfMemoryError if no further halving is possible."""
        if not is_out_of_memory(error):
            raise error
        if len(part) == 1 and self._budget_tokens <= _MIN_BUDGET_TOKENS:
            raise OutOfMemoryError(
                f"out of memory even for one question at a time (of {len(part[0].prompt_ids)} "
                "tokens); lower generation.max_new_tokens or training.max_length, or use a "
                "smaller model"
            ) from error
        self._batch_size = max(1, min(self._batch_size, len(part)) // 2)
        self._budget_tokens = max(_MIN_BUDGET_TOKENS, self._budget_tokens // 2)
        self._on_change(AnsweringMemoryEvent(self._batch_size, self._budget_tokens))
