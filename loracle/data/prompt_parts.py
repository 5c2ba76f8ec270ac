"""Where the question and the passage are in a row's prompt.

    Context: The Broncos won the 2015 season's final in Santa Clara.      passage
    Question: Who won?                                                    question

If the format keeps the two apart, it says so (`Example.question`). In plain messages they are found
by the text alone: a labelled line ("Question:", "问题："), else the last or the first line that
ends in a question mark, else the shorter of the first and the last line. A text of one line is a
question as a whole; only if it is long (PROTECTED_CHARACTERS) do its middle sentences count as
passage, because the question is somewhere in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from loracle.data.conversation import Example

PROTECTED_CHARACTERS = 400
"""A line up to this length is never cut into sentences."""
MIN_PASSAGE_BYTES = 80
"""A line of this many bytes in UTF-8 is long enough to be a passage: 80 letters, or 27 Han
characters."""

_QUESTION_LABEL = re.compile(
    r"^[ \t]*(?:question|query|q|问题|问|提问|質問|問題|질문|pregunta|frage|вопрос)[ \t]*[:：]",
    re.IGNORECASE | re.MULTILINE,
)
_OTHER_LABEL = re.compile(
    r"^[ \t]*(?:context|passage|paragraph|document|text|article|background|input|answer|"
    r"上下文|文章|段落|背景|材料|原文|资料|答案|回答|本文|コンテキスト|문맥|contexto|kontext|контекст)"
    r"[ \t]*[:：]",
    re.IGNORECASE | re.MULTILINE,
)
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_SENTENCE = re.compile(r"[^.!?。！？]*(?:[.!?。！？]+[\"'”’)\]]*|$)\s*")
_QUESTION_END = re.compile(r"[?？][\"'”’)\]]*\s*$")


class TextSpan(NamedTuple):
    """A stretch of one text: `text[start:stop]`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Parts(NamedTuple):
    """An example's prompt, taken apart.

    question: the last user turn's question. passages: the other lines of its system and user
    turns, in order, without empty ones. question_first: the question comes before the passage.
    """

    question: str
    passages: tuple[str, ...]
    question_first: bool


def parts_of(example: Example) -> Parts:
    """Take apart what comes before an example's last assistant turn."""
    messages = example.conversation.prompt.messages
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
    question, question_first = "", False
    passages: list[str] = []
    for index, message in enumerate(messages):
        if message.role == "system":
            passages += _lines(message.content)
        if message.role != "user":
            continue
        known = example.question if index == last else None
        spans = question_spans(message.content, known)
        rest = _rest(message.content, spans)
        lines = [line for span in rest for line in _lines(message.content[span.start : span.stop])]
        passages += lines
        if index == last:
            question = "\n".join(message.content[s.start : s.stop].strip() for s in spans)
            question_first = bool(lines) and bool(spans) and rest[-1].start >= spans[0].stop
    return Parts(question, tuple(passages), question_first)


def question_spans(text: str, question: str | None = None) -> list[TextSpan]:
    """Where a user turn's question is, in order; several spans if a long line is taken apart.

    question: the question, if the row's format gives it.
    """
    if question and (start := text.rfind(question)) >= 0:
        return [TextSpan(start, start + len(question))]
    if label := _last(_QUESTION_LABEL.finditer(text)):
        following = _OTHER_LABEL.search(text, label.end())
        stop = following.start() if following else _end_of_question(text, label.end())
        return [TextSpan(label.start(), stop)]
    lines = [TextSpan(*match.span()) for match in _LINE.finditer(text)]
    if len(lines) < 2:
        return [part for line in lines for part in _asking_sentences(text, line)]
    first, last = lines[0], lines[-1]
    if _QUESTION_END.search(text[last.start : last.stop]):
        return [last]
    if _QUESTION_END.search(text[first.start : first.stop]):
        return [first]
    return [min(last, first, key=lambda span: span.length)]


def passage_spans(text: str, question: str | None = None) -> list[TextSpan]:
    """Where a user turn has text that is not its question, longest first."""
    return sorted(_rest(text, question_spans(text, question)), key=lambda span: -span.length)


def _end_of_question(text: str, start: int) -> int:
    """Where a labelled question ends if no other label follows: at its question mark if a passage
    comes after it; options to choose from are short lines and part of the question."""
    lines = list(_LINE.finditer(text, start))
    for number, line in enumerate(lines):
        if _QUESTION_END.search(line.group()):
            after = lines[number + 1 :]
            is_passage = any(len(later.group().encode()) >= MIN_PASSAGE_BYTES for later in after)
            return line.end() if is_passage else len(text)
    return len(text)


def _rest(text: str, spans: Iterable[TextSpan]) -> list[TextSpan]:
    """The text around the spans, without white space at its ends."""
    rest, position = [], 0
    for span in [*spans, TextSpan(len(text), len(text))]:
        piece = text[position : span.start]
        start = position + len(piece) - len(piece.lstrip())
        stop = position + len(piece.rstrip())
        if start < stop:
            rest.append(TextSpan(start, stop))
        position = span.stop
    return rest


def _asking_sentences(text: str, line: TextSpan) -> list[TextSpan]:
    """For a long line, its first, its last and its last interrogative sentence; a short line
    whole."""
    if line.length <= PROTECTED_CHARACTERS:
        return [line]
    matches = _SENTENCE.finditer(text, line.start, line.stop)
    sentences = [TextSpan(*match.span()) for match in matches if match.group().strip()]
    asking = [s for s in sentences if _QUESTION_END.search(text[s.start : s.stop])]
    kept = sorted({sentences[0], sentences[-1], *asking[-1:]})
    if len(kept) == len(sentences):
        return [line]
    return kept


def _lines(text: str) -> list[str]:
    return [bare for line in text.split("\n") if (bare := line.strip())]


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    found = None
    for match in matches:
        found = match
    return found
