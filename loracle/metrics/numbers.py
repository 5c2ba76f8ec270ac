"""The number that an answer states.

    "17 + 25 = 42 apples."                      -> 42
    "... so she sold 18 (2 bags of 9) #### 18"  -> 18
    "The answer is \\\\boxed{\\\\frac{3}{4}}."      -> 3/4
    "一共三十五人"                               -> 35

If a text has several numbers, the one after `####` counts, else the one in the last
`\\boxed{}`, else the one announced ("the answer is", "答案是"), else the last one. A range, a time,
a date and a ratio are read as a whole and equal only the same kind: 3:30 is not 30, 3/4 is not 4.
A2 and CO2 contain no number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from loracle.metrics.numerals import plain_writing, with_chinese_numerals, with_mixed_numerals
from loracle.metrics.references import check_references

_MAX_DIGITS = 400
"""A longer numeral, or a power with more digits, is not read."""
_MAX_BARE = 60
"""Maximum length, in characters, of a text that may be only a number."""
_MAX_UNIT = 10
"""Maximum length, in characters, of the unit of a standalone number."""
_MAX_REGION = 2000
"""Characters that are read at once; some patterns look ahead or back from each character."""
_MAX_BOXES = 3
"""How many \\boxed{} are examined, from the end."""


class Reading(NamedTuple):
    """The number in a text. values: one value, or the parts if it is not a single number. A power
    or fraction is one value."""

    kind: Literal["number", "range", "time", "date", "ratio"]
    values: tuple[Fraction, ...]


def numeric(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction's number exactly equals that of a reference.

    3.0 equals 3 and 0.75 equals 3/4. Units and currencies are ignored; 50% is 50. English
    number words are not read. A prediction without a number scores 0, as does a reference without
    one (`reads` says which those are).
    """
    check_references(references)
    predicted = read_number(prediction)
    return float(predicted is not None and predicted in map(read_number, references))


def reads(text: str) -> bool:
    """Whether the text states a number."""
    return read_number(text) is not None


_AFTER_MARK = re.compile(r"####\s*([^\n]*)")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_ANNOUNCED = re.compile(
    r"(?:\banswers?(?:\s+to\s+\w+\s+\w+)?\s*(?:(?:is|are|equals|was|should be|would be|[:=])\s*)+"
    r"|(?:答案|结果|得数|总数)\s*(?:应该|应|就|分别)?\s*(?:是|为|[:：=])+\s*|(?:^|\n)\s*答\s*[:：])"
    r"(?P<region>[^\n。!?！？；;]*)",
    re.IGNORECASE,
)
# A full stop ends a sentence if no digit follows it.
_SENTENCE = re.compile(r"(?:[^.]|\.(?=\d)|(?<=[A-Z])\.)*")
_OPERATION = re.compile(r"\s*[-+×÷*/x]\s*[-(]?\s*\d")


def read_number(text: str) -> Reading | None:
    """The number that the text states; None if it states no readable number."""
    for region in _regions(text):
        if found := _readings(region):
            return found[-1]
    first, _, rest = text.lstrip().partition("\n\n")
    if rest.strip() and is_bare(first):
        # The answer first, and then what is said about it.
        return _last_number(first)
    return _last_number(text)


def _last_number(text: str) -> Reading | None:
    """The last number of a text of any length, looked through from its end in windows: time grows
    with the length, whatever stands there. Chinese numerals count only if there are no digits."""
    for spell in (_unchanged, with_chinese_numerals):
        end = len(text)
        while end > 0:
            start = _window_start(text, end)
            if _read_tokens(spell(_written(text[start:end]))):
                # Once more with what stands before: it may be the end of a range.
                whole = text[max(0, start - _MAX_REGION) : end]
                if found := _read_tokens(spell(_written(whole))):
                    return found[-1]
            end = start
    return None


def _window_start(text: str, end: int) -> int:
    """Where the window before `end` begins: at a line or a word, if one does."""
    first = end - _MAX_REGION
    if first <= 0:
        return 0
    for border in ("\n", " "):
        if (found := text.find(border, first, end - 1)) >= 0:
            return found + 1
    return first


def _unchanged(text: str) -> str:
    return text


def has_marked_number(text: str) -> bool:
    """Whether the text ends like GSM8K's, with `#### 42`."""
    marked = _AFTER_MARK.search(text)
    return marked is not None and bool(_readings(marked[1][:_MAX_REGION]))


def is_bare(text: str) -> bool:
    """Whether the text is only a number, with its sign, unit or currency."""
    if len(text) > _MAX_BARE:
        return False
    written = _written(text).strip()
    tokens = list(_tokens(written))
    if len(tokens) != 1 or not reads(text):
        return False
    rest = written[: tokens[0].start()] + written[tokens[0].end() :]
    return len(rest.split()) <= 1 and len(rest.strip()) <= _MAX_UNIT


def _regions(text: str) -> Iterator[str]:
    """Where to look for the number before the whole text, the most certain place first."""
    if marked := _AFTER_MARK.search(text):
        yield _one_statement(marked[1][:_MAX_REGION])
    yield from reversed(list(_boxes(text)))
    if announced := _ANNOUNCED.search(text):
        region = announced["region"][:_MAX_REGION]
        yield _one_statement((_SENTENCE.match(region) or announced)[0][:_MAX_REGION])


def _boxes(text: str) -> Iterator[str]:
    """The contents of the last \\boxed{}, including inner braces."""
    for match in [*_BOXED.finditer(text)][-_MAX_BOXES:]:
        depth, end = 1, match.end()
        while end < min(len(text), match.end() + _MAX_DIGITS) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if not depth:
            yield text[match.end() : end - 1]


def _one_statement(region: str) -> str:
    """The part of an announcement that holds its number: after the last "=", else through the first
    number, unless that is the start of an operation."""
    region = _written(region)
    region = region.rpartition("=")[2] if _readings(region.rpartition("=")[2]) else region
    tokens = list(_tokens(region))
    if len(tokens) > 1 and not _OPERATION.match(region, tokens[0].end()):
        is_range = _is_range(region, tokens[0], tokens[1])
        return region[: tokens[1 if is_range else 0].end()]
    return region


# A decimal, or digits with an exponent; never a piece of a longer number or of a name.
_CORE = r"(?:\d+(?:\.\d+)?|\.\d+)"
_NUMBER = rf"{_CORE}(?:[eE][-+]?\d{{1,3}}(?!\d))?"
_POWER = r"(?:\s*(?:\^|\*\*)\s*\(?\s*[-+]?\d{1,4}\)?)"
_TEN = rf"(?:\s*[×x*·⋅]\s*10{_POWER})"
# The sign belongs to the number unless it is between two operands, as in "x-3" and "(2)-3".
_SIGN = r"(?:(?<![A-Za-z0-9)\]%])[-+])?"
_START = r"(?<![A-Za-z0-9_^√])(?<!\d[.:])(?<!\^-)(?<!\^[+(])"
_BEHIND = r"(?![\d])(?!\s*[π√])(?!\^)"

_TOKEN = re.compile(
    rf"(?P<date>{_START}\d+(?P<mark>[-/.])\d+(?P=mark)\d+(?:(?P=mark)\d+)*(?!\d))"
    rf"|(?P<day>{_START}(?:\d{{4}}年\d{{1,2}}月(?:\d{{1,2}}[日号])?|\d{{1,2}}月\d{{1,2}}[日号]))"
    rf"|(?P<clock>{_START}\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?![\d:])(?:\s?(?P<half>[AaPp])\.?[Mm]\b\.?)?)"
    rf"|(?P<ratio>{_START}{_CORE}(?:\s?:\s?{_CORE})+(?![\d:]))"
    rf"|(?P<oclock>{_START}\d{{1,2}}[点时](?:\d{{1,2}}分|半)(?!之))"
    rf"|(?P<mixed>{_START}{_SIGN}\d+(?:\s+|\s*-\s*|\s+and\s+|又\s*)\d+\s?/\s?\d+)(?![\d/]|\.\d)"
    rf"|(?P<quotient>{_START}{_SIGN}{_CORE}\s?/\s?-?{_CORE}){_BEHIND}(?!/)"
    rf"|(?P<power>{_START}{_SIGN}{_NUMBER}(?:{_TEN}|{_POWER}))(?!\d)(?!\.\d)(?!\s*[π√])"
    rf"|(?P<number>{_START}{_SIGN}{_NUMBER}){_BEHIND}"
)
_SCALE = re.compile(
    r"\s?(?P<word>hundred|thousand|million|billion|trillion|dozen)s?\b"
    r"|(?P<letter>k|bn)(?![A-Za-z0-9])(?!\s?/)",
    re.IGNORECASE,
)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SCALES |= {"trillion": 10**12, "dozen": 12, "k": 1000, "bn": 10**9}
_RANGE = re.compile(r"\s?[%°A-Za-z元个岁年米月日天人]{0,4}\s*(?:-|~|〜|至|到|\bto\b)\s*")


def _written(text: str) -> str:
    return with_mixed_numerals(plain_writing(text))


def _readings(region: str) -> list[Reading]:
    """The numbers of the region in order. Chinese numerals count only if there are no digits: in
    texts with digits they are mostly words, as in 一个."""
    written = _written(region)
    return _read_tokens(written) or _read_tokens(with_chinese_numerals(written))


def _tokens(text: str) -> Iterator[re.Match[str]]:
    return _TOKEN.finditer(text)


def _read_tokens(text: str) -> list[Reading]:
    found: list[Reading] = []
    previous: re.Match[str] | None = None
    for token in _tokens(text):
        reading = _reading(token)
        if reading is None:
            previous = None
            continue
        if previous is not None and _is_range(text, previous, token):
            reading = Reading("range", (found[-1].values[0], reading.values[0]))
            found.pop()
        found.append(reading)
        previous = token if reading.kind == "number" else None
    return found


def _is_range(text: str, first: re.Match[str], second: re.Match[str]) -> bool:
    """Whether the two are the ends of a range: 3-5, 3 to 5. From a larger to a smaller number, or
    after "from", they are two numbers."""
    one, other = _reading(first), _reading(second)
    if one is None or other is None or (one.kind, other.kind) != ("number", "number"):
        return False
    if re.search(r"(?:\bfrom|从|由)\s*$", text[: first.start()], re.IGNORECASE):
        return False
    joined = _RANGE.fullmatch(text, first.end(), second.start())
    return joined is not None and one.values[0] < other.values[0]


def _reading(token: re.Match[str]) -> Reading | None:
    kind = token.lastgroup if token.lastgroup not in ("mark", "half") else None
    written = token[0]
    if len(written) > _MAX_DIGITS:
        return None
    if token["date"] or token["day"]:
        return Reading("date", _whole_numbers(written))
    if token["clock"]:
        return Reading("time", _clock(_whole_numbers(written), token["half"]))
    if token["oclock"]:
        parts = _whole_numbers(written)
        return Reading("time", _clock(parts if len(parts) == 2 else (*parts, Fraction(30)), None))
    if token["ratio"]:
        return Reading("ratio", tuple(Fraction(part) for part in written.split(":")))
    value = _value(kind or "number", written)
    if value is None:
        return None
    if scale := _SCALE.match(token.string, token.end()):
        value *= _SCALES[(scale["word"] or scale["letter"]).lower()]
    return Reading("number", (value,))


def _whole_numbers(written: str) -> tuple[Fraction, ...]:
    return tuple(Fraction(part) for part in re.findall(r"\d+", written))


def _clock(parts: tuple[Fraction, ...], half: str | None) -> tuple[Fraction, ...]:
    """Hours, minutes and seconds of the day; 3:30 pm is 15:30."""
    hours, *rest = parts
    if half and half in "Pp" and hours < 12:
        hours += 12
    if half and half in "Aa" and hours == 12:
        hours = Fraction(0)
    return (hours, *rest, *[Fraction(0)] * (2 - len(rest)))


def _value(kind: str, written: str) -> Fraction | None:
    if kind == "mixed":
        whole, above, below = (Fraction(part) for part in re.findall(r"\d+", written))
        if not below:
            return None
        value = whole + above / below
        return -value if written.startswith("-") else value
    if kind == "quotient":
        above, below = (_fraction(part) for part in written.split("/"))
        return above / below if below else None
    if kind == "power":
        return _power(written)
    return _fraction(written)


def _fraction(written: str) -> Fraction:
    return Fraction(written.strip().replace("+", "") or 0)


def _power(written: str) -> Fraction | None:
    compact = re.sub(r"[\s()]", "", written).replace("**", "^")
    base, _, exponent = compact.partition("^")
    factor = Fraction(1)
    if times := re.fullmatch(r"(.+)[×x*·⋅](10)", base):
        factor, base = _fraction(times[1]), times[2]
    is_negative = base.startswith("-")
    value, power = abs(_fraction(base)), int(exponent)
    if (not value and power <= 0) or abs(power) * len(base) > _MAX_DIGITS:
        return None
    # -2^2 is -4.
    return factor * (-(value**power) if is_negative else value**power)
