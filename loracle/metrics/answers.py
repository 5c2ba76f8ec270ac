"""Exact match and overlap of short answers in any language: `em` and `f1`.

    "1998。"      equals "1998"          "３.５米"  equals "3.5米"
    "the Broncos" equals "Broncos!"      "3.5"     does not equal "35", nor "-5" "5", nor "C++" "C"

They follow SQuAD v1.1 (lower case, no punctuation, no English articles) where that is harmless:
Unicode is normalised (NFKC) and punctuation of every script removed; signs, decimal points and
other marks inside numbers are kept; a word counts as an article only before another word, and no
text is normalised to nothing.

Tokens are words, or characters if the evaluation set has references in a script written without
spaces (`script_of_set`).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

from loracle.metrics.overlap import best, equality, overlap_f1
from loracle.metrics.references import check_references

Script = Literal["spaced", "characters"]

# The scripts written without spaces between words: Han, kana and bopomofo, Thai, Lao, Tibetan,
# Burmese, Khmer. Their digits and punctuation are not included, nor is Hangul, which has spaces.
_UNSPACED = (
    "\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U000323af"
    "\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\uff66-\uff9f"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0f40-\u0f84\u0f88-\u0fbc"
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"
    "\u1780-\u17d3\u17dd"
)
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_CHARACTER_OR_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def script_of(references: Sequence[str]) -> Script:
    """The tokens of `em` and `f1` for one question: `characters` if any reference has a character
    of a script written without spaces, else `spaced`.

    The references decide, never the prediction, so that no candidate chooses its own metric.
    """
    check_references(references)
    is_unspaced = any(_UNSPACED_CHARACTER.search(reference) for reference in references)
    return "characters" if is_unspaced else "spaced"


def script_of_set(references_by_row: Iterable[Sequence[str]]) -> Script:
    """The tokens of `em` and `f1` for an evaluation set: `characters` if any of its references
    needs them.

    So "1998" and "1998年" share characters in a Chinese set, although the former alone has none.
    Words with spaces stay words under `characters` too.
    """
    scripts = map(script_of, references_by_row)
    return "characters" if "characters" in scripts else "spaced"


def em(prediction: str, references: Sequence[str], script: Script | None = None) -> float:
    """1.0 if a reference has the same tokens as the prediction, in the same order.

    script: the evaluation set's; None uses that of these references.
    """
    tokens = partial(answer_tokens, script=script or script_of(references))
    return best(equality, tokens, prediction, references)


def f1(prediction: str, references: Sequence[str], script: Script | None = None) -> float:
    """F1 of the tokens shared with the best reference, counted as often as they occur.

    script: as of `em`.
    """
    tokens = partial(answer_tokens, script=script or script_of(references))
    return best(_f1, tokens, prediction, references)


def _f1(predicted: list[str], reference: list[str]) -> float:
    # Only an empty text has no tokens, and it equals another empty text.
    return overlap_f1(predicted, reference) if predicted or reference else 1.0


def answer_tokens(text: str, script: Script) -> list[str]:
    """The tokens of a text, in lower case; a text that is not blank has at least one.

    Under `characters` one token for each character of an unspaced script, with the combining marks
    on it; what stands between them is split at white space, as all is under `spaced`.
    """
    plain = _unified(text)
    kept = _restored(_protected(plain).translate(_WITHOUT_PUNCTUATION))
    cut = _by_character if script == "characters" else str.split
    return cut(_ARTICLE.sub(" ", kept)) or cut(_normalised(text))


def _by_character(text: str) -> list[str]:
    tokens: list[str] = []
    for piece in _CHARACTER_OR_WORD.findall(text):
        if tokens and unicodedata.category(piece[0]).startswith("M"):
            tokens[-1] += piece
        else:
            tokens.append(piece)
    return tokens


# An article comes before another word: "A" alone and "vitamin A" have none.
_ARTICLE = re.compile(r"\b(?:a|an|the)\b(?=\s+\S)")
# These separate words even without a space, except inside a number.
_SEPARATOR = re.compile(r"(?<!\d)[，、；。]|[，、；。](?!\d)")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_FRACTION_AFTER_DIGIT = re.compile("(?<=[0-9])(?=[¼-¾⅐-⅞])")
_DASHES = str.maketrans(dict.fromkeys("−–‐‑‒", "-"))
_LONG_DASH = re.compile(r"(?<=\d)\s*[—―~〜]\s*(?=\d)|(?<=\d)\s+-\s+(?=\d)")
_GROUPED = re.compile(r"(?<![\d.,'])\d{1,3}(?:[,'’]\d{2,3})*[,'’]\d{3}(?!\d)")


def _unified(text: str) -> str:
    """The text after NFKC, in lower case, with one form of every dash and number."""
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^" + run[0].translate(_SUPERSCRIPTS), text)
    text = _FRACTION_AFTER_DIGIT.sub(" ", _SEPARATOR.sub(" ", text))
    text = _normalised(text).replace("⁄", "/").translate(_DASHES)
    text = text.translate(_WITHOUT_FORMAT)
    text = _LONG_DASH.sub("-", text).replace("—", " ")
    return _GROUPED.sub(lambda number: re.sub("[,'’]", "", number[0]), text)


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


# Marks that are part of a number or a name rather than punctuation.
_KEPT = re.compile(
    r"(?<=\d)[./:^*=<>+\-](?=\d)"
    r"|(?<![\w)\]%])-(?=\d)"
    r"|(?<=\^)[-+](?=\d)"
    r"|[<>](?=\s?-?\d)"
    r"|(?<=\w)\^(?=[-+]?\d)"
    r"|(?<=[a-z])\+(?![a-z])|(?<=[a-z]\+)\+"
    r"|(?<=\b[a-z])#"
    r"|(?<=\b[a-z])-(?=[\s.,;)]|$)"
)
_BETWEEN_DIGITS = re.compile(r"(?<=\d)(?:[^\w\s]|_)(?=\d)")
_PUNCTUATION = frozenset(string.punctuation)
_PRIVATE = {mark: chr(0xE000 + ord(mark)) for mark in _PUNCTUATION}
_PUBLIC = str.maketrans({private: mark for mark, private in _PRIVATE.items()})


def _protected(text: str) -> str:
    """The text with the marks that are kept as private characters, and other marks between two
    digits as spaces, so that no two numbers become one."""
    text = re.sub(r"[$%](?!\d)|\$|(?<![\w.])\.(?=\d)", _money_or_point, text)
    return _BETWEEN_DIGITS.sub(
        lambda mark: " " if _is_dropped(mark[0]) else mark[0],
        _KEPT.sub(lambda mark: _PRIVATE[mark[0]], text),
    )


def _money_or_point(mark: re.Match[str]) -> str:
    return "0." if mark[0] == "." else ""


def _restored(text: str) -> str:
    return text.translate(_PUBLIC)


def _is_dropped(char: str) -> bool:
    return char in _PUNCTUATION or unicodedata.category(char).startswith("P")


def _is_format(char: str) -> bool:
    """Invisible characters, and private ones, which represent the marks that are kept."""
    return unicodedata.category(char) in ("Cf", "Co")


class _Without(dict[int, int | None]):
    """A table for `str.translate` that drops some characters; each is judged once."""

    def __init__(self, is_dropped: Callable[[str], bool]) -> None:
        super().__init__()
        self._is_dropped = is_dropped

    def __missing__(self, code: int) -> int | None:
        self[code] = None if self._is_dropped(chr(code)) else code
        return self[code]


_WITHOUT_PUNCTUATION = _Without(_is_dropped)
_WITHOUT_FORMAT = _Without(_is_format)
