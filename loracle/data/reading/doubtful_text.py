"""Texts that are read as they are, and whose writer may have meant something else.

"<image>\\nWhat is this?"     the place of an image that the row does not have
"<think>First, I need"        a reply whose reasoning never ends
"MÃ¼nchen"                     UTF-8 that was read as another encoding
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from loracle.data.conversation import Message
from loracle.data.reading.notes import NoteKind, Notes
from loracle.data.reading.row_content import RowValue
from loracle.data.reasoning import answer_of

_PLACE_OF_MEDIA = re.compile(
    r"(?:^|\n)\s*<\|?(?:image|video|audio)(?:_pad|_?\d+)?\|?>|<(?:image|video|audio)>\s*$"
)
# What UTF-8 becomes where it is read as Windows-1252 or Latin-1: a lead byte and what follows it.
_MISREAD = re.compile(
    "[\u00c3][\u0080-\u00bf\u0192\u0153\u2013\u2014\u2020-\u2022]|\u00e2\u20ac[\u0080-\u02ff\u2010-\u2122]"
)
_MAY_HOLD_REASONING = ("<", "[T", "\u25c1")

_LABELS = NoteKind("row whose label is 0", "rows whose label is 0")
_PLACES = NoteKind("turn with the place of media", "turns with the place of media")
_UNENDED = NoteKind("reply whose reasoning never ends", "replies whose reasoning never ends")
_MISREAD_TEXTS = NoteKind("text with misread letters", "texts with misread letters")


def note_doubtful_label(row: RowValue, notes: Notes, where: str) -> None:
    """Count rows whose label may be KTO's mark of a rejected reply, or the number of a class."""
    label = row.get("label")
    if isinstance(label, int) and not isinstance(label, bool) and label == 0:
        outcome = "in KTO data that marks a rejected reply; if it does here, leave such rows out"
        notes.add(_LABELS, where, "label is 0", outcome, is_warning=True)


def note_doubtful_text(messages: Sequence[Message], notes: Notes, where: str) -> None:
    """Count what the texts of a row suggest that it lacks."""
    for message in messages:
        text = message.content
        if "<" in text and message.role == "user" and _PLACE_OF_MEDIA.search(text):
            outcome = (
                "only text is read; leave such rows out if they need the image, sound or video"
            )
            notes.add(_PLACES, where, "as <image>", outcome, is_warning=True)
        if (
            message.role == "assistant"
            and any(mark in text for mark in _MAY_HOLD_REASONING)
            and answer_of(text).is_unfinished
        ):
            outcome = "they teach reasoning without an answer; leave them out, or end the block"
            notes.add(_UNENDED, where, "no end of the block", outcome, is_warning=True)
        if ("\u00c3" in text or "\u00e2" in text) and (found := _MISREAD.search(text)):
            outcome = "they look like UTF-8 that was read in another encoding; export them again"
            notes.add(_MISREAD_TEXTS, where, found[0], outcome, is_warning=True)
