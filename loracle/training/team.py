"""Who computes the gradient of a step: this process alone, or with replicas in others.

own rows = team.begin(step)      the weights go to all; each gets its rows
found    = gradient of own rows
whole    = team.add_up(found)    the step's gradient, loss and tokens
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

from torch import Tensor

from loracle.forest.trie import IntArray, Sequences
from loracle.training.budget import TokenBudget
from loracle.training.micro_batches import NOT_CUT, CutStep, Lockstep


class Part(NamedTuple):
    """What one process computes of a step. total_weight: of the targets of the whole step.
    cut_ahead: the same in pieces, if they were made before."""

    sequences: Sequences
    total_weight: float
    cut_ahead: CutStep = NOT_CUT


class PartDone(NamedTuple):
    """What a part came to. loss: its share of the step's mean loss, (), float64, where it was
    computed: reading it would wait for the device."""

    loss: Tensor
    tokens_computed: int


class Team(Protocol):
    """Computes the steps of one training."""

    @property
    def lockstep(self) -> Lockstep | None:
        """What a sharded base needs to be computed; None for a whole one."""

    def computing(self) -> AbstractContextManager[None]:
        """The context in which this process computes its part."""

    def begin(self, step: int, rows: IntArray, batch: Sequences, budget_tokens: int) -> IntArray:
        """Start step `step` (from 0) everywhere; returns the rows that this process computes.

        rows: of the step, in the dataset; batch: the same rows' sequences.
        """

    def add_up(self, own: PartDone, step: int, budget: TokenBudget) -> PartDone:
        """Put the step's whole gradient in place of this process' part of it."""


class _Alone:
    lockstep: Lockstep | None = None

    def computing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def begin(self, step: int, rows: IntArray, batch: Sequences, budget_tokens: int) -> IntArray:
        return rows

    def add_up(self, own: PartDone, step: int, budget: TokenBudget) -> PartDone:
        return own


ALONE: Team = _Alone()
