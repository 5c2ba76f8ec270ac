"""Rows that are too long: the middle of their longest passage is cut, or they are left out.

    Context: The Panthers defense gave up … in Super Bowl 50.      was 4,000 tokens
    Question: Who won?                                            whole

Only user text that is not the question is ever cut. The question, the answer, the references and
the template stay whole; if they alone are too long, the row cannot be kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

from loracle.data.conversation import Conversation, Example
from loracle.data.prompt_parts import TextSpan, passage_spans

Overlong = Literal["shorten", "drop", "error"]
"""What happens to a row that is too long."""

CUT_MARK = " … "
"""The mark where text was cut out."""
MIN_KEPT_CHARACTERS = 80
"""A passage cut below this length is no longer useful: the row is left out instead."""

_WORD_REACH = 24
_NEAR_ENOUGH_TOKENS = 8
_MAX_TRIES = 16


class Cut(NamedTuple):
    """A span cut out of one message: `content[start:stop]` of the original."""

    message: int
    start: int
    stop: int


class Shortened(NamedTuple):
    """An example that fits after cutting."""

    example: Example
    cuts: tuple[Cut, ...]


class _Passage(NamedTuple):
    message: int
    span: TextSpan


def shorten(example: Example, count: Callable[[Example], int], limit: int) -> Shortened | None:
    """Cut the longest passage until the example fits, then the next; None if it never does.

    count: the example's tokens, as rendered. limit: how many are allowed.
    """
    cuts: dict[_Passage, Cut] = {}
    for passage in _passages(example):
        least = cuts | {passage: _cut(example, passage, MIN_KEPT_CHARACTERS)}
        num_least = count(_without(example, least))
        if num_least > limit:
            cuts = least
            continue
        cuts |= {passage: _fitting_cut(example, passage, cuts, num_least, count, limit)}
        found = tuple(sorted(cuts.values()))
        return Shortened(_without(example, cuts), found)
    return None


def _passages(example: Example) -> list[_Passage]:
    """The spans that may be cut, longest first, without those too short to be worth it."""
    messages = example.conversation.prompt.messages
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    found = [
        _Passage(index, span)
        for index, message in enumerate(messages)
        if message.role == "user"
        for span in passage_spans(message.content, example.question if index == last else None)
        if span.length > MIN_KEPT_CHARACTERS + len(CUT_MARK)
    ]
    return sorted(found, key=lambda passage: -passage.span.length)


def _fitting_cut(
    example: Example,
    passage: _Passage,
    cuts: dict[_Passage, Cut],
    num_least: int,
    count: Callable[[Example], int],
    limit: int,
) -> Cut:
    """The cut that keeps nearly as much as fits. Tokens grow almost linearly with the characters
    kept, so each try is where a straight line between the last two bounds meets the limit."""
    low, low_tokens = MIN_KEPT_CHARACTERS, num_least
    high, high_tokens = passage.span.length, count(_without(example, cuts))
    best = _cut(example, passage, low)
    for _ in range(_MAX_TRIES):
        if limit - low_tokens <= _NEAR_ENOUGH_TOKENS or high - low <= 1:
            break
        share = (limit - low_tokens) / max(1, high_tokens - low_tokens)
        middle = min(high - 1, max(low + 1, low + math.floor((high - low) * share)))
        tried = _cut(example, passage, middle)
        num_tokens = count(_without(example, cuts | {passage: tried}))
        if num_tokens <= limit:
            low, low_tokens, best = middle, num_tokens, tried
        else:
            high, high_tokens = middle, num_tokens
    return best


def _cut(example: Example, passage: _Passage, num_kept: int) -> Cut:
    """Cut the middle so that at most `num_kept` characters stay, at word boundaries if possible."""
    content = example.conversation.messages[passage.message].content
    start = passage.span.start + (num_kept + 1) // 2
    stop = passage.span.stop - num_kept // 2
    before = content.rfind(" ", start - min(_WORD_REACH, num_kept // 4), start + 1)
    after = content.find(" ", stop - 1, stop + min(_WORD_REACH, num_kept // 4))
    return Cut(
        passage.message,
        before if before >= 0 else start,
        after + 1 if after >= 0 else stop,
    )


def _without(example: Example, cuts: dict[_Passage, Cut]) -> Example:
    """The example with the cuts made."""
    messages = list(example.conversation.messages)
    for cut in sorted(cuts.values(), reverse=True):
        content = messages[cut.message].content
        kept = content[: cut.start] + CUT_MARK + content[cut.stop :]
        messages[cut.message] = replace(messages[cut.message], content=kept)
    return replace(example, conversation=Conversation(tuple(messages)))
