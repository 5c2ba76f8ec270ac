"""Multiple choice: a question, its choices, and which of them is right.

    {"question": "...", "A": "4", "B": "9", "C": "11", "D": "15", "answer": "C"}   C-Eval, CMMLU
    {"question": "...", "choices": ["4", "9", "11", "15"], "answer": 2}            MMLU
    {"question": "...", "choices": {"text": [...], "label": [...]}, "answerKey": "C"}   ARC
    {"article": "...", "question": "...", "options": [...], "answer": "C"}         RACE
    {"question": "...", "options": {"A": "4", ...}, "answer_idx": "C", "answer": "11"}   MedQA

All become one form, and the reply is the letter, or letters:

    Which is prime?
    A. 4
    B. 9
    C. 11
    D. 15
    Answer:

Which of them is right is read by choice_answers.py.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from loracle.data.conversation import Message
from loracle.data.faults import Faults, Reason, checked_text, kind_of, named, show
from loracle.data.reading.choice_answers import (
    LETTERED,
    Choice,
    answer_place,
    right_letters,
)
from loracle.data.reading.json_reasons import python_literal
from loracle.data.reading.options import ReadOptions
from loracle.data.reading.passages import passage_of
from loracle.data.reading.question_rows import required_text, turns_before
from loracle.data.reading.row_content import RowContent, RowValue, as_text, is_blank, keys_found
from loracle.data.reading.rows import Row
from loracle.data.reading.tool_calls import tools_of
from loracle.plan.names import repeated

LETTERS: str = string.ascii_uppercase[:10]
LIST_COLUMNS = ("options", "choices", "Options", "Choices", "endings", "选项")
_NUMBERED = tuple(map(str, range(1, 11)))
_FROM_ZERO = tuple(map(str, range(10)))
# The columns of single choices, each set with the labels that they stand for.
_COLUMN_SETS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    *((tuple(f"{name}{x}" for x in LETTERS), tuple(LETTERS)) for name in ("", "选项")),
    *(
        (tuple(f"{name}{x}" for x in labels), labels_of)
        for name, labels, labels_of in (
            ("", LETTERS.lower(), tuple(LETTERS)),
            ("op", LETTERS.lower(), tuple(LETTERS)),
            *(
                (f"{name}{mark}", letters, tuple(LETTERS))
                for name in ("option", "Option", "choice", "Choice", "opt")
                for mark in ("", "_", " ", "-")
                for letters in (LETTERS, LETTERS.lower())
            ),
            *(
                (f"{name}{mark}", _NUMBERED, _NUMBERED)
                for name in ("option", "Option", "choice", "Choice", "opt", "sol")
                for mark in ("", "_", " ", "-")
            ),
            *((f"{name}", _FROM_ZERO, _FROM_ZERO) for name in ("ending", "option", "choice")),
        )
    ),
)
SECOND_COLUMNS = tuple(dict.fromkeys(columns[1] for columns, _ in _COLUMN_SETS))
"""A row that has one of these, or a list of choices, is multiple choice."""
CHOICE_COLUMNS = frozenset({*LIST_COLUMNS, *(name for names, _ in _COLUMN_SETS for name in names)})
_HAN = re.compile(r"[\u4e00-\u9fff]")
_FLAGS = ("is_correct", "isCorrect", "correct", "is_answer", "is_right", "answer")


def parse_choice(row: RowValue, faults: Faults, options: ReadOptions) -> RowContent:
    """The question with lettered choices; the reply is the letter of the right one."""
    question = required_text(row, "question", faults)
    context = passage_of(row, faults)
    choices = _choices(row, faults)
    reply = right_letters(row, choices, faults) if choices else None
    place = answer_place(row, choices) if choices else None
    asked = "\n".join((f"{question}", *(f"{choice.letter}. {choice.text}" for choice in choices)))
    cue = "答案：" if _HAN.search(question or "") else "Answer:"
    passage = f"Context: {context}\nQuestion: " if context else ""
    messages = (
        *turns_before(row, faults),
        Message("user", f"{passage}{asked}\n{cue}"),
        Message("assistant", reply or ""),
    )
    return RowContent(messages, (), tools_of(row, faults), context, asked, answer_place=place)


def flat_questions(row: Row) -> Iterator[Row]:
    """RACE as it was published, an article with lists of questions, as a row a question."""
    value = row.value
    assert isinstance(value, dict)
    questions, options, answers = (value.get(key) for key in ("questions", "options", "answers"))
    lists = [part for part in (questions, options, answers) if isinstance(part, list)]
    if not isinstance(questions, list) or len({len(part) for part in lists}) != 1 or len(lists) < 3:
        yield row
        return
    rest = {key: value[key] for key in value if key not in ("questions", "options", "answers")}
    for number, (question, choices, answer) in enumerate(zip(*lists, strict=True)):
        one = {**rest, "question": question, "options": choices, "answer": answer}
        if not is_blank(value.get("id")):
            one["id"] = f"{value['id']}-{number}"
        yield row._replace(value=one)


def _choices(row: RowValue, faults: Faults) -> list[Choice]:
    """The choices of a row; none, and a fault, where they cannot be told."""
    before = len(faults)
    written = _labelled(row, faults)
    if len(faults) > before:
        return []
    found = [
        one._replace(text=checked_text(as_text(one.text), f"choice {named(one.label)}", faults))
        for one in written
        if not is_blank(one.text)
    ]
    if len(faults) > before:
        return []
    if not 2 <= len(found) <= len(string.ascii_uppercase):
        text = f"{len(found)} choices; expected 2 to {len(string.ascii_uppercase)}"
        faults.add(Reason.MISSING, f"{text} (keys found: {keys_found(row)})")
        return []
    found = _as_lettered(found)
    labels = [one.label.strip() for one in found]
    if twice := repeated(labels):
        faults.add(Reason.CHOICE, f"two choices are labelled {show(twice[0])}; rename one")
        return []
    own = all(len(label) == 1 and label in string.ascii_uppercase for label in labels)
    letters = labels if own and len(set(labels)) == len(labels) else string.ascii_uppercase
    return [
        Choice(
            one.label,
            letter,
            _without_letter(str(one.text), letter),
            one.place,
            one.is_right,
            one.is_named,
        )
        for one, letter in zip(found, letters, strict=False)
    ]


def _as_lettered(found: list[_Written]) -> list[_Written]:
    """Choices of a plain list under the letters that their texts begin with, if all do, and each
    with another: "B. iron" is B wherever it stands."""
    matches = [LETTERED.match(str(one.text)) for one in found]
    letters = [match[1].upper() for match in matches if match]
    if any(one.is_named for one in found) or len(set(letters)) < len(found):
        return found
    pairs = zip(found, letters, strict=True)
    return [one._replace(label=letter, is_named=True) for one, letter in pairs]


def _without_letter(text: str, letter: str) -> str:
    """A choice without the letter that it begins with: "B)21.5"."""
    match = LETTERED.match(text)
    stripped = match is not None and match[1].upper() == letter and bool(match[2])
    return match[2] if match and stripped else text.strip()


class _Written(NamedTuple):
    """A choice as the row has it, blank ones too."""

    label: str
    text: object
    place: int
    is_right: bool | None = None
    is_named: bool = True


def _placed(pairs: Iterable[tuple[str, object]]) -> list[_Written]:
    return [_Written(label, text, place) for place, (label, text) in enumerate(pairs)]


def _labelled(row: RowValue, faults: Faults) -> Sequence[_Written]:
    column = next((name for name in LIST_COLUMNS if not is_blank(row.get(name))), None)
    if column is not None:
        return _listed(row[column], column, faults)
    for names, labels in _COLUMN_SETS:
        if sum(not is_blank(row.get(name)) for name in names) > 1:
            return _placed(
                (label, row.get(name)) for name, label in zip(names, labels, strict=True)
            )
    faults.add(
        Reason.MISSING,
        f"no choices (keys found: {keys_found(row)}); name their column, columns: {{options: ...}}",
    )
    return []


def _listed(value: object, column: str, faults: Faults) -> Sequence[_Written]:
    """Choices in one column: a list, {label: text}, or ARC's {"text": [...], "label": [...]}."""
    if isinstance(value, str):
        return _written(value, column, faults)
    if isinstance(value, dict):
        texts = value.get("text", value.get("choices"))
        if isinstance(texts, list):
            return _with_labels(texts, value.get("label", value.get("labels")))
        return _placed((str(label), text) for label, text in value.items())
    if not isinstance(value, list):
        expected = "a list of choices, or an object of them"
        faults.add(Reason.WRONG_KIND, f"{column} is {kind_of(value)}; expected {expected}")
        return []
    return [_item(item, index) for index, item in enumerate(value)]


def _with_labels(texts: Sequence[object], labels: object) -> list[_Written]:
    """Texts beside their labels; 1 and 0 beside them, as TruthfulQA has, say which is right."""
    if not isinstance(labels, list) or len(labels) != len(texts):
        return _placed(zip(map(str, range(len(texts))), texts, strict=False))
    flags = [_flag(label) for label in labels]
    if None not in flags and (len(set(flags)) < len(flags) or set(flags) == {True, False}):
        return [
            _Written(str(place), text, place, flag)
            for place, (text, flag) in enumerate(zip(texts, flags, strict=True))
        ]
    return _placed((str(as_text(label)), text) for label, text in zip(labels, texts, strict=True))


def _item(item: object, place: int) -> _Written:
    """A choice of a list: a text, or an object with its label and text, and perhaps a flag."""
    label: object = LETTERS[place] if place < len(LETTERS) else str(place)
    if not isinstance(item, dict):
        return _Written(str(label), item, place, is_named=False)
    keys = ("label", "key", "id", "letter")
    label = next((item[key] for key in keys if not is_blank(item.get(key))), label)
    names = ("text", "content", "value", "para", "option")
    text = next((item[key] for key in names if not is_blank(item.get(key))), item)
    flag = next((item[key] for key in _FLAGS if item.get(key) is not None), None)
    return _Written(str(as_text(label)), text, place, _flag(flag))


def _flag(value: object) -> bool | None:
    """Whether a choice is said to be right; None where that is not what the value says."""
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def _written(text: str, column: str, faults: Faults) -> Sequence[_Written]:
    """Choices in a cell of a table: JSON, or a line for each, "A. iron"."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        matches = [LETTERED.match(line) for line in text.split("\n") if line.strip()]
        lettered = [(match[1].upper(), match[2]) for match in matches if match]
        if len(lettered) == len(matches) > 1:
            return _placed(lettered)
        why = python_literal(text) or "not JSON; expected a JSON list, or one line for each choice"
        faults.add(Reason.BAD_JSON, f"{column} is text, {why}")
        return []
    if isinstance(value, list | dict):
        return _listed(value, column, faults)
    faults.add(Reason.WRONG_KIND, f"{column} is {show(text)}; expected a list of choices")
    return []
