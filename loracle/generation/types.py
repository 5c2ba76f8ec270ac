"""Inputs and outputs of generation: settings, questions, answers, and an account of the work."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

FinishReason = Literal["stop", "length"]

REFERENCE_SOURCE = "references"

# A source of drafts is dropped once at least this share of its tokens was useless.
_MIN_ACCEPTED = 0.2
_MIN_PROPOSED_TOKENS = 100


@dataclass(frozen=True)
class GenerationSettings:
    """What generation needs. `sampling` holds arguments of transformers' `generate`; if it is not
    None, answers come from there, without drafts.

    batch_size: prompts answered together. budget_tokens: tokens computed at once in prefill.
    """

    max_new_tokens: int
    repetition_penalty: float
    prompt_lookup: bool
    answer_nll: bool
    batch_size: int
    budget_tokens: int
    sampling: Mapping[str, Any] | None = None
    seed: int = 0


class Question(NamedTuple):
    """A rendered prompt; `references` are token ids through the end token; `drafts` are token
    ids without it, by the name of where they come from. `opening_ids` come between the prompt and
    a reference, and are no part of it."""

    prompt_ids: Sequence[int]
    references: Sequence[Sequence[int]] = ()
    drafts: Mapping[str, Sequence[Sequence[int]]] = {}
    opening_ids: Sequence[int] = ()


class Answer(NamedTuple):
    """Generated token ids without the end token, and why generation ended there.

    nll: negative log-likelihood of the likeliest reference through its end token, in nats, given
    the prompt and what the template writes before a reply; None if it was not requested.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    nll: float | None = None


@dataclass
class GenerationStatistics:
    """An account of the work, for logs and benchmarks."""

    num_prompt_tokens: int = 0
    num_prefill_nodes: int = 0
    num_decode_steps: int = 0
    num_decode_tokens: int = 0
    num_finished_by_drafts: int = 0
    proposed: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)

    def useful(self, source: str) -> bool:
        """Whether drafts of this source are still worth their tokens."""
        proposed = self.proposed[source]
        return proposed < _MIN_PROPOSED_TOKENS or self.accepted[source] >= _MIN_ACCEPTED * proposed

    def copy(self) -> GenerationStatistics:
        """Another account of the same numbers."""
        return dataclasses.replace(
            self, proposed=Counter(self.proposed), accepted=Counter(self.accepted)
        )
