"""A model's answer, without its reasoning.

    "<think>\\n\\n</think>\\n\\nDenver"       -> "Denver"
    "Lyon? No. </think> Paris"            -> "Paris"   (the prompt opened the block)
    "<think>Let me see. First, we need"   -> ""        (the answer's tokens ran out: unfinished)

The prediction on disk stays whole; every metric, including the official ones, gets only the answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TAGS = r"(?:think|thinking|thought|thoughts|reasoning|reason|reflection|analysis|seed:think)"
_MARKS = (
    (rf"<{_TAGS}>", rf"</{_TAGS}>"),
    (r"<\|(?:begin|start)_of_(?:thought|thinking)\|>", r"<\|end_of_(?:thought|thinking)\|>"),
    (r"<\|(?:think|thinking)\|>", r"<\|/(?:think|thinking)\|>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|channel\|>(?:analysis|commentary)<\|message\|>", r"<\|channel\|>final<\|message\|>"),
)
_OPENING = re.compile("|".join(opening for opening, _ in _MARKS), re.IGNORECASE)
_CLOSING = re.compile("|".join(closing for _, closing in _MARKS), re.IGNORECASE)
_EITHER = re.compile(rf"(?P<opening>{_OPENING.pattern})|(?P<closing>{_CLOSING.pattern})", re.I)
# The tags that R1-like templates put around the answer itself.
_AROUND_ANSWER = re.compile(
    r"\s*(?:<answer>(.*)</answer>|<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>)?)\s*",
    re.DOTALL | re.IGNORECASE,
)


class Answered(NamedTuple):
    """A prediction's answer.

    is_unfinished: the reasoning never ended, so no answer was reached.
    """

    text: str
    has_reasoning: bool
    is_unfinished: bool


def answer_of(
    prediction: str, end: str | None = None, *, opened: bool = False, is_cut: bool = False
) -> Answered:
    """The answer that follows the reasoning.

    Args:
        prediction: the whole text that was generated.
        end: the text that ends the reasoning (`generation.reasoning_end`), in addition to the known
        tags.
        opened: whether the prompt ended inside a reasoning block, so the prediction has no opening
            tag.
        is_cut: whether the prediction was cut at its token limit. An expected block without an end
            is unfinished only in that case.
    """
    if end is not None:
        _, found, rest = prediction.partition(end)
        if found:
            return Answered(_unwrapped(_visible(rest)[0].strip()), True, False)
        if is_cut:
            return Answered("", True, True)
    text, has_reasoning, is_unfinished = _visible(prediction)
    if opened and is_cut and not has_reasoning:
        return Answered("", True, True)
    return Answered(_unwrapped(text) if has_reasoning else text, has_reasoning, is_unfinished)


def opens_reasoning(prompt: str) -> bool:
    """Whether a prompt ends inside a reasoning block, as templates of thinking models do."""
    marks = list(_EITHER.finditer(prompt))
    return bool(marks) and bool(marks[-1]["opening"]) and not prompt[marks[-1].end() :].strip()


def is_mark(token: str) -> bool:
    """Whether a tokenizer's special token opens or closes a reasoning block."""
    return _EITHER.fullmatch(token) is not None


def has_block(text: str) -> bool:
    """Whether a text opens or closes a reasoning block."""
    return _EITHER.search(text) is not None


def without_empty_block(reply: str) -> str:
    """A reply without the empty block that a template writes before it, otherwise unchanged."""
    opening = _EITHER.match(reply.lstrip())
    if opening is None:
        return reply
    rest = reply.lstrip()[opening.end() :]
    if opening["closing"]:
        # The prompt had opened the block, and the reply closes it at once.
        return rest.lstrip()
    closing = _EITHER.match(rest.lstrip())
    if closing is None or not closing["closing"]:
        return reply
    return rest.lstrip()[closing.end() :].lstrip()


def _visible(text: str) -> tuple[str, bool, bool]:
    """The text outside reasoning blocks, whether there is a block, and whether the last is open."""
    kept: list[str] = []
    start, depth, has_reasoning = 0, 0, False
    for mark in _EITHER.finditer(text):
        has_reasoning = True
        if mark["opening"]:
            if not depth:
                kept.append(text[start : mark.start()])
            depth = 1
        elif depth:
            depth, start = 0, mark.end()
        else:
            # The block was opened in the prompt: all before its end is reasoning.
            kept, start = [], mark.end()
    if not depth:
        kept.append(text[start:])
    if not has_reasoning:
        return text, False, False
    return "".join(kept).strip(), True, bool(depth)


def _unwrapped(text: str) -> str:
    found = _AROUND_ANSWER.fullmatch(text)
    return next(part for part in found.groups() if part is not None).strip() if found else text
