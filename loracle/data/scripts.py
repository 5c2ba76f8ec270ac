"""Which scripts and languages a dataset is written in.

Scripts come from Unicode's ranges and are certain; a language is a guess by py3langid (Lui and
Baldwin 2012, langid.py), made only for texts that are long enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from loracle.data.conversation import Example

SAMPLE_ROWS = 1000
"""Rows looked at, evenly spread over the dataset."""
MIN_GUESSED_CHARACTERS = 40
_MAX_GUESSED_CHARACTERS = 600
_MIN_SHARE = 0.01

# First code point of every range, with the name of the script, None for signs of no script.
_RANGES: tuple[tuple[int, str | None], ...] = (
    (0x0000, None), (0x0041, "Latin"), (0x005B, None), (0x0061, "Latin"), (0x007B, None),
    (0x00C0, "Latin"), (0x02B0, None), (0x0370, "Greek"), (0x0400, "Cyrillic"),
    (0x0530, "Armenian"), (0x0590, "Hebrew"), (0x0600, "Arabic"), (0x0700, None),
    (0x0900, "Devanagari"), (0x0980, "Bengali"), (0x0A00, None), (0x0B80, "Tamil"),
    (0x0C00, "Telugu"), (0x0C80, None), (0x0E00, "Thai"), (0x0E80, None), (0x10A0, "Georgian"),
    (0x1100, "Hangul"), (0x1200, "Ethiopic"), (0x13A0, None), (0x1780, "Khmer"), (0x1800, None),
    (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, None), (0x2E80, "Han"), (0x3000, None),
    (0x3040, "Kana"), (0x3100, None), (0x3400, "Han"), (0xA000, None), (0xAC00, "Hangul"),
    (0xD7B0, None), (0xF900, "Han"), (0xFB00, None), (0xFF21, "Latin"), (0xFF3B, None),
    (0xFF41, "Latin"), (0xFF5B, None), (0xFF66, "Kana"), (0xFFA0, None), (0x20000, "Han"),
    (0x40000, None),
)  # fmt: skip
_STARTS = np.array([start for start, _ in _RANGES])
_NAMES = sorted({name for _, name in _RANGES if name})
_NUMBERS = np.array([_NAMES.index(name) if name else len(_NAMES) for _, name in _RANGES])

# The languages py3langid may return: of closely related ones, the one that datasets use.
_LANGUAGES = [
    *("ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he"),
    *("hi", "hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "nl", "no", "pl", "pt", "ro"),
    *("ru", "sk", "sl", "sr", "sv", "ta", "te", "th", "tr", "uk", "ur", "vi", "zh"),
]


def script_shares(examples: Sequence[Example]) -> dict[str, float]:
    """The share of letters in each script, over a sample of the rows; largest first."""
    text = "".join(_text(example) for example in _sample(examples))
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    numbers = _NUMBERS[np.searchsorted(_STARTS, points, side="right") - 1]
    counts = np.bincount(numbers, minlength=len(_NAMES) + 1)[: len(_NAMES)]
    total = int(counts.sum())
    shares = {name: int(num) / total for name, num in zip(_NAMES, counts, strict=True) if num}
    return _largest_first(shares)


def guessed_texts(examples: Sequence[Example]) -> list[str]:
    """The beginnings of the sampled rows, by which languages are told."""
    return [_text(example)[:_MAX_GUESSED_CHARACTERS] for example in _sample(examples)]


def all_language_shares(texts: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """`language_shares` of several datasets."""
    return [language_shares(of_one) if of_one else {} for of_one in texts]


def language_shares(texts: Sequence[str]) -> dict[str, float]:
    """Every language's share (ISO 639-1) among the texts long enough to tell."""
    import py3langid

    py3langid.set_languages(_LANGUAGES)
    guessed = Counter(
        py3langid.classify(text)[0] for text in texts if len(text) >= MIN_GUESSED_CHARACTERS
    )
    return _largest_first({name: num / guessed.total() for name, num in guessed.items()})


def _largest_first(shares: dict[str, float]) -> dict[str, float]:
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return {name: share for name, share in ordered if share >= _MIN_SHARE}


def _sample(examples: Sequence[Example]) -> Sequence[Example]:
    return examples[:: max(1, len(examples) // SAMPLE_ROWS)][:SAMPLE_ROWS]


def _text(example: Example) -> str:
    turns = example.conversation.messages
    return "\n".join(turn.content for turn in turns if turn.role in ("user", "assistant"))
