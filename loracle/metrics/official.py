"""Exact match and overlap of short answers, equal to the official scripts.

    squad_em, squad_f1   SQuAD v1.1 (Rajpurkar et al. 2016)
    cmrc_em, cmrc_f1     CMRC 2018 (Cui et al. 2019)

Code points are compared unchanged, without Unicode normalisation, as in the scripts.

Where a reference is empty after normalisation (`the`, `。`), EM is 1 for a prediction that is empty
too, but F1 is 0, for no token is shared: so in both scripts.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

from loracle.metrics.overlap import best, equality, harmonic_mean, overlap_f1

_PUNCTUATION = frozenset(string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def squad_em(prediction: str, references: Sequence[str]) -> float:
    """1.0 if a reference equals the prediction, both normalised as in SQuAD v1.1."""
    return best(equality, _squad_tokens, prediction, references)


def squad_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the words shared with the best reference, counted as often as they occur."""
    return best(overlap_f1, _squad_tokens, prediction, references)


def _squad_tokens(text: str) -> list[str]:
    """Words in lower case, without ASCII punctuation and English articles."""
    without_punctuation = "".join(char for char in text.lower() if char not in _PUNCTUATION)
    return _ARTICLE.sub(" ", without_punctuation).split()


# The script's own list: its "……" is two characters and so never removes one, and it has no ‘.
_CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CMRC_HAN = re.compile("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+")


def cmrc_em(prediction: str, references: Sequence[str]) -> float:
    """1.0 if a reference equals the prediction, both without the punctuation of CMRC 2018."""
    return best(equality, _cmrc_text, prediction, references)


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
    """Words and marks of a stretch without Han characters, as split by NLTK's word_tokenize.

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


def _longest_run_f1(predicted: list[str], reference: list[str]) -> float:
    num_shared = _longest_run_tokens(predicted, reference)
    return harmonic_mean(num_shared, len(predicted), len(reference))


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
