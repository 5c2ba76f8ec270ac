"""What a chat template leaves out of the reply that is to be learned.

DeepSeek's templates, and many others, keep only what follows `</think>`; most know nothing of
`reasoning_content`. Such a reply would be learned without its reasoning.
"""

from __future__ import annotations

from loracle.data.conversation import Message
from loracle.data.reasoning import has_block


def left_out(message: Message, written: str) -> str | None:
    """What the template left out, and what to do; None if all is there, white space aside.

    written: what it made of the turn, with the end of the prompt, which may open the reasoning.
    """
    text = _squeezed(written)
    if message.reasoning and _squeezed(message.reasoning) not in text:
        return (
            "the model's chat template leaves out the reasoning (reasoning_content); use a "
            "model whose template has a place for it, write it into the content, or, to train "
            "without it, leave the key out: --ignore-column 'messages[].reasoning_content'"
        )
    # With a call, some templates write the call alone.
    if message.tool_calls or _squeezed(message.content) in text:
        return None
    if has_block(message.content):
        return (
            "the model's chat template leaves out the reasoning block of the reply; use a model "
            "whose template keeps it, or, to train without it, cut it out of the rows"
        )
    return (
        "the model's chat template changes the text of the reply, so that another one would be "
        "learned; use a model whose template writes it as it is"
    )


def _squeezed(text: str) -> str:
    return "".join(text.split())
