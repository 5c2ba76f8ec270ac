"""Answer questions with the base or an adapter: greedy over the prefix forest, with drafts.

    questions --forest prefill, drafts verified in the same pass--> finished answers
              --decoding of the rest, in a shrinking batch--------> the other answers

Drafts (reference answers, answers of earlier trials) save steps and never change an answer: a
draft's token counts only where greedy decoding chooses it too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

from loracle.attention import ATTENTION_NAME, attention_implementation
from loracle.decoding import decode
from loracle.model import BaseModel, computing
from loracle.verification import verify

FinishReason = Literal["stop", "length"]

REFERENCE_SOURCE = "references"

# A source of drafts is left out once this share of its tokens, at least, was of no use.
_MIN_ACCEPTED = 0.2
_MIN_PROPOSED_TOKENS = 100


@dataclass(frozen=True)
class GenerationSettings:
    """What generation needs. `sampling` holds arguments of transformers' `generate`; where it is
    not None, answers come from there, plainly and without drafts.

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
    ids without it, by the name of where they come from."""

    prompt_ids: Sequence[int]
    references: Sequence[Sequence[int]] = ()
    drafts: Mapping[str, Sequence[Sequence[int]]] = {}


class Answer(NamedTuple):
    """Generated token ids without the end token, and why generation ended there.

    nll: negative log-likelihood of the likeliest reference through its end token, in nats; None
    where it was not asked for.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    nll: float | None = None


@dataclass
class GenerationStatistics:
    """What the work was made of: for logs and benchmarks."""

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


@torch.inference_mode()
def generate(
    base: BaseModel,
    adapted: Any | None,
    questions: Sequence[Question],
    settings: GenerationSettings,
    *,
    forest: bool = True,
    statistics: GenerationStatistics | None = None,
) -> Iterator[list[Answer]]:
    """Answer the questions batch by batch, in their order.

    adapted: the attached adapter (its layers sit in `base.model`), or None for the base alone.
    forest: False where the self-test failed; then, too, transformers' `generate` answers.
    """
    statistics = statistics if statistics is not None else GenerationStatistics()
    if settings.sampling is not None or not forest:
        from loracle.plain_generation import generate_plainly

        yield from generate_plainly(base, adapted, questions, settings, can_pad=forest)
        return
    for start in range(0, len(questions), settings.batch_size):
        batch = questions[start : start + settings.batch_size]
        precision = computing(base.dtype, base.device, adapted)
        with attention_implementation(base.model, ATTENTION_NAME), precision:
            answers = _answer_batch(base, batch, settings, statistics)
        yield answers


def _answer_batch(
    base: BaseModel,
    batch: Sequence[Question],
    settings: GenerationSettings,
    statistics: GenerationStatistics,
) -> list[Answer]:
    batch = [
        question._replace(drafts={s: d for s, d in question.drafts.items() if statistics.useful(s)})
        for question in batch
    ]
    verified = verify(base, batch, settings)
    for source, (proposed, accepted) in verified.draft_use.items():
        statistics.proposed[source] += proposed
        statistics.accepted[source] += accepted
    statistics.num_prompt_tokens += sum(len(question.prompt_ids) for question in batch)
    statistics.num_prefill_nodes += verified.num_nodes
    statistics.num_finished_by_drafts += sum(start.finished for start in verified.starts)
    decoded = decode(base, verified, settings, statistics)
    return [
        Answer(tuple(token_ids), "stop" if stopped else "length", nll)
        for (token_ids, stopped), nll in zip(decoded, verified.nlls, strict=True)
    ]
