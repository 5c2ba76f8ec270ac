"""Choose what computes attention: the first backend that passes the self-test on this machine."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch

from loracle.forest.attention.backends import BLOCKWISE, AskedBackend, backends_to_try
from loracle.model.base import BaseModel, evaluation_precision
from loracle.model.max_length import head_size_of
from loracle.model.self_test import SelfTest, run_self_test


class AttentionChoice(NamedTuple):
    """The base with its attention, and the self-test of the two together."""

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
            self_test = _tested(tried)
            if self_test.passed:
                break
            problem = self_test.detail
        replaced.append(f"attention by {backend}: {problem}")
    # What needs nothing beyond torch comes last and is always tried.
    if not self_test.passed:
        replaced.pop()
    words = tuple(f"{why}; {tried.attention} takes its place" for why in replaced)
    return AttentionChoice(tried, dataclasses.replace(self_test, replaced=words))


def choose_for_answering(
    base: BaseModel, dtype: str, asked: AskedBackend = "auto"
) -> AttentionChoice | None:
    """The same for answers in another precision than training's; None if nothing is to choose.

    base: with the attention of training. dtype: as the plan's generation.dtype.
    """
    if base.attention not in BLOCKWISE:
        return None
    with evaluation_precision(base, dtype) as answering:
        return choose_attention(answering, asked) if answering.dtype != base.dtype else None


def _tested(base: BaseModel) -> SelfTest:
    try:
        return run_self_test(base)
    except Exception as error:
        # What is compiled can fail by anything that the machine lacks: a C compiler, a header, a
        # driver's symbol. Memory is another matter: the next backend would lack it too.
        if base.attention not in BLOCKWISE or isinstance(error, torch.OutOfMemoryError):
            raise
        lines = str(error).strip().splitlines()
        what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        return SelfTest(False, f"it does not run on this machine ({what})")
