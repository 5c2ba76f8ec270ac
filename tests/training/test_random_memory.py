"""Memory that runs out at any operation, in training with dropout or while answering: a random one,
forward or backward. The adapter and the answers stay what they are."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from loracle.generation import generate as generating
from loracle.generation.generate import Account, generate
from loracle.generation.memory import AnsweringMemoryEvent
from loracle.generation.types import Answer, Question
from loracle.training import loop as training
from loracle.training.budget import MemoryEvent
from tests.generation import test_generate as answering
from tests.training.test_loop import relative_error, rows, tiny_base, trained

NUM_DRAWS, NUM_IN_DEFAULT_SUITE = 50, 3
DRAWS = [
    pytest.param(seed, marks=[pytest.mark.slow] if seed >= NUM_IN_DEFAULT_SUITE else [])
    for seed in range(NUM_DRAWS)
]
DROPOUTS = (0.1, 0.3, 0.5)


class Operations(TorchDispatchMode):
    """Counts torch's operations, and runs out of memory at some of them (from 0)."""

    def __init__(self, failing: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.failing, self.num_done = failing, 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        self.num_done += 1
        if self.num_done - 1 in self.failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return operation(*arguments, **(options or {}))


@contextmanager
def watched(module: Any, name: str, operations: Operations) -> Iterator[None]:
    """Inside, the operations of this function are counted, and may fail."""
    function = getattr(module, name)

    def under_watch(*arguments: Any, **values: Any) -> Any:
        with operations:
            return function(*arguments, **values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, under_watch)
        yield


@cache
def undisturbed_adapter(dropout: float) -> torch.Tensor:
    return trained(tiny_base(), rows(), dropout=dropout)


@cache
def num_training_operations() -> int:
    operations = Operations()
    with watched(training, "accumulate_gradient", operations):
        trained(tiny_base(), rows(), dropout=DROPOUTS[0])
    return operations.num_done


@pytest.mark.parametrize("seed", DRAWS)
def test_memory_that_runs_out_at_any_operation_of_training_leaves_the_same_adapter(
    seed: int,
) -> None:
    draw = random.Random(seed)
    dropout = draw.choice(DROPOUTS)
    failing = draw.randrange(num_training_operations())
    events: list[MemoryEvent] = []
    with watched(training, "accumulate_gradient", Operations(frozenset({failing}))):
        found = trained(tiny_base(), rows(), dropout=dropout, on_memory=events.append)
    assert [event.budget_tokens for event in events] == [100]
    assert relative_error(found, undisturbed_adapter(dropout)) <= 1e-5


def questions() -> list[Question]:
    return [Question(ids) for ids in answering.prompts(answering.tiny_base())]


@cache
def undisturbed_answers() -> list[Answer]:
    return answering.answers(answering.tiny_base(), questions())


def answered(on_memory: Callable[[AnsweringMemoryEvent], None]) -> list[Answer]:
    account = Account(on_memory=on_memory)
    batches = generate(
        answering.tiny_base(), None, questions(), answering.SETTINGS, account=account
    )
    return [answer for batch in batches for answer in batch]


@cache
def num_answering_operations() -> int:
    operations = Operations()
    with watched(generating, "_forest_part", operations):
        answered(lambda _: None)
    return operations.num_done


@pytest.mark.parametrize("seed", DRAWS)
def test_memory_that_runs_out_at_any_operation_of_answering_changes_no_answer(seed: int) -> None:
    failing = random.Random(seed).sample(range(num_answering_operations()), 2)
    events: list[AnsweringMemoryEvent] = []
    with watched(generating, "_forest_part", Operations(frozenset(failing))):
        found = answered(events.append)
    assert found == undisturbed_answers()
    assert events
