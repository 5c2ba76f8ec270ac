"""One row as the model sees it: every token is supervised, context, or the place of a cut.

<|im_start|>user\\nContext: The Panthers … Bowl 50.\\nQuestion: Who won?<|im_end|> ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from loracle.data.conversation import Example
from loracle.data.rendering.renderer import OverlongRow, Rendered, Renderer
from loracle.data.rendering.shortening import CUT_MARK
from loracle.errors import DataError
from loracle.text import counted

TokenKind = Literal["context", "supervised", "cut"]


class Token(NamedTuple):
    """One token: its id, its text, and its role in training. A cut's id is None; its text says
    what is missing."""

    id: int | None
    text: str
    kind: TokenKind


@dataclass(frozen=True)
class Inspected:
    """A row and its tokens. overlong: what was done about its length; None if it fits. tokens:
    empty if the row is dropped."""

    example: Example
    row: int
    tokens: Sequence[Token]
    overlong: OverlongRow | None

    @property
    def marks(self) -> list[str]:
        """The loss weights other than 1 that the data gives its replies, in words."""
        turns = self.example.conversation.messages
        return [
            f"turn {number} of {len(turns)} is excluded from the loss"
            if not turn.weight
            else f"turn {number} of {len(turns)} has the loss weight {turn.weight:g}"
            for number, turn in enumerate(turns, 1)
            if turn.role == "assistant" and turn.weight != 1
        ]

    @property
    def num_tokens(self) -> int:
        return sum(token.id is not None for token in self.tokens)

    @property
    def num_supervised(self) -> int:
        return sum(token.kind == "supervised" for token in self.tokens)


def inspect_row(examples: Sequence[Example], row: int, renderer: Renderer) -> Inspected:
    """Render row number `row` (from 1) as training does.

    Raises:
        DataError: there is no such row, or the model's template rejects it.
    """
    if not 1 <= row <= len(examples):
        raise DataError(f"there is no row {row}; found rows 1 to {len(examples):,}")
    example = examples[row - 1]
    fitted = renderer.fit_training([example])
    overlong = next(iter([*fitted.shortened, *fitted.dropped]), None)
    if not fitted.rows:
        return Inspected(example, row, (), overlong)
    tokens = _tokens(fitted.rows[0], renderer)
    if overlong is not None:
        tokens = _with_cuts(tokens, example, overlong)
    return Inspected(example, row, tokens, overlong)


def _tokens(rendered: Rendered, renderer: Renderer) -> list[Token]:
    """Every token's own text. Bytes of a character that several tokens share are shown at the
    last of them, so that no text is lost."""
    decode = renderer.tokenizer.decode
    tokens: list[Token] = []
    pending: list[int] = []
    for token_id, weight in zip(rendered.token_ids, rendered.weights, strict=True):
        pending.append(token_id)
        text = decode(pending, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        unfinished = text.endswith("\ufffd") and len(pending) < _MAX_TOKENS_OF_A_CHARACTER
        tokens.append(
            Token(token_id, "" if unfinished else text, "supervised" if weight else "context")
        )
        if not unfinished:
            pending = []
    return tokens


_MAX_TOKENS_OF_A_CHARACTER = 4
_CONTEXT_CHARACTERS = 40


def _with_cuts(tokens: list[Token], example: Example, overlong: OverlongRow) -> list[Token]:
    """The tokens with a note where each cut's mark ends."""
    text = "".join(token.text for token in tokens)
    notes: list[tuple[int, str]] = []
    position = 0
    for cut in overlong.cuts:
        content = example.conversation.messages[cut.message].content
        note = f"[{counted(cut.stop - cut.start, 'character')} cut]"
        before = content[max(0, cut.start - _CONTEXT_CHARACTERS) : cut.start] + CUT_MARK.rstrip()
        # A vocabulary without the mark's character shows another one: then the next text shows
        # where.
        after = content[cut.stop : cut.stop + _CONTEXT_CHARACTERS]
        found = text.find(before, position)
        place = found + len(before) if found >= 0 else text.find(after, position)
        if place < 0:
            place = len(text)
            note += " earlier"
        position = place
        notes.append((place, note))
    marked: list[Token] = []
    end = 0
    for token in tokens:
        marked.append(token)
        end += len(token.text)
        while notes and end >= notes[0][0]:
            marked.append(Token(None, notes.pop(0)[1], "cut"))
    return marked
