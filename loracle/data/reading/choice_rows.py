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

A number as the answer is the choice's place, from 0 as MMLU has it, unless the choices themselves
are labelled with numbers (ARC) or their columns are (`option1`).
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from loracle.data.conversation import Message
from loracle.data.faults import Faults, Reason, checked_text, kind_of, named, show
from loracle.data.reading.json_reasons import python_literal
from loracle.data.reading.options import ReadOptions
from loracle.data.reading.passages import passage_of
from loracle.data.reading.question_rows import required_text, turns_before
from loracle.data.reading.row_content import RowContent, RowValue, as_text, is_blank, keys_found
from loracle.data.reading.rows import Row
from loracle.data.reading.tool_calls import tools_of

LETTERS = string.ascii_uppercase[:10]
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
ANSWER_COLUMNS = (
    *("answer_idx", "answer_index", "answer_key", "answerKey", "correct_option", "correct_idx"),
    *("correct_index", "correct_choice", "correct_answer", "cop", "label", "gold", "target"),
    *("answer", "Answer", "answers", "correct", "Correct", "答案", "正确答案"),
)

_LETTERED = re.compile(r"^\s*[(\[（]?\s*([A-Ja-j])\s*[)\]）.．:：、]\s*(.*?)\s*$", re.DOTALL)
_ANNOUNCED = re.compile(
    r"^(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|option|choice|正确答案|答案|选项|应选|故选|选)"
    r"\s*(?:is|为|是)?\s*[:：]?\s*(.+)$",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[\s()\[\]（）.．:：、,，;；/&+和与]+")
_HAN = re.compile(r"[\u4e00-\u9fff]")


class Choice(NamedTuple):
    """A choice: how the row names it, the letter that it is shown with, and its text."""

    label: str
    letter: str
    text: str


def parse_choice(row: RowValue, faults: Faults, options: ReadOptions) -> RowContent:
    """The question with lettered choices; the reply is the letter of the right one."""
    question = required_text(row, "question", faults)
    context = passage_of(row, faults)
    choices = _choices(row, faults)
    reply = _reply(row, choices, faults) if choices else None
    asked = "\n".join((f"{question}", *(f"{choice.letter}. {choice.text}" for choice in choices)))
    cue = "答案：" if _HAN.search(question or "") else "Answer:"
    passage = f"Context: {context}\nQuestion: " if context else ""
    messages = (
        *turns_before(row, faults),
        Message("user", f"{passage}{asked}\n{cue}"),
        Message("assistant", reply or ""),
    )
    return RowContent(messages, (), tools_of(row, faults), context, asked)


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
    pairs = _labelled(row, faults)
    if len(faults) > before:
        return []
    texts = [(label, as_text(text)) for label, text in pairs if not is_blank(text)]
    found = [(label, checked_text(text, f"choice {named(label)}", faults)) for label, text in texts]
    if len(faults) > before:
        return []
    if not 2 <= len(found) <= len(string.ascii_uppercase):
        text = f"{len(found)} choices; expected 2 to {len(string.ascii_uppercase)}"
        faults.add(Reason.MISSING, f"{text} (keys found: {keys_found(row)})")
        return []
    labels = [label.strip() for label, _ in found]
    own = all(len(label) == 1 and label in string.ascii_uppercase for label in labels)
    letters = labels if own and len(set(labels)) == len(labels) else string.ascii_uppercase
    return [
        Choice(label, letter, _without_letter(text or "", letter))
        for (label, text), letter in zip(found, letters, strict=False)
    ]


def _without_letter(text: str, letter: str) -> str:
    """A choice without the letter that it begins with: "B)21.5"."""
    match = _LETTERED.match(text)
    stripped = match is not None and match[1].upper() == letter and bool(match[2])
    return match[2] if match and stripped else text.strip()


def _labelled(row: RowValue, faults: Faults) -> Sequence[tuple[str, object]]:
    column = next((name for name in LIST_COLUMNS if not is_blank(row.get(name))), None)
    if column is not None:
        return _listed(row[column], column, faults)
    for names, labels in _COLUMN_SETS:
        if not is_blank(row.get(names[1])) and not is_blank(row.get(names[0])):
            return [(label, row.get(name)) for name, label in zip(names, labels, strict=True)]
    faults.add(
        Reason.MISSING,
        f"no choices (keys found: {keys_found(row)}); name their column, columns: {{options: ...}}",
    )
    return []


def _listed(value: object, column: str, faults: Faults) -> Sequence[tuple[str, object]]:
    """Choices in one column: a list, {label: text}, or ARC's {"text": [...], "label": [...]}."""
    if isinstance(value, str):
        return _written(value, column, faults)
    if isinstance(value, dict):
        texts, labels = value.get("text"), value.get("label", value.get("labels"))
        if isinstance(texts, list):
            if isinstance(labels, list) and len(labels) == len(texts):
                return [
                    (str(as_text(label)), text) for label, text in zip(labels, texts, strict=True)
                ]
            return list(zip(map(str, range(len(texts))), texts, strict=False))
        return [(str(label), text) for label, text in value.items()]
    if not isinstance(value, list):
        expected = "a list of choices, or an object of them"
        faults.add(Reason.WRONG_KIND, f"{column} is {kind_of(value)}; expected {expected}")
        return []
    pairs: list[tuple[str, object]] = []
    for index, item in enumerate(value):
        label: object = LETTERS[index] if index < len(LETTERS) else str(index)
        text = item
        if isinstance(item, dict):
            keys = ("label", "key", "id", "letter")
            label = next((item[key] for key in keys if not is_blank(item.get(key))), label)
            names = ("text", "content", "value", "para", "option")
            text = next((item[key] for key in names if not is_blank(item.get(key))), item)
        pairs.append((str(as_text(label)), text))
    return pairs


def _written(text: str, column: str, faults: Faults) -> Sequence[tuple[str, object]]:
    """Choices in a cell of a table: JSON, or a line for each, "A. iron"."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        matches = [_LETTERED.match(line) for line in text.split("\n") if line.strip()]
        lettered = [(match[1].upper(), match[2]) for match in matches if match]
        if len(lettered) == len(matches) > 1:
            return lettered
        why = python_literal(text) or "not JSON; expected a JSON list, or one line for each choice"
        faults.add(Reason.BAD_JSON, f"{column} is text, {why}")
        return []
    if isinstance(value, list | dict):
        return _listed(value, column, faults)
    faults.add(Reason.WRONG_KIND, f"{column} is {show(text)}; expected a list of choices")
    return []


def _reply(row: RowValue, choices: Sequence[Choice], faults: Faults) -> str | None:
    """The letters of the right choices, in order, joined: "B", or "BD" if there are two."""
    given = {name: row[name] for name in ANSWER_COLUMNS if not is_blank(row.get(name))}
    if not given:
        faults.add(
            Reason.MISSING,
            f"no answer (keys found: {keys_found(row)}); add it, or name its column, "
            "columns: {answer: ...}",
        )
        return None
    read = {name: letters for name, value in given.items() if (letters := _read(value, choices))}
    if not read:
        name, value = next(iter(given.items()))
        shown = ", ".join(f"{choice.letter}. {show(choice.text)}" for choice in choices[:4])
        advice = "write the letter, the choice's text, or its index counted from 0"
        text = f"{name} is {show(value)}, which matches none of the choices, or more than one"
        faults.add(Reason.CHOICE, f"{text} ({shown}); {advice}")
        return None
    if len(set(read.values())) > 1:
        says = " and ".join(f"{name} says {letters}" for name, letters in read.items())
        faults.add(Reason.CHOICE, f"{says}; keep the one that is right")
        return None
    return next(iter(read.values()))


def _read(value: object, choices: Sequence[Choice]) -> str | None:
    """The letters that an answer stands for; None where it stands for none, or for several."""
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if isinstance(value, list):
        each = [_read(item, choices) for item in value]
        letters = "".join(letter or "?" for letter in each)
        return None if not letters or "?" in letters else "".join(sorted(set(letters)))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _by_number(value, choices)
    return _by_text(value.strip(), choices) if isinstance(value, str) and value.strip() else None


def _by_number(value: int, choices: Sequence[Choice]) -> str | None:
    """The choice labelled so, else the one at that place, else the one that says so."""
    labelled = [choice.letter for choice in choices if choice.label == str(value)]
    if labelled:
        return labelled[0]
    said = [choice.letter for choice in choices if choice.text == str(value)]
    at = choices[value].letter if 0 <= value < len(choices) else None
    return at or (said[0] if len(said) == 1 else None)


def _by_text(text: str, choices: Sequence[Choice]) -> str | None:
    labels = {choice.label: choice.letter for choice in choices}
    letters = {choice.letter for choice in choices}
    plain = _plain(text)
    said = [choice.letter for choice in choices if _plain(choice.text) == plain]
    if text in labels and not (text.isdigit() and said and said != [labels[text]]):
        return labels[text]
    if len(said) == 1 and not text.isdigit():
        return said[0]
    if text.isdigit():
        at = choices[int(text)].letter if len(text) < 3 and int(text) < len(choices) else None
        # "2" beside the choices 1, 2, 3, 4 may be either.
        return said[0] if len(said) == 1 and at in (None, said[0]) else None if said else at
    announced = _ANNOUNCED.match(text)
    bare = _MARKS.sub("", announced[1] if announced else text)
    # "bad" is a word; letters are written large, unless it is one alone.
    is_letters = set(bare.upper()) <= letters and len(set(bare.upper())) == len(bare)
    if is_letters and (bare.isupper() or len(bare) == 1):
        return "".join(sorted(bare.upper()))
    if (match := _LETTERED.match(text)) and match[1].upper() in letters:
        letter = match[1].upper()
        if any(c.letter == letter and _plain(c.text) == _plain(match[2]) for c in choices):
            return letter
    return None


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
