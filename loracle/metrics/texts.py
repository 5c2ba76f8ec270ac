"""Likeness of longer texts: ROUGE-L, BLEU and chrF, of one prediction each.

    rouge_l   F1 of the longest common subsequence of words (Lin 2004), as Google's rouge_score
              without stemming; there a word is of ASCII letters and digits, here of any script's
    bleu      sacrebleu's sentence BLEU: exponential smoothing, effective order (Post 2018)
    chrf      sacrebleu's sentence chrF2, of characters without spaces (Popovic 2015)

A mean of sentence BLEU is not corpus BLEU, and must not be compared with it.

If the references are in a script without spaces, ROUGE-L uses the tokens of `em` and `f1`,
characters; BLEU uses sacrebleu's tokeniser `zh`, which splits Chinese into characters and leaves
other words whole, or its `char` if the references have characters of another such script.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

from loracle.metrics.answers import Script, answer_tokens, script_of
from loracle.metrics.overlap import best, harmonic_mean
from loracle.metrics.references import check_references

# Scripts without spaces that are not Han: kana, Thai, Lao, Tibetan, Burmese, Khmer.
_NOT_CHINESE = re.compile("[\u3041-\u30ff\uff66-\uff9f\u0e01-\u0f84\u1000-\u109f\u1780-\u17dd]")


def rouge_l(prediction: str, references: Sequence[str], script: Script | None = None) -> float:
    """F1 of the longest common subsequence of tokens, for the best reference.

    script: the evaluation set's; None uses that of these references.
    """
    by_characters = (script or script_of(references)) == "characters"
    return best(_rouge_l, _characters if by_characters else _words, prediction, references)


def _characters(text: str) -> list[str]:
    return answer_tokens(text, "characters")


def _words(text: str) -> list[str]:
    """Runs of letters and digits in lower case, with the marks on them (as vowels in Hindi)."""
    kept = (char if char.isalnum() or _is_mark(char) else " " for char in text.lower())
    return "".join(kept).split()


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def _rouge_l(predicted: list[str], reference: list[str]) -> float:
    num_shared = _common_subsequence_tokens(predicted, reference)
    return harmonic_mean(num_shared, len(predicted), len(reference))


def _common_subsequence_tokens(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, a row of the table at once as the bits of an
    integer (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << i
    all_ones = (1 << len(first)) - 1
    row = all_ones
    for token in second:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & all_ones
    # A zero marks where the subsequence grows.
    return len(first) - row.bit_count()


def bleu(prediction: str, references: Sequence[str], script: Script | None = None) -> float:
    """Sentence BLEU against all references together, as defined.

    script: as of `rouge_l`.
    """
    check_references(references)
    tokeniser = _bleu_tokeniser(references, script or script_of(references))
    value: float = _bleu(tokeniser).sentence_score(prediction, references).score
    return min(value / 100, 1.0)


def _bleu_tokeniser(references: Sequence[str], script: Script) -> str:
    if script == "spaced":
        return "13a"
    return "char" if any(map(_NOT_CHINESE.search, references)) else "zh"


def chrf(prediction: str, references: Sequence[str]) -> float:
    """Sentence chrF2 against the best reference."""
    check_references(references)
    value: float = _chrf().sentence_score(prediction, references).score
    return min(value / 100, 1.0)


@cache
def _bleu(tokeniser: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokeniser, smooth_method="exp", effective_order=True)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()
