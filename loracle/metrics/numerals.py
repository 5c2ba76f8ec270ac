"""Numbers in any notation, converted to one plain form: digits, with a point for fractions.

    "$9{,}500"       -> "9500"        "1.5 × 10³"     -> "1.5×10^3"
    "1 234 567,8"    -> "1234567.8"   "\\frac{1}{2}"   -> "1/2"
    "三万五千"        -> "35000"       "百分之五"       -> "5%"

A grouping is undone only where it is unambiguous: 1,234 and 1'234 and 1 234 and 1.234.567 and
1.234,5 are groups of thousands; 1.234 is a decimal and 12,34 are two numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞↉]")
_MINUS_SIGNS = str.maketrans(dict.fromkeys("−–‐‑‒﹣－", "-"))
_CURRENCY = "$€£¥₹₩₽"

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def _rule(pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> Rule:
    return re.compile(pattern), replacement


_LATEX: tuple[Rule, ...] = (
    _rule(r"\\\$", "$"),
    _rule(r"\\%", "%"),
    _rule(r"\{,\}", ","),
    _rule(r"(?<=\d)\\[,;:! ](?=\d)", " "),
    _rule(r"\\[,;:!]|\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])", " "),
    _rule(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])", " "),
    _rule(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}", r" \1 "),
    _rule(r"(?<![\w)])(?<![\w)] )-\s*(?=\\[dtc]?frac)", "-"),
    _rule(r"(-?)\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1\2/\3 "),
    _rule(r"\\[dtc]?frac\s*(\d)\s*(\d)", r" \1/\2 "),
    _rule(r"\^\s*\{\s*([-+]?\d+)\s*\}", r"^\1"),
    _rule(r"\\(?:times|cdot)(?![A-Za-z])", "×"),
    _rule(r"\\div(?![A-Za-z])", "÷"),
    _rule(r"\\(?:approx|equiv|simeq|sim)(?![A-Za-z])", "="),
    _rule(r"\\pi(?![A-Za-z])", "π"),
    _rule(r"\\sqrt(?:\[[^\]]*\])?\s*\{?", "√"),
    _rule(r"\\[()\[\]]|\\\\", " "),
)

_SIGN_WORDS = r"(?:负|\bminus\s|\bnegative\s)\s*(?=[\d.零一二两三四五六七八九十百$€£¥])"
_CODES = r"(?<![A-Za-z])(?:RMB|CNY|USD|EUR|GBP|JPY|HKD|INR|KRW|US|HK|NT|Rs\.?)\s?(?=[-\d$])"
_CURRENCY_GROUP = rf"[{_CURRENCY}]"

_WRITING: tuple[Rule, ...] = (
    _rule(r"(?<!\w)0[xX][0-9A-Fa-f]+\b", " "),
    _rule(_SIGN_WORDS, " -"),
    _rule(_CODES, " "),
    _rule(rf"(?<![\w)])-\s*{_CURRENCY_GROUP}\s*(?=[\d.])", " -"),
    _rule(rf"(?<!\d){_CURRENCY_GROUP}\s*-\s*(?=[\d.])", " -"),
    # A number between dollar signs is LaTeX, and one after a sign is money.
    _rule(_CURRENCY_GROUP, " "),
    _rule(r"(?<=[=:(])\s*-\s+(?=[\d.])", " -"),
    _rule(
        r"\*{2,}(?!\d)|(?<!\d)\*{2,}|(?<![\d*])\*|\*(?![\s*]*\d)|[`]|(?<![\w])_+|_+(?![\w])", " "
    ),
)

_GROUPED: tuple[Rule, ...] = tuple(
    _rule(rf"(?<![\d.,'_])(?<!\d )({pattern})(?![\d]|[.,'_ ]\d{{3}}(?!\d))", join)
    for pattern, join in (
        (r"\d{1,3}(?:\.\d{3}){1,9},\d+", lambda m: m[1].replace(".", "").replace(",", ".")),
        (r"\d{1,3}(?: \d{3}){1,9},\d+", lambda m: m[1].replace(" ", "").replace(",", ".")),
        (r"\d{1,3}(?:\.\d{3}){2,9}", lambda m: m[1].replace(".", "")),
        (r"\d{1,3}(?:,\d{3}){1,9}(?:\.\d+)?", lambda m: m[1].replace(",", "")),
        (r"\d{1,2}(?:,\d{2}){1,9},\d{3}(?:\.\d+)?", lambda m: m[1].replace(",", "")),
        (r"[1-9]\d{0,2}(?:'\d{3}){1,9}(?:\.\d+)?", lambda m: m[1].replace("'", "")),
        (r"[1-9]\d{0,2}(?:_\d{3}){1,9}(?:\.\d+)?", lambda m: m[1].replace("_", "")),
        (r"[1-9]\d{0,2}(?: \d{3}){1,9}(?:\.\d+)?", lambda m: m[1].replace(" ", "")),
    )
)


def plain_writing(text: str) -> str:
    """The text with its numbers in plain form; everything else is unchanged."""
    text = _SUPERSCRIPT_RUN.sub(lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    text = _VULGAR_FRACTION.sub(lambda m: f" {unicodedata.normalize('NFKC', m[0])} ", text)
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/").replace("’", "'")
    text = text.translate(_MINUS_SIGNS)
    for rules in (_LATEX, _WRITING, _GROUPED):
        for pattern, replacement in rules:
            text = pattern.sub(replacement, text)
    return text


_DIGITS = {digit: value for value, digit in enumerate("〇一二三四五六七八九")}
_DIGITS |= {digit: value for value, digit in enumerate("零壹贰叁肆伍陆柒捌玖")} | {"两": 2, "俩": 2}
_UNITS = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "兆": 10**12}
_ALL = "".join([*_DIGITS, *_UNITS, *_MYRIADS])
_NUMERAL = rf"(?:\d+(?:\.\d+)?|[{_ALL}])"

CHINESE_NUMERAL = re.compile(rf"[{_ALL}]+(?:点[{''.join(_DIGITS)}]+)?")
# Digits with Chinese units: 3.5万, 1亿2000万, 3万5千. Kilograms (5千克) are not thousands.
_MIXED = re.compile(
    r"(?<![\d.])\d+(?:\.\d+)?\s?(?:[百佰千仟](?![米克瓦卡帕赫])|[万萬亿億兆])"
    r"(?:\d+(?:\.\d+)?(?:[百佰千仟](?![米克瓦卡帕赫])|[万萬亿億兆])?|[万萬亿億])*"
)


def with_mixed_numerals(text: str) -> str:
    """3.5万 -> 35000, 1亿2000万 -> 120000000, 3分之1 -> 1/3, 三又二分之一 -> 3 1/2."""
    text = _PART_OF.sub(_part_of, _WHOLE_AND_PART_OF.sub(_whole_and_part_of, text))
    return _MIXED.sub(lambda m: _mixed_value(m[0]), text)


def _mixed_value(written: str) -> str:
    total, section, number = Fraction(0), Fraction(0), Fraction(0)
    for part in re.findall(r"\d+(?:\.\d+)?|[^\d\s]", written):
        if part[0].isdigit():
            number = Fraction(part) if len(part) < 400 else Fraction(0)
        elif part in _UNITS:
            section, number = section + number * _UNITS[part], Fraction(0)
        else:
            total, section, number = (
                (total + section + number) * _MYRIADS[part]
                if (total and total < _MYRIADS[part])
                else total + (section + number) * _MYRIADS[part],
                Fraction(0),
                Fraction(0),
            )
    return _decimal(total + section + number)


def _decimal(value: Fraction) -> str:
    """A value whose denominator has no prime factors other than 2 and 5, as a decimal."""
    whole, rest = divmod(value, 1)
    digits = ""
    while rest:
        digit, rest = divmod(rest * 10, 1)
        digits += str(digit)
    return f"{whole}.{digits}" if digits else str(whole)


# A numeral of one character is a word as often as a number (一起, 十分): it counts if it stands
# alone or before a measure word.
_MEASURES = (
    "个只块元岁年月日天人本次米条张名位件枚台辆棵头匹座层间支双套页句字口杯瓶斤克吨里秒分小时种组倍成角"
    "号点度步颗根箱盒包袋排行列道题票架艘朵片顶把桶周"
)
_ONE_CHARACTER = re.compile(
    rf"(?:(?<![\u3400-\u9fff])|(?<=[第是为有共得剩需约买卖等于]))[{_ALL}](?=$|[^\u3400-\u9fff]|[{_MEASURES}])"
)
_WORDS = re.compile(
    r"千万(?=别|不|要)|万一|(?<![一二两三四五六七八九百])十分(?!之|钟)|百分(?!之)|百度|一一|千百|成千上万|三三两两|七八"
)
_WHOLE_AND_PART_OF = re.compile(rf"([{_ALL}\d]+)又([{_ALL}\d]+)分之([{_ALL}\d]+)")
_PART_OF = re.compile(rf"(-?)([{_ALL}\d]+)分之([{_ALL}\d.]+)")


def with_chinese_numerals(text: str) -> str:
    """三十五 -> 35, 百分之五 -> 5%, 三分之一 -> 1/3."""
    text = _WORDS.sub(" ", _CLOCK.sub(_clock, text))
    return CHINESE_NUMERAL.sub(_chinese_digits, text)


def _part_of(match: re.Match[str]) -> str:
    sign = match[1]
    whole, part = _of_numeral(match[2]), _of_numeral(match[3])
    if whole is None or part is None or not whole:
        return match[0]
    return f" {sign}{part}%" if whole == "100" else f" {sign}{part}/{whole} "


def _whole_and_part_of(match: re.Match[str]) -> str:
    whole, below, above = (_of_numeral(match[group]) for group in (1, 2, 3))
    if whole is None or above is None or below is None or not whole or below == "0":
        return match[0]
    return f" {whole} {above}/{below} "


def _of_numeral(written: str) -> str | None:
    if re.fullmatch(r"\d+(?:\.\d+)?", written):
        return written
    return None if re.search(r"[\d.]", written) else chinese_value(written)


_CLOCK = re.compile(rf"([{_ALL}]+)点([{_ALL}]+)分(?!之)")


def _clock(match: re.Match[str]) -> str:
    """六点三十分 -> 6点30分."""
    hours, minutes = chinese_value(match[1]), chinese_value(match[2])
    return match[0] if hours is None or minutes is None else f"{hours}点{minutes}分"


def _chinese_digits(match: re.Match[str]) -> str:
    written = match[0]
    after = match.string[match.end() : match.end() + 1]
    if len(written) == 1 and not (
        _ONE_CHARACTER.match(match.string, match.start()) or after == "又"
    ):
        return written
    value = chinese_value(written)
    return written if value is None else value


def chinese_value(written: str) -> str | None:
    """The value of a Chinese numeral in digits; None if it is invalid, such as 百百."""
    whole, _, decimals = written.partition("点")
    value = _chinese_whole(whole)
    if value is None:
        return None
    fraction = "".join(str(_DIGITS[char]) for char in decimals)
    return f"{value}.{fraction}" if fraction else str(value)


def _chinese_whole(written: str) -> int | None:
    if all(char in _DIGITS for char in written):
        # 二〇二四, read digit by digit. 一二 is one or two.
        is_year = len(written) != 2 or "零" in written or "〇" in written
        return int("".join(str(_DIGITS[char]) for char in written[:300])) if is_year else None
    total = section = 0
    digit: int | None = None
    last_unit = 0
    for char in written:
        if char in _DIGITS:
            if digit:
                return None
            digit, last_unit = _DIGITS[char], last_unit if _DIGITS[char] else 0
        elif char in _UNITS:
            unit = _UNITS[char]
            section += (1 if digit is None else digit) * unit
            digit, last_unit = None, unit
        else:
            unit = _MYRIADS[char]
            section += digit or 0
            if not section and not total:
                return None
            total = (total + section) * unit if total < unit else total + section * unit
            section, digit, last_unit = 0, None, unit
    # 一百二 is 120 and 三万五 is 35000: a digit at the end takes the next unit down.
    last = (digit or 0) * (last_unit // 10 if last_unit >= 100 else 1)
    return total + section + last
