"""Choose what computes attention: the first backend that passes the self-test on this machine."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from loracle.forest.attention.backends import AskedBackend, backends_to_try
from loracle.model.base import BaseModel
from loracle.model.self_test import SelfTest, run_self_test


class AttentionChoice(NamedTuple):
    """The base with its attention, and the self-test of the two together.

    The self-test's notes say which backends were replaced, and why.
    """

    base: BaseModel
    self_test: SelfTest


def choose_attention(base: BaseModel, asked: AskedBackend = "auto") -> AttentionChoice:
    """Try backends in order; if none passes, the last one's self-test says what is wrong.

    asked: as the plan's model.attention.
    """
    replaced: list[str] = []
    head_size = head_size_of(base.model.config.get_text_config())
    for backend, problem in backends_to_try(asked, base.device, head_size, base.dtype):
        if problem is None:
            tried = dataclasses.replace(base, attention=backend)
            self_test = run_self_test(tried)
            if self_test.passed:
                break
            problem = self_test.detail
        replaced.append(f"attention by {backend}: {problem}")
    # What needs nothing beyond torch comes last and is always tried.
    if not self_test.passed:
        replaced.pop()
    notes = (*self_test.notes, *(f"{why}; {tried.attention} takes its place" for why in replaced))
    return AttentionChoice(tried, dataclasses.replace(self_test, notes=notes))


def head_size_of(config: Any) -> int:
    """The numbers of one head's query, as the model's config says."""
    declared = getattr(config, "head_dim", None)
    return int(declared or config.hidden_size // config.num_attention_heads)
