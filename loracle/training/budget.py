"""The tokens computed at once, halved whenever they turn out to be too many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from loracle.errors import OutOfMemoryError
from loracle.forest.trie import Sequences
from loracle.model.out_of_memory import is_out_of_memory, release_cached_memory

_MIN_BUDGET_TOKENS = 16


@dataclass(frozen=True)
class MemoryEvent:
    """The budget was halved, and the step done again."""

    step: int
    budget_tokens: int


@dataclass
class TokenBudget:
    """How many tokens are computed at once. It decides memory and speed, never a result."""

    budget_tokens: int
    on_change: Callable[[MemoryEvent], None]

    def halve(self, error: BaseException, step: int, batch: Sequences) -> None:
        """Raises the error where it is another one, OutOfMemoryError where no half is left."""
        if not is_out_of_memory(error):
            raise error
        release_cached_memory()
        # No row is longer than the budget unless one sequence is: halving continues until then.
        if self.budget_tokens <= _MIN_BUDGET_TOKENS:
            raise OutOfMemoryError(
                f"step {step + 1}: out of memory even one sequence at a time (the longest has "
                f"{int(batch.lengths.max())} tokens); set training.gradient_checkpointing to "
                "true, or use a smaller model"
            ) from error
        self.lower(step, self.budget_tokens // 2)

    def refuse(self, error: BaseException, step: int) -> NoReturn:
        """Raises OutOfMemoryError, or the error where it is another one: a sharded base's step
        cannot be done again by one process, as the others are in the middle of a pass."""
        if not is_out_of_memory(error):
            raise error
        raise OutOfMemoryError(
            f"step {step + 1}: out of memory with {self.budget_tokens} tokens computed at once; "
            "with training.shard_base: true no step is done again in smaller parts; set "
            f"training.micro_batch_tokens to {max(1, self.budget_tokens // 2)}"
        ) from error

    def lower(self, step: int, budget_tokens: int) -> None:
        """Take a smaller budget from step `step` (from 0) on."""
        self.budget_tokens = budget_tokens
        self.on_change(MemoryEvent(step + 1, budget_tokens))
