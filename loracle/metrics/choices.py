"""The letter or letters that an answer chooses from lettered options.

    "The answer is (B), because A ..."   -> {B}
    "故选：AC"                            -> {A, C}
    "B\\n\\nExplanation: option A ..."     -> {B}

At least what OpenCompass's `first_option_postprocess` reads, in Chinese and English. Unlike there,
a letter inside a word, an article ("A man"), a pronoun ("I") and a negated letter ("not A",
"不选A") choose nothing.

An answer is read by rules from the most to the least certain; the first rule that finds something
decides, and within a rule the first place in the text:

    a first line of letters alone · an announcement ("the answer is", "选") · the text's beginning ·
    a judgement ("B is correct", "B项正确") · "option B" · a last line or end of letters alone ·
    the only letter in brackets · the only letter

If the reference has several letters, judgements and options are collected over the whole text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from loracle.metrics.references import check_references

Letters = frozenset[str]

_MIN_ENUMERATED = 3
"""So many letters together, where one is asked for, name the options and choose none."""
_MAX_BARE = 60
"""Maximum length, in characters, of a text that may be only letters."""

# A letter must not be part of a word, an abbreviation (U.S.), a name (C++, A-share, A股) or a unit.
_LETTER = (
    r"(?<![A-Za-z0-9_\-'&/+])(?<![A-Za-z]\.)(?<!维生素)(?<!维他命)[A-Za-z]"
    r"(?![A-Za-z0-9_+#'&/]|\.[A-Za-z]\b|-\w|股|型|超|线|轮|级|语言|组|队|楼|座)"
)
_OPEN, _CLOSE = r"(?:[(\[【<{\"“「]{1,3}\s?)?", r"(?:\s?[)\]】>}\"”」]{1,3})?"
_ONE = rf"{_OPEN}{_LETTER}{_CLOSE}"
_LIST_END = r"(?=\s*(?:$|[.;。；!！\n)]|项|选项|都|均|两|三|四|are\b|both\b|正确|是))"
_JOINED = (
    rf"(?:\s*(?:、|和|与|及|以及|或|&|\band\b|\bor\b|,?\s*\band\b)\s*"
    rf"(?:选项|选|option )?{_ONE})"
)
_LOOSE = rf"(?:\s*[,，;；/ ]\s*{_ONE}|(?<=[)\]】])(?=[(\[【]){_ONE})"
# ABD: adjacent letters in order are several letters; BBC and DAB are words.
_RUN = (
    rf"{_OPEN}(?<![A-Za-z0-9_\-'.])(?-i:A?B?C?D?E?F?G?H?)(?<=(?-i:[A-H][B-H]))"
    rf"(?![A-Za-z0-9_+#'-]){_CLOSE}"
)
_LETTERS = (
    rf"(?P<letters>{_RUN}"
    rf"|{_ONE}(?:(?:{_JOINED}|{_LOOSE}){{0,25}}(?:{_JOINED}|{_LOOSE}{_LIST_END}))?)"
)

_WRAPPERS = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|operatorname)\s*\{([^{}]*)\}"
)
_QUOTED = re.compile(r"(?<![\w'])'([A-Za-z])'(?![\w'])")
_DECORATION = re.compile(r"[*`$~]|\\[()\[\]]|(?<!\w)_+|_+(?!\w)|</?[a-z]+>")

# What rejects the letter after it, directly before it.
_TURNED_DOWN_BEFORE = re.compile(
    r"(?:不|不能|不应|不应该|不该|不可|不可能|不会|并非|非|没有|别|勿|未|除了?|排除|而非"
    r"|\bnot|n't|\bnever|\bno|\bnor|\bneither|\bexcept|\bexcluding|\bthan|\binstead of"
    r"|\beliminat(?:e|ed|es|ing)|\brul(?:e|ed|es|ing) out|\bdiscard(?:ed)?|\breject(?:ed)?)"
    r"\s*(?:是|选择?|选项|为|be|the|an?|option|choice|answer|letter|correct|right)?"
    r"\s*(?:option|choice|answer|选项)?\s*[(\[【\"“]*\s*$",
    re.IGNORECASE,
)
# What rejects the letter before it, directly after it.
_TURNED_DOWN_AFTER = re.compile(
    r"[)\]】}]?\s*(?:选?项)?\s*[:：]?\s*[×✗✘❌]"
    r"|[)\]】}]?\s*(?:选?项)?\s*[:(]?\s*(?:是|显然|明显|也|就|说法|的说法|叙述|表述|都|均)*\s*"
    r"(?:错|不对|不正确|不符|不成立|不选|不是正确|不是答案|有误|不合|排除|不恰当|不准确)"
    r"|[)\]】}]?\s+(?:is|are|was|were|seems?|can|could|would|must|should)?\s*"
    r"(?:also |clearly |both |be )*(?:not\b|n't|isn't|aren't|wasn't|cannot|can't|incorrect"
    r"|wrong|false|ruled out|eliminated|invalid|inaccurate|excluded)",
    re.IGNORECASE,
)
# What only supposes the letter after it.
_SUPPOSED = re.compile(
    r"(?:如果|若|假如|假设|倘若)\s*(?:答案|正确答案)?\s*(?:选择?|是|为)?\s*(?:选项)?\s*$"
    r"|\bif\s+(?:it|(?:the\s+)?(?:correct\s+)?(?:answer|option|choice))\s*(?:is|were|was)?\s*$",
    re.IGNORECASE,
)
_RETRACTED = re.compile(
    r"\b(?:no[,.:;!]|wait\b|actually\b|correction\b|i mean\b|on second thought)"
    r"|不对|更正|纠正|等等",
    re.IGNORECASE,
)

_NOUN = r"(?:选项|选|答案|option|choice|answer|letter)"
_BE = r"(?:is|are|was|should be|would be|must be|has to be|will be|=|:|：|->|→|-)"
_ADVERB = (
    r"(?:therefore|thus|hence|clearly|definitely|simply|indeed|likely|probably|most likely|then"
    r"|obviously|actually|certainly|still|in fact|best described (?:as|by))"
)
_ANNOUNCEMENTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\\(?:boxed|fbox)\s*\{{\s*{_NOUN}?\s*[:：]?\s*{_LETTERS}",
        rf"####\s*{_NOUN}?\s*[:：]?\s*{_LETTERS}",
        rf"\banswers?(?:\s+(?:choice|option|letter))?(?:\s+(?:to|for|of)\s+(?:the|this|that)"
        rf"(?:\s+\w+)?)?\s*(?:{_BE}\s*)*(?:{_ADVERB},?\s*)*(?:the\s+)?"
        rf"(?:(?:correct|right|final)\s+)?{_NOUN}?\s*[:：]?\s*{_LETTERS}",
        rf"\b(?:option|choice|letter|one|statement)s?\s*(?:{_BE}\s*)+(?:{_ADVERB},?\s*)*"
        rf"{_NOUN}?\s*{_LETTERS}",
        r"\b(?:choose|chose|pick|picked|select|selected|go with|opt for|opted for|went with)\s+"
        rf"(?:the\s+)?{_NOUN}?\s*[:：]?\s*{_LETTERS}",
        r"\b(?:therefore|thus|hence|so)\b[,:]?\s*(?:it(?:'s| is| must be)\s+)?"
        rf"{_NOUN}?\s*{_LETTERS}(?=\s*(?:$|[.。!;\n]|\s(?:is|are)\s))",
        r"(?:答案|所以答|解答|故答)\s*[】\]]?\s*(?:选项|选择)?\s*(?:应该|应当|应|就|只能|只有|可能|显然|当然|最终|因此"
        r"|分别|依次|该|可以)*\s*(?:是|为|选择?|填|包括|有)*\s*(?:选项|字母)?\s*[:：]*\s*"
        rf"{_LETTERS}",
        rf"(?<!不)(?<!候)(?<!备)(?<!可)选(?!项|手)(?:择|取)?\s*(?:的?是|为|了|出)?\s*(?:答案|选项)?"
        rf"\s*[:：]?\s*{_LETTERS}",
        r"(?:正确|错误|不对|恰当|合适|合理|准确|符合(?:题意|要求)?|成立|有误|最佳)的?(?:选项|说法|答案|一项|叙述"
        rf"|表述|判断|做法|描述|结论)*\s*(?:应该|应当|应|就|只)?(?:是|为|有|包括|:|：)+\s*(?:选项)?\s*{_LETTERS}",
        rf"说法不?(?:对|正确|错误)?选?项?的?是\s*{_LETTERS}",
        r"(?:因此|所以|故|即|显然|综上所述|综上|可知|可得|由此可见|得出|得到|所有)[,，:：]?\s*(?:本题|该题|此题)?"
        rf"(?:为|是|应为)?\s*(?:选项)?\s*{_LETTERS}(?=\s*(?:$|[.。;；\n$]|选?项))",
        rf"(?P<despite>只有选?项?\s*{_LETTERS}\s*(?:是?对|是?错|不?正确|错误|不?符合|成立))",
    )
)
_JUDGEMENTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:选项|option|choice|answer)?\s*{_LETTERS}\s*(?:选?项)?\s*[:(]?\s*(?:说法|的说法|叙述|表述)?\s*"
        r"(?:是|为|才是|都|均|也|最)*\s*(?:正确|对的|对(?=\s*(?:$|[,.;，。；]))|符合|成立|答案|恰当|合适|准确"
        r"|无误|选)",
        rf"{_LETTERS}\s*(?:选?项)?\s*[:：]?\s*[√✓✔]",
        rf"{_LETTERS}\s+(?:is|are|was|would be|seems?|must be)\s+"
        r"(?:also\s+|both\s+|all\s+|clearly\s+)*(?:the\s+|an?\s+)?(?:\w+ly\s+)?(?:most\s+)?"
        r"(?:correct|right|true|best|accurate|appropriate|answer|valid|one\b)",
    )
)
_MENTIONS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:而是|就是|应是|应为|只有)\s*(?:选项)?\s*{_LETTERS}",
        r"\b(?:it|that|this|which)(?:'s| is| must be| has to be| should be| would be)\s+"
        rf"{_NOUN}?\s*{_LETTERS}",
        rf"(?:\boptions?|\bchoices?|选项)\s*(?:是|为|is)?\s*[:：]?\s*{_LETTERS}",
        rf"{_LETTERS}\s*选?项",
    )
)
_LABEL = (
    r"(?:(?:the\s+)?(?:correct\s+|final\s+|right\s+|best\s+)?(?:answer|option|choice)s?(?:\s+is)?"
    r"|选项?|(?:正确|最终)?答案(?:是|为)?|故?选|[1１][.、](?!\d))?\s*[:：]?\s*"
)
_BARE = re.compile(rf"{_LABEL}{_LETTERS}\s*(?:选?项)?[\s.。,，:：;；!、)\]}}]*", re.IGNORECASE)
_SPACED_LETTERS = re.compile(r"[A-Za-z](?:[\s,，、;；/|&+.]*[A-Za-z])*[\s.。]*")
_BEGINNING = re.compile(
    rf"\s*[-#>\s]*(?:选项|option|choice)?\s*{_LETTERS}"
    r"(?:\s*(?:$|[.,:;。，：；)\]】\n]|、(?!\s*[A-Z])|选?项)|\s*(?=[\u3400-\u9fff])(?!正确|是|对|符合|说法|都|均|也|错|不|和|与|及|以及|或)"
    r"|\s+(?=because|since|as\b|[-–—(\[])|(?P<loose>\s+)(?=\S))",
    re.IGNORECASE,
)
_ENDING = re.compile(rf"(?:[\s，：:,是为。故即]){_LETTERS}\s*(?:选?项)?\s*[。，,.!！\s]*$")
_BRACKETED = re.compile(r"[(\[【]\s*(?P<letters>[A-Z])\s*[)\]】]")
_ALONE = re.compile(rf"(?P<letters>{_LETTER})")
# What names the options before it lists them.
_OPENS_LIST = re.compile(
    r"\b(?:choices|options|statements|(?:possible|candidate) answers)\s*(?:are|is|were|given|:|=)"
    r"[^.。\n]{0,40}\W*$|\b(?:each|every|the) (?:option|choice|statement)\s*:?\s*\n\W*$"
    r"|选项(?:如下|有|包括|分别|分析)[^.。\n]{0,20}\W*$",
    re.IGNORECASE,
)
_SINGLED_OUT = re.compile(r"\b(?:correct|right|best|true|final|my)\b|正确|错误", re.IGNORECASE)
_LISTED = re.compile(r"^[ \t>-]*[(\[]?(?P<letters>[A-Z])[)\].、:：](?![A-Za-z]\.)", re.MULTILINE)
_AFTER_A_NOUN = re.compile(
    r"\b(?:vitamin|hepatitis|plan|type|group|team|grade|class|figure|fig\.?|table|appendix|part"
    r"|section|point|set|hemophilia|influenza|phase|version|model|series|mr\.?|mrs\.?)\s*$",
    re.IGNORECASE,
)
_FOLLOWS_AN_ARTICLE = re.compile(r"\s+(?!is\b|are\b|because\b|since\b|and\b|or\b|as\b)[A-Za-z]")


def choice(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction chooses exactly the letters of a reference.

    Case is ignored. A prediction that chooses no letter scores 0, as does a reference without one
    (`reads_reference` says which those are).
    """
    check_references(references)
    for reference in references:
        wanted = reference_letters(reference)
        if wanted and chosen(prediction, several=len(wanted) > 1) == wanted:
            return 1.0
    return 0.0


def reads_prediction(text: str) -> bool:
    """Whether the text chooses anything."""
    return chosen(text, several=True) is not None


def reads_reference(text: str) -> bool:
    """Whether the text is a letter, or letters, or clearly names one."""
    return reference_letters(text) is not None


def reference_letters(text: str) -> Letters | None:
    """The letters of a reference; None if it is another kind of text, such as "Vitamin C"."""
    plain = _plain(text)
    if found := _bare(plain):
        return found
    found = _announced(plain) or _first(_begun(plain))
    # As in an answer, a letter that has the first line to itself comes before what is announced.
    return (_bare(plain.lstrip().partition("\n")[0]) or found) if found else None


def is_bare(text: str) -> bool:
    """Whether the text is only a letter or letters: "B", "(b)", "A、C"."""
    if len(text) > _MAX_BARE:
        return False
    plain = _plain(text)
    # Adjacent small letters are a word.
    is_word = re.search("[a-z]{2}", plain) is not None and re.search("[A-Z]", plain) is None
    return not is_word and _bare(plain) is not None


def chosen(text: str, *, several: bool = False) -> Letters | None:
    """The letters that the text chooses; None if it chooses none.

    several: whether the question asks for several letters.
    """
    plain = _plain(text)
    lines = [line for line in plain.splitlines() if line.strip()]
    if not lines:
        return None
    if several and (found := _all_bare(lines)):
        return found
    if found := _bare(plain) or _bare(lines[0]) or _announced(plain):
        return found
    begun = next(_begun(plain), None)
    judged = begun is not None and begun["loose"] and next(_matches(_JUDGEMENTS, plain), None)
    if begun is not None and not judged:
        return _of(begun)
    for patterns in (_JUDGEMENTS, _MENTIONS):
        matches = list(_matches(patterns, plain))
        if several and matches:
            return _joined(matches)
        # "Of the options A, B, C and D" chooses none.
        if few := [match for match in matches if len(_of(match)) < _MIN_ENUMERATED]:
            return _of(few[0])
    if found := _bare(lines[-1]) or _ended(plain):
        return found
    for pattern in (_BRACKETED, _ALONE, _LISTED):
        matches = [m for m in pattern.finditer(plain) if _stands_alone(m, plain)]
        letters = _joined(matches)
        if len(letters) == 1 or (several and letters):
            return letters
    return None


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("\r\n", "\n")
    previous = ""
    while previous != text:
        previous, text = text, _WRAPPERS.sub(r"\1", text)
    return _QUOTED.sub(r"\1", _DECORATION.sub("", text))


def _of(match: re.Match[str]) -> Letters:
    without_words = re.sub(r"\b(?:and|or)\b", " ", match["letters"], flags=re.IGNORECASE)
    return frozenset(letter.upper() for letter in re.findall("[A-Za-z]", without_words))


def _joined(matches: Sequence[re.Match[str]]) -> Letters:
    return frozenset().union(*map(_of, matches))


def _first(matches: Iterator[re.Match[str]]) -> Letters | None:
    match = next(matches, None)
    return None if match is None else _of(match)


def _all_bare(lines: Sequence[str]) -> Letters | None:
    """The letters of lines that hold nothing else: a list with one letter a line."""
    found = [_bare(line.lstrip("-*• ")) for line in lines]
    return frozenset().union(*filter(None, found)) if all(found) else None


def _bare(line: str) -> Letters | None:
    """The letters of a line that contains nothing else."""
    line = line.strip().strip("()[]【】{}\"'“”「」. 。")
    if len(line) == 1 and line.isascii() and line.isalpha():
        return frozenset(line.upper())
    match = _BARE.fullmatch(line)
    if match and _is_meant(match, line):
        return _of(match)
    letters = re.findall("[A-Za-z]", line)
    is_rising = [*map(str.upper, letters)] == sorted({letter.upper() for letter in letters})
    if letters and is_rising and _SPACED_LETTERS.fullmatch(line) and letters[-1].upper() <= "H":
        return frozenset(letter.upper() for letter in letters)
    return None


def _announced(text: str) -> Letters | None:
    """The first announcement, or the next one if it is taken back."""
    matches = [*_matches(_ANNOUNCEMENTS, text)]
    if not matches:
        return None
    kept = matches[0]
    for match in matches[1:]:
        if match.start("letters") > kept.end("letters") and _RETRACTED.search(
            text, kept.end("letters"), match.start("letters")
        ):
            kept = match
    return _of(kept)


def _begun(text: str) -> Iterator[re.Match[str]]:
    """The letter that the text starts with, unless it lists several options by line."""
    listed = [match["letters"] for match in _LISTED.finditer(text)]
    # A list of the options is in order; after a choice, they may be discussed.
    if len(set(listed)) > 1 and listed[0] == min(listed):
        return
    match = _BEGINNING.match(text)
    if match is None or not _is_meant(match, text):
        return
    if (
        match["loose"]
        and _of(match) & {"A", "I"}
        and _FOLLOWS_AN_ARTICLE.match(text, match.end("letters"))
    ):
        return
    if match["loose"] and match["letters"].islower() and match["letters"].isalpha():
        return
    yield match


def _ended(text: str) -> Letters | None:
    match = _ENDING.search(text)
    if match is None or not _stands_alone(match, text):
        return None
    return _of(match)


def _matches(patterns: Sequence[re.Pattern[str]], text: str) -> Iterator[re.Match[str]]:
    """The matches of the patterns that really are a choice, in the order of the text."""
    found = [match for pattern in patterns for match in pattern.finditer(text)]
    for match in sorted(found, key=lambda match: (match.start("letters"), -match.end("letters"))):
        if _is_meant(match, text):
            yield match


def _is_meant(match: re.Match[str], text: str) -> bool:
    """Whether the letter is neither rejected nor a word ("a", "I")."""
    start, end = match.span("letters")
    before = text[max(0, start - 60) : start]
    if _OPENS_LIST.search(before) and not _SINGLED_OUT.search(before):
        return False
    if _TURNED_DOWN_BEFORE.search(before[-40:]) or _SUPPOSED.search(before[-40:]):
        return False
    if "despite" not in match.re.groupindex and _TURNED_DOWN_AFTER.match(text, end):
        return False
    written = match["letters"].strip('([{<【"“「 )]}>】”」')
    is_bracketed = text[start] in "([【" or text[start - 1 : start] in ("(", "[", "【", "{")
    if is_bracketed or written.upper() not in ("A", "I"):
        return written.isupper() or len(written) > 1 or written.islower()
    return not _FOLLOWS_AN_ARTICLE.match(text, end)


def _stands_alone(match: re.Match[str], text: str) -> bool:
    return (
        match["letters"].strip("([ )]").isupper()
        and _is_meant(match, text)
        and not _AFTER_A_NOUN.search(
            text[max(0, match.start("letters") - 20) : match.start("letters")]
        )
    )
