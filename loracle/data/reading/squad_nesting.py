"""SQuAD's nested form, taken apart into one flat row a question:

    {"title": "Super Bowl 50",
     "paragraphs": [{"context": "The Broncos won.",
                     "qas": [{"id": "q1", "question": "Who won?",
                              "answers": [{"text": "The Broncos", "answer_start": 0}]}]}]}

An article (`paragraphs`) or one paragraph of it (`qas`) is a row of the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

from loracle.data.faults import Fault, Reason, kind_of
from loracle.data.reading.json_cursor import Cursor, JsonError
from loracle.data.reading.rows import Row

NESTING_KEYS = frozenset({"paragraphs", "qas"})


def question_lines(text: str, line: int) -> tuple[int, ...]:
    """The lines where the questions of a nested row start, the row's own first line being `line`;
    none where it is not formed as expected."""
    cursor = Cursor(io.StringIO(text).read)
    try:
        return tuple(line - 1 + found for found in _question_lines(cursor))
    except JsonError:
        return ()


def _question_lines(cursor: Cursor) -> Iterator[int]:
    for key in cursor.members():
        if key in NESTING_KEYS and cursor.peek() == "[":
            for _ in cursor.items():
                if key == "paragraphs" and cursor.peek() == "{":
                    yield from _question_lines(cursor)
                else:
                    cursor.peek()
                    yield cursor.line
                    cursor.value()
        else:
            cursor.value()


def flat_rows(row: Row) -> Iterator[Row]:
    """The questions of a nested row as rows; what is no question comes as a row with a fault."""
    article = row.value
    assert isinstance(article, dict)
    numbered = list(_flat(row, article))
    # One line for every row, unless the nesting is broken somewhere.
    lines = row.question_lines if len(row.question_lines) == len(numbered) else None
    for index, flat in enumerate(numbered):
        yield flat._replace(line=lines[index]) if lines else flat


def _flat(row: Row, article: Mapping[str, object]) -> Iterator[Row]:
    if "paragraphs" not in article:
        yield from _flat_paragraph(row, article, "", {})
        return
    beside = _beside(article, "data[].")
    paragraphs = article["paragraphs"]
    if not isinstance(paragraphs, list):
        yield _broken(row, f"paragraphs is {kind_of(paragraphs)}; expected a list")
        return
    for index, paragraph in enumerate(paragraphs):
        place = f"paragraphs[{index}]"
        if isinstance(paragraph, dict):
            yield from _flat_paragraph(row, paragraph, f"{place}.", beside)
        else:
            yield _broken(row, f"{place} is {kind_of(paragraph)}; expected an object")


def _beside(nested: Mapping[str, object], prefix: str) -> dict[str, object]:
    """What an article or a paragraph has beside its nesting, to be accounted for."""
    taken = (*NESTING_KEYS, "context")
    return {f"{prefix}{key}": nested[key] for key in nested if key not in taken}


def _flat_paragraph(
    row: Row, paragraph: Mapping[str, object], place: str, beside: Mapping[str, object]
) -> Iterator[Row]:
    questions = paragraph.get("qas")
    if not isinstance(questions, list):
        yield _broken(row, f"{place}qas is {kind_of(questions)}; expected a list of questions")
        return
    context = paragraph.get("context")
    rest = {**beside, **_beside(paragraph, "paragraphs[].")}
    for index, question in enumerate(questions):
        if isinstance(question, dict):
            yield row._replace(value={**rest, **question, "context": context}, question_lines=())
        else:
            yield _broken(row, f"{place}qas[{index}] is {kind_of(question)}; expected an object")


def _broken(row: Row, text: str) -> Row:
    faults = (*row.faults, Fault(Reason.WRONG_KIND, text))
    return row._replace(value=None, faults=faults, question_lines=())
