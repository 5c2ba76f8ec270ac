"""Names of columns: which one was meant, and how they are compared."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_MIN_LIKENESS = 0.75
_MIN_CHARACTERS = 3
_OWN_WORDS = frozenset({"content", "contents"})
"""Names of something else, however like a known one they are."""
_BREAKS = re.compile(r"[\s\-./]+")
_PATH = re.compile(r"^.*\[\]\.")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def likely_meant(name: str, known: Iterable[str]) -> str | None:
    """The known name that was meant, if it is plausible: the same but for case, spaces and a few
    letters. `text` is no misspelt `context`."""
    by_plain = {plain_name(candidate): candidate for candidate in known}
    plain = plain_name(name)
    if plain in by_plain:
        return by_plain[plain]
    if len(plain) < _MIN_CHARACTERS or plain in _OWN_WORDS:
        return None
    for close in difflib.get_close_matches(plain, by_plain, n=3, cutoff=_MIN_LIKENESS):
        # A misspelling adds or loses a letter or two; a longer name is another one.
        if abs(len(close) - len(plain)) <= 2 and close[0] == plain[0]:
            return by_plain[close]
    return None


def plain_name(name: str) -> str:
    """A column's name without its place in turns, in lower case, its words divided by `_`."""
    name = _CAMEL.sub("_", _PATH.sub("", name.strip()))
    return _BREAKS.sub("_", name).strip("_").lower()
