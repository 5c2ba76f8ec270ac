"""Which examples meet in which optimizer step: seeded by (seed, epoch) alone.

A step's batch is a slice of its epoch's order, so a position in training is a step number and
resuming needs no replay. `grouped` keeps examples that share a prefix next to each other, since
they must meet in one batch to save anything; `shuffled` is plain shuffling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from loracle.forest.trie import IntArray, Sequences, common_prefix_lengths

# Examples belong together when at least this share of the shorter prompt is common to both,
# not counting what all examples share (the template, a system prompt).
_SHARED_PART = 0.5


def prefix_groups(prompts: Sequences) -> IntArray:
    """The group of every prompt, shape (S,): prompts that share half of their own text.

    Chains count: neighbours in sorted order that share enough are of one group.
    """
    num_prompts = prompts.num_sequences
    if num_prompts == 0:
        return np.empty(0, np.int64)
    order, common = common_prefix_lengths(prompts)
    template = int(common[1:].min(initial=np.iinfo(np.int64).max)) if num_prompts > 1 else 0
    own = prompts.lengths[order] - template
    shorter = np.minimum(own[1:], own[:-1])
    starts = np.concatenate(
        ([True], (common[1:] - template) < np.maximum(1, _SHARED_PART * shorter))
    )
    groups = np.empty(num_prompts, np.int64)
    groups[order] = np.cumsum(starts) - 1
    return groups


@dataclass(frozen=True)
class Ordering:
    """The batches of a whole training run over `groups` (the group of every example)."""

    groups: tuple[int, ...]
    batch_size: int
    seed: int
    grouped: bool

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.groups) / self.batch_size)

    def batch(self, step: int) -> IntArray:
        """The examples of optimizer step `step` (from 0), in training order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.groups, self.seed, epoch, self.grouped)
        return order[position * self.batch_size : (position + 1) * self.batch_size]


@lru_cache(maxsize=2)
def _epoch_order(groups: tuple[int, ...], seed: int, epoch: int, grouped: bool) -> IntArray:
    generator = np.random.default_rng([seed, epoch])
    order: IntArray = generator.permutation(len(groups))
    if not grouped:
        return order
    labels = np.asarray(groups)
    rank_of_group = generator.permutation(int(labels.max(initial=0)) + 1)
    return order[np.argsort(rank_of_group[labels[order]], kind="stable")]
