"""Text as the audit compares it: what differs by width, case, white space and punctuation is equal.

"Ｗho won？  The\\nBroncos!"  ->  "who won the broncos"
"""

from __future__ import annotations

import re
import unicodedata

# Punctuation that says something: "50 %" is not "50", "1/2" is not "1 2".
_KEPT = frozenset("%*/-‰")
_LONE_HYPHEN = re.compile(r"(?<!\S)-+(?!\d)|(?<=[^\W\d])-|-(?=[^\W\d])|-(?!\S)")

# Characters that say about a syllable or a word each.
_DENSE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
DENSE_WEIGHT = 3
"""A Han, kana or Hangul character counts as this many letters where a text must be long enough."""


class _Bare(dict[int, int]):
    """A table for str.translate, filled as characters are met: punctuation becomes a space, while
    letters, the marks on them, digits and signs such as + and € stay."""

    def __missing__(self, point: int) -> int:
        char = chr(point)
        bare = char not in _KEPT and unicodedata.category(char)[0] in "PZC"
        self[point] = found = ord(" ") if bare else point
        return found


_BARE = _Bare()


def normalized(text: str) -> str:
    """NFKC, case folded, without punctuation, single spaces."""
    bare = unicodedata.normalize("NFKC", text).casefold().translate(_BARE)
    if "-" in bare:
        bare = _LONE_HYPHEN.sub(" ", bare)
    return " ".join(bare.split())


def weight(text: str) -> int:
    """How much a text says, in letters: Chinese says as much in a third of the characters."""
    return (
        len(text) if text.isascii() else len(text) + (DENSE_WEIGHT - 1) * len(_DENSE.findall(text))
    )
