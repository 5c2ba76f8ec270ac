"""Text as the audit compares it: what differs by width, case, white space and punctuation is equal.

"Ｗho won？  The\\nBroncos!"  ->  "who won the broncos"
"""

from __future__ import annotations

import re
import unicodedata

# \\w takes letters, digits and combining marks of every script; signs such as + and € stay too,
# for "2 + 2" is not "2 2".
_PUNCTUATION = re.compile(r"[^\w\s+\-*/=<>%°^|~$€£¥₹№§©®√∞≈≠≤≥±×÷∑∏∫∂]|_")
_LONE_HYPHEN = re.compile(r"(?<!\S)[\-–—]+(?!\d)|(?<=\w)-(?=\w)|-(?!\S)")
_SPACE = re.compile(r"\s+")

# Characters that say about a syllable or a word each.
_DENSE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
DENSE_WEIGHT = 3
"""A Han, kana or Hangul character counts as this many letters where a text must be long enough."""


def normalized(text: str) -> str:
    """NFKC, case folded, without punctuation, single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = _LONE_HYPHEN.sub(" ", _PUNCTUATION.sub(" ", folded))
    return _SPACE.sub(" ", bare).strip()


def weight(text: str) -> int:
    """How much a text says, in letters: Chinese says as much in a third of the characters."""
    return (
        len(text) if text.isascii() else len(text) + (DENSE_WEIGHT - 1) * len(_DENSE.findall(text))
    )
