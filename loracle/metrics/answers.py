"""Exact match and overlap of short answers.

    squad_em, squad_f1   the official SQuAD v1.1 script (Rajpurkar et al. 2016)
    cmrc_em, cmrc_f1     the official CMRC 2018 script (Cui et al. 2019)
    em, f1               words as SQuAD, or characters, by the references' script (`script_of`)

Unicode: the official metrics compare code points as they come, as their scripts do. The metric by
characters first applies NFKC, so full-width and half-width forms are equal.

Where a reference is empty after normalisation (`the`, `。`), EM is 1 for a prediction that is empty
too, but F1 is 0, for no token is shared: so in both official scripts.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np

from loracle.metrics.references import check_references

Script = Literal["spaced", "characters"]

_PUNCTUATION = frozenset(string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def squad_em(prediction: str, references: Sequence[str]) -> float:
    """1.0 where a reference equals the prediction, both normalised as SQuAD v1.1 does."""
    return best(_equality, _squad_tokens, prediction, references)


def squad_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the words shared with the best reference, counted as often as they occur."""
    return best(_overlap_f1, _squad_tokens, prediction, references)


def _squad_tokens(text: str) -> list[str]:
    """Words in lower case, without ASCII punctuation and English articles."""
    without_punctuation = "".join(char for char in text.lower() if char not in _PUNCTUATION)
    return _ARTICLE.sub(" ", without_punctuation).split()


# The scripts written without spaces between words: Han, kana and bopomofo, Thai, Lao, Tibetan,
# Burmese, Khmer. Their digits and punctuation are not in it, nor is Hangul, which has spaces.
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
# These divide words where no space does, except inside a number.
_SEPARATOR = re.compile(r"(?<!\d)[，、；。]|[，、；。](?!\d)")


def script_of(references: Sequence[str]) -> Script:
    """The tokens of `em` and `f1`: `characters` where any reference has a character of a script
    that is written without spaces, else `spaced`.

    The references decide and never the prediction, so that no candidate chooses its metric. An
    answer of digits alone is spaced, also in a Chinese set.
    """
    check_references(references)
    is_unspaced = any(_UNSPACED_CHARACTER.search(reference) for reference in references)
    return "characters" if is_unspaced else "spaced"


def em(prediction: str, references: Sequence[str]) -> float:
    """1.0 where a reference has the prediction's tokens in its order (`script_of` for which)."""
    return best(_equality, tokens_by_script(references), prediction, references)


def f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the tokens shared with the best reference, counted as often as they occur."""
    return best(_overlap_f1, tokens_by_script(references), prediction, references)


def tokens_by_script(references: Sequence[str]) -> Callable[[str], list[str]]:
    return character_tokens if script_of(references) == "characters" else _squad_tokens


def character_tokens(text: str) -> list[str]:
    """One token for each character of an unspaced script, with the combining marks on it; what
    stands between them is split at white space, without articles.

    Before that: NFKC, lower case; punctuation of any script and invisible format characters (byte
    order mark, zero-width space) are removed.
    """
    text = unicodedata.normalize("NFKC", _SEPARATOR.sub(" ", text)).lower()
    kept = "".join(char for char in text if not _is_dropped(char))
    tokens: list[str] = []
    for piece in _CHARACTER_OR_WORD.findall(_ARTICLE.sub(" ", kept)):
        if tokens and unicodedata.category(piece[0]).startswith("M"):
            tokens[-1] += piece
        else:
            tokens.append(piece)
    return tokens


def _is_dropped(char: str) -> bool:
    category = unicodedata.category(char)
    return char in _PUNCTUATION or category.startswith("P") or category == "Cf"


# The script's own list: its "……" is two characters and so never removes one, and it has no ‘.
_CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CMRC_HAN = re.compile("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+")


def cmrc_em(prediction: str, references: Sequence[str]) -> float:
    """1.0 where a reference equals the prediction, both without the punctuation of CMRC 2018."""
    return best(_equality, _cmrc_text, prediction, references)


def cmrc_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 by the longest run of tokens that is in both, for the best reference.

    Tokens are Han characters and, between them, English words and marks. The official script cuts
    those with NLTK's word_tokenize; `_english_tokens` says where this may differ.
    """
    return best(_longest_run_f1, _cmrc_tokens, prediction, references)


def _cmrc_text(text: str) -> str:
    return "".join(char for char in text.lower().strip() if char not in _CMRC_PUNCTUATION)


def _cmrc_tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for piece in _CMRC_HAN.findall(_cmrc_text(text)):
        tokens += [piece] if "\u4e00" <= piece[0] <= "\u9fa5" else _english_tokens(piece)
    return tokens


# NLTK's rules in their order, for text in lower case without `_CMRC_PUNCTUATION`: what can match
# nothing there is left out. Each sets spaces around a token.
_ENGLISH_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[«‘„]", r" \g<0> "),
        (r'^"', " `` "),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` "),
        (r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
        (r"""(?<=[^.])\.([])}>"'» ]*+)\s*$""", r" . \1 "),
        (r",(?=\D)", " , "),
        (r",$", " , "),
        (r"\.{2,}|[;@#$%&]|[\u2012-\u2015]|[?!]", r" \g<0> "),
        (r"(?<=[^'])' ", " ' "),
        (r"[][(){}<>»]", r" \g<0> "),
        (r"''|\"", " '' "),
        (r"$", " "),
        (r"\s+", " "),
        (r"(?<=[^' ])(?:'[smd]?) ", r" \g<0>"),
        (r"(?<=[^' ])(?:'ll|'re|'ve|n't) ", r" \g<0>"),
        (
            r"\b(can(?=not)|(?:gim|lem)(?=me)|gon(?=na)|wan(?=na\s)|got(?=ta)|d(?='ye)|more(?='n))"
            r"(not|me|na|ta|'ye|'n)\b",
            r" \1 \2 ",
        ),
        (r" ('t)(is|was)\b", r" \1 \2 "),
    )
)


def _english_tokens(text: str) -> list[str]:
    """Words and marks of a stretch without Han characters, as NLTK's word_tokenize cuts them.

    Equal to NLTK 3.10 but for one thing: where a full stop stands inside the stretch, NLTK's
    trained Punkt model decides whether it ends a sentence and becomes a token. Here
    `_ends_sentence` decides, by rules that follow Punkt's; they know fewer abbreviations.
    """
    tokens: list[str] = []
    for sentence in _sentences(text):
        for pattern, replacement in _ENGLISH_RULES:
            sentence = pattern.sub(replacement, sentence)
        tokens += sentence.split()
    return tokens


# A mark that may end a sentence, the word before it, what closes the sentence, what follows.
_SENTENCE_END = re.compile(
    r"""(?:(?<![\w.])(?P<word>\w++(?:\.\w++)*+))?(?P<mark>(?<!\.)\.++|[?!])"""
    r"""(?:["')\]}‘«»]++(?=\s|$)|(?=["';@)\]}({[‘«»?!])|(?=\s+(?P<next>\S)))"""
)
_ABBREVIATIONS = frozenset(
    """a.d a.m adm aug ave bros c cie co col corp d d.c dec dr e f feb fri ft g gen h inc jan jr k l
    l.a lt ltd m maj mg mr mrs ms n n.y nov oct p p.m ph.d prof r rep s s.a sen sep sept sr st t
    tues u.k u.n u.s u.s.a v vs w wed yr""".split()  # noqa: SIM905
)


def _sentences(text: str) -> list[str]:
    ends = [found.end() for found in _SENTENCE_END.finditer(text) if _ends_sentence(found)]
    return [text[i:j].strip() for i, j in zip([0, *ends], [*ends, len(text)], strict=True)]


def _ends_sentence(found: re.Match[str]) -> bool:
    """Any mark does, but `...`, and a full stop after an abbreviation or between a number, or one
    letter, and a word in lower case."""
    word, mark, following = found["word"] or "", found["mark"], found["next"] or ""
    if mark != ".":
        return mark in "?!"
    is_number_or_letter = len(word) == 1 or word.replace(".", "").isdigit()
    return word not in _ABBREVIATIONS and not (is_number_or_letter and following.islower())


_Form = TypeVar("_Form", str, list[str])


def best(
    compare: Callable[[_Form, _Form], float],
    normalise: Callable[[str], _Form],
    prediction: str,
    references: Sequence[str],
) -> float:
    """The highest value of `compare` over the references, both sides normalised."""
    check_references(references)
    predicted = normalise(prediction)
    return max(compare(predicted, normalise(reference)) for reference in references)


def _equality(predicted: _Form, reference: _Form) -> float:
    return float(predicted == reference)


def _overlap_f1(predicted: list[str], reference: list[str]) -> float:
    num_shared = sum((Counter(predicted) & Counter(reference)).values())
    return harmonic_mean(num_shared, len(predicted), len(reference))


def _longest_run_f1(predicted: list[str], reference: list[str]) -> float:
    num_shared = _longest_run_tokens(predicted, reference)
    return harmonic_mean(num_shared, len(predicted), len(reference))


def harmonic_mean(num_shared: int, num_predicted: int, num_reference: int) -> float:
    """F1 of precision and recall, in the official scripts' order of operations."""
    if num_shared == 0:
        return 0.0
    precision = num_shared / num_predicted
    recall = num_shared / num_reference
    return 2 * precision * recall / (precision + recall)


def _longest_run_tokens(first: list[str], second: list[str]) -> int:
    """Length of the longest run of tokens in both. Memory grows with one side, not with both."""
    shorter, longer = sorted((first, second), key=len)
    number_of = {token: number for number, token in enumerate(dict.fromkeys(longer))}
    longer_L = np.array([number_of[token] for token in longer], dtype=np.int32)
    # runs_L[i]: how many tokens up to the current one equal those of `longer` that end before i.
    runs_L = np.zeros(len(longer) + 1, dtype=np.int32)
    longest = 0
    for token in shorter:
        runs_L[1:] = np.where(longer_L == number_of.get(token, -1), runs_L[:-1] + 1, 0)
        longest = max(longest, int(runs_L.max()))
    return longest
