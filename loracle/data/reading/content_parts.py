"""The text of a turn's content: a text, or OpenAI's list of parts.

    "Weather in Oslo?"
    [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Oslo?"}]

A part that holds media, beside its text or without any, is a fault: only text is read.
"""

from __future__ import annotations

from collections.abc import Mapping

from loracle.data.faults import Faults, Reason, checked_text, kind_of, named, show
from loracle.data.reading.marks import PART_MARKS
from loracle.data.reading.row_content import is_blank

_TEXT_PARTS = frozenset({None, "text", "input_text", "output_text"})
_PART_KEYS = ("text", "value", "content")
_MEDIA_PARTS = ("image", "audio", "video", "file")


def content_text(value: object, place: str, has_calls: bool, faults: Faults) -> str | None:
    """A text, or the texts of OpenAI's list of parts, joined."""
    if value is None and has_calls:
        return ""
    if not isinstance(value, list):
        return checked_text(value, place, faults)
    texts = [_part_text(part, f"{place}[{index}]", faults) for index, part in enumerate(value)]
    return None if None in texts else "".join(text for text in texts if text is not None)


def _part_text(part: object, place: str, faults: Faults) -> str | None:
    """The text of one part, which is under `text`, or under `value` as LLaMA-Factory has it."""
    if isinstance(part, str):
        return checked_text(part, place, faults)
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and (kind is None or kind in _TEXT_PARTS):
        key = next((key for key in _PART_KEYS if part.get(key) is not None), None)
        if (kind is not None or key is not None) and not _adds_more(part, place, faults):
            return checked_text(part.get(key or "text"), f"{place}.{key or 'text'}", faults)
        if kind is not None or key is not None:
            return None
    found = show(kind) if kind is not None else kind_of(part)
    keys = (kind,) if isinstance(kind, str) else tuple(part) if isinstance(part, dict) else ()
    is_media = any(str(key).startswith(_MEDIA_PARTS) for key in keys)
    faults.add(
        Reason.MEDIA if is_media else Reason.WRONG_KIND,
        f"{place} is {found}; only parts of type 'text' can be read",
    )
    return None


def _adds_more(part: Mapping[str, object], place: str, faults: Faults) -> bool:
    """Whether a part of text has media beside it, or a mark of its own; a fault then."""
    for key in part:
        if is_blank(part[key]) or key in _PART_KEYS:
            continue
        if key.startswith(_MEDIA_PARTS):
            text = (
                f"{place} has {named(key)} beside its text; only parts of type 'text' can be read"
            )
            faults.add(Reason.MEDIA, text)
            return True
        if key in PART_MARKS:
            text = f"{place}.{key} marks parts of a turn; only whole turns can be marked"
            faults.add(Reason.MARK, f"{text}: put it on the turn, or split the turn")
            return True
    return False
